//! `cargo xtask bench`: measurements whose numbers stand in `docs/performance.md`.

use anyhow::{Result, ensure};

use crate::demo::{cargo, cargo_with, need_root};

/// What to measure.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Options {
    /// Reserve and settle, with 1 to 10,000 scopes and 1 to 64 threads; fails below 100,000 a second. A minute or two.
    #[arg(long)]
    ledger: bool,
    /// What the programs cost per call: governed and not, with none and with up to 1,000 agents. As root.
    #[arg(long)]
    hooks: bool,
    /// What it costs to relay a byte: the daemon's copy loop, splice(2) and a sockmap. As root, half a minute.
    #[arg(long)]
    passthrough: bool,
}

/// Measures, and writes the numbers down.
///
/// # Errors
/// Nothing is named, a build fails, or what is measured is slower than promised.
pub(crate) fn run(options: Options) -> Result<()> {
    ensure!(
        options.ledger || options.hooks || options.passthrough,
        "name what to measure: --ledger, --hooks, --passthrough"
    );
    if options.ledger {
        ledger()?;
    }
    if options.hooks {
        hooks()?;
    }
    if options.passthrough {
        need_root("joining sockets in the kernel")?;
        release("passthrough", &[])?;
    }
    Ok(())
}

fn ledger() -> Result<()> {
    release("bench", &["ledger"])
}

/// One of the measuring programs, optimised.
fn release(program: &str, arguments: &[&str]) -> Result<()> {
    let run = [
        "run",
        "--release",
        "--quiet",
        "--package",
        "guard-tests",
        "--bin",
        program,
        "--",
    ];
    cargo(run.iter().chain(arguments))
}

/// The programs are optimised in every build; what is around them is not measured.
fn hooks() -> Result<()> {
    need_root("measuring the programs")?;
    cargo_with(
        [
            "test",
            "--package",
            "guard-tests",
            "--test",
            "kernel",
            "--",
            "--exact",
            "cost::the_cost_of_the_programs",
            "--nocapture",
        ],
        [("GUARD_MEASURE", "1")],
    )
}
