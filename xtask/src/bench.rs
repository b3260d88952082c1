//! `cargo xtask bench`: measurements whose numbers stand in `docs/performance.md`, in optimised builds.

use anyhow::{Result, ensure};

use crate::demo::cargo;

/// What to measure.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Options {
    /// Reserve and settle, with 1 to 10,000 scopes and 1 to 64 threads; fails below 100,000 a second. A minute or two.
    #[arg(long)]
    ledger: bool,
}

/// Measures, and writes the numbers down.
///
/// # Errors
/// Nothing is named, a build fails, or what is measured is slower than promised.
pub(crate) fn run(options: Options) -> Result<()> {
    ensure!(options.ledger, "name what to measure: --ledger");
    cargo([
        "run",
        "--release",
        "--quiet",
        "--package",
        "guard-tests",
        "--bin",
        "bench",
        "--",
        "ledger",
    ])
}
