//! `cargo xtask bench`: numbers for docs/performance.md. Nothing fails by being slow.

use anyhow::{Result, bail};

use crate::demo::{cargo_with, need_root};

/// What to measure.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Options {
    /// What the programs cost per call: governed and not, with none and with up to 1,000 agents.
    #[arg(long)]
    pub(crate) hooks: bool,
}

/// Measures what was asked for.
///
/// # Errors
/// Nothing was asked for, or it cannot be measured here.
pub(crate) fn run(options: Options) -> Result<()> {
    if !options.hooks {
        bail!("say what to measure: `cargo xtask bench --hooks`");
    }
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
