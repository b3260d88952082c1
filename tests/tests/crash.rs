//! kill -9 in the middle of traffic: no money is lost, nothing governed slips out, nobody else notices.

use std::time::Duration;

use anyhow::{Context, Result};
use guard_agent::money::Pico;
use guard_tests::lab::Lab;
use guard_tests::provider::{Gate, Pace, Reply};

const CALL: &str = "openai --model gpt-5 --max-tokens 1000 --stream --retries 0";
const STREAMS: u64 = 10;

#[test]
fn after_kill_9_in_ten_streams_the_ledger_holds_each_and_only_the_governed_noticed() -> Result<()> {
    let lab = Lab::builder().start()?;
    // how much one such call reserves, and what it costs when nothing goes wrong
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    let record = lab.calls(1)?.pop().context("no record")?;
    let number = |name: &str| record[name].as_u64().with_context(|| record.to_string());
    let (settled, each) = (number("cost_pico_usd")?, number("reserved_pico_usd")?);

    let outsider = lab
        .outside()
        .sdk("anthropic --model claude-haiku-4-5 --calls 40 --pause 0.1 --retries 0")?
        .start()?;
    let steps = Gate::closed();
    lab.openai()
        .always(Reply::default().paced(Pace::Stepped(steps.clone())));
    let mut streams = lab
        .coder()
        .sdk(&format!("{CALL} --parallel {STREAMS}"))?
        .start()?;
    lab.openai()
        .wait_for(1 + usize::try_from(STREAMS)?, Duration::from_secs(30))?;
    // two events of each: every stream has begun to speak
    for _ in 0..2 {
        steps.let_each_pass(usize::try_from(STREAMS)?)?;
    }
    for _ in 0..STREAMS {
        assert!(streams.line()?.contains("delta"));
    }

    lab.kill_daemon()?;
    let said = streams.wait(Duration::from_secs(30))?.ok()?.json_lines()?;
    let failed = said.iter().filter(|line| line["ok"] == false).count();
    assert_eq!(
        u64::try_from(failed)?,
        STREAMS,
        "every stream ended with an error: {said:?}"
    );
    let before = lab.openai().connections();
    for host in ["api.openai.com", "www.example.org"] {
        let done = lab
            .coder()
            .spawn("curl")
            .args(["-sS", "-m", "5", &format!("https://{host}/")])
            .run()?;
        assert_eq!(
            done.code(),
            7,
            "curl's code for a refused connection, {host}: {}",
            done.stderr
        );
    }
    assert_eq!(lab.openai().connections(), before, "nothing governed got out");

    steps.open();
    lab.start_daemon()?;
    let scope = [("scope", "agent"), ("name", "coder")];
    let metrics = lab.metrics()?;
    assert_eq!(
        metrics.usd("guard_budget_settled_usd", &scope)?,
        Pico(settled + STREAMS * each)
    );
    assert_eq!(metrics.usd("guard_budget_reserved_usd", &scope)?, Pico::ZERO);
    assert_eq!(lab.coder().call(CALL)?["ok"], true, "and work goes on");
    assert_eq!(lab.guard(["audit", "verify"])?.code(), 0);

    let outside = outsider.wait(Duration::from_secs(60))?.ok()?.json_lines()?;
    assert_eq!(outside.len(), 40);
    assert!(
        outside.iter().all(|line| line["ok"] == true),
        "the outsider never noticed: {outside:?}"
    );
    Ok(())
}

#[test]
fn a_stop_and_a_start_keep_what_was_settled() -> Result<()> {
    let lab = Lab::builder().start()?;
    assert_eq!(lab.coder().call(CALL)?["ok"], true);
    lab.calls(1)?;
    let scope = [("scope", "agent"), ("name", "coder")];
    let settled = lab.metrics()?.usd("guard_budget_settled_usd", &scope)?;
    assert_ne!(settled, Pico::ZERO);
    assert!(lab.stop_daemon()?.success());
    let refused = lab
        .coder()
        .spawn("curl")
        .args(["-sS", "-m", "5", "https://api.openai.com/"])
        .run()?;
    assert_eq!(refused.code(), 7, "{}", refused.stderr);
    lab.start_daemon()?;
    assert_eq!(lab.metrics()?.usd("guard_budget_settled_usd", &scope)?, settled);
    Ok(())
}
