//! What a person sees in a terminal.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use guard_tests::lab::Lab;

/// `script` gives a command a terminal of its own, and hands on what is typed.
#[test]
fn top_shows_a_refusal_as_it_comes_and_leaves_the_terminal_as_it_was() -> Result<()> {
    let lab = Lab::builder().start()?;
    lab.coder().call("openai --model gpt-5")?;
    lab.calls(1)?;
    let (program, config) = (Lab::program()?, lab.config());
    let command = format!(
        "stty rows 30 cols 120; {} --config {} top",
        program.display(),
        config.display()
    );
    let feed = format!("(sleep 6; printf q) | script -qec '{command}' /dev/null");
    let top = lab
        .outside()
        .spawn("sh")
        .args(["-c", &feed])
        .env("TERM", "xterm-256color")
        .start()?;
    thread::sleep(Duration::from_secs(2));
    lab.coder().call("openai --model o3")?;
    let done = top.wait(Duration::from_secs(30))?.ok()?;
    let screen = done.stdout;
    for expected in ["enforcing", "coder (coder-team)", "model_denied", "none so far"] {
        assert!(screen.contains(expected), "{expected}: {screen:?}");
    }
    // the alternate screen was entered and left
    assert!(
        screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"),
        "{screen:?}"
    );
    let no_terminal = lab.command(["top"])?.run()?;
    assert_eq!(no_terminal.code(), 1);
    assert!(
        no_terminal.stderr.contains("guard-agent status"),
        "{}",
        no_terminal.stderr
    );
    Ok(())
}
