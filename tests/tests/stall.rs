//! One agent's client that stops reading must not slow another agent.

use std::time::{Duration, Instant};

use anyhow::Result;
use guard_tests::lab::Lab;
use guard_tests::provider::Reply;

const CHAT: &str = "https://api.openai.com/v1/chat/completions";
const BODY: &str =
    r#"{"model":"gpt-5","stream":true,"max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}"#;

#[test]
fn a_stalled_http_2_reader_of_one_agent_does_not_disturb_the_other() -> Result<()> {
    let lab = Lab::builder().start()?;
    // far more than the windows and buffers between provider and client hold
    let long = Reply {
        words: vec!["x".repeat(16_000); 200],
        ..Reply::default()
    };
    for _ in 0..8 {
        lab.openai().next(long.clone());
    }
    let mut stalled = lab
        .coder()
        .python("raw.py", "h2-stalled --patience 60")?
        .start()?;
    assert!(stalled.line()?.contains("stalled"));
    lab.openai().wait_for(8, Duration::from_secs(20))?;
    let memory = lab.daemon_memory()?;

    for option in ["--http2", "--http1.1"].repeat(5) {
        let begun = Instant::now();
        let done = lab
            .other()
            .curl([option, "--no-buffer", "-d", BODY, CHAT])?
            .run()?
            .ok()?;
        assert!(done.stdout.ends_with("data: [DONE]\n\n"), "{}", done.stdout);
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{option} took {:?}",
            begun.elapsed()
        );
    }
    assert!(stalled.is_running()?);
    let grown = lab.daemon_memory()?.saturating_sub(memory);
    assert!(
        grown < 32 << 20,
        "what nobody reads is not collected: {grown} bytes"
    );
    Ok(())
}
