//! Shows what Guard does: `demo`, or `demo --json` for one JSON object a step. Run it with `cargo xtask demo`.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use guard_tests::demo::{self, Facts, STEPS};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let json = std::env::args().skip(1).any(|argument| argument == "--json");
    let screen = Screen {
        json,
        colour: !json && io::stdout().is_terminal(),
    };
    match show(&screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(screen: &Screen) -> Result<bool> {
    let begun = Instant::now();
    screen.opening()?;
    let outcome = demo::stage().and_then(|lab| {
        for (number, step) in (1..).zip(STEPS) {
            screen.title(number, step.title)?;
            let step_begun = Instant::now();
            let facts = (step.act)(&lab).map_err(|error| {
                eprintln!("--- the daemon said ---\n{}", lab.daemon_said());
                error.context(format!("step {number}: {}", step.title))
            })?;
            screen.facts(number, step.title, &facts, step_begun)?;
        }
        Ok(())
    });
    screen.closing(&outcome, begun)?;
    Ok(outcome.is_ok())
}

struct Screen {
    json: bool,
    colour: bool,
}

impl Screen {
    fn opening(&self) -> Result<()> {
        if !self.json {
            self.line(
                "Guard: one agent on one host, fake providers on a small internet, the vendors' own clients.",
            )?;
        }
        Ok(())
    }

    fn title(&self, number: u32, title: &str) -> Result<()> {
        if !self.json {
            self.line(&format!("\n{}", self.strong(&format!("{number}. {title}"))))?;
        }
        Ok(())
    }

    fn facts(&self, number: u32, title: &str, facts: &Facts, begun: Instant) -> Result<()> {
        if self.json {
            let shown = demo::object(facts);
            return self.object(&json!({
                "step": number, "title": title, "ok": true, "ms": milliseconds(begun), "facts": shown,
            }));
        }
        let width = facts
            .iter()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or_default();
        let mut before = "";
        for (name, value) in facts {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let shown = if *name == before { "" } else { *name };
            self.line(&format!("   {shown:width$}  {text}"))?;
            before = *name;
        }
        Ok(())
    }

    fn closing(&self, outcome: &Result<()>, begun: Instant) -> Result<()> {
        let spent = milliseconds(begun);
        match (outcome, self.json) {
            (Ok(()), true) => self.object(&json!({"ok": true, "steps": STEPS.len(), "ms": spent})),
            (Err(error), true) => {
                self.object(&json!({"ok": false, "error": format!("{error:#}"), "ms": spent}))
            }
            (Ok(()), false) => {
                let said = format!(
                    "All {} steps hold. Everything that was made here is gone again.",
                    STEPS.len()
                );
                self.line(&format!("\n{}", self.strong(&said)))
            }
            (Err(error), false) => self.line(&format!("\n{}", self.strong(&format!("FAILED: {error:#}")))),
        }
    }

    fn strong(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn object(&self, value: &Value) -> Result<()> {
        self.line(&value.to_string())
    }

    #[expect(clippy::unused_self, reason = "one way to the screen for every line")]
    fn line(&self, text: &str) -> Result<()> {
        let mut screen = io::stdout().lock();
        writeln!(screen, "{text}")?;
        Ok(screen.flush()?)
    }
}

fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
