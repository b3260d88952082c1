//! `cargo xtask test`: every test there is. What cannot run here fails; nothing is skipped.

use std::io::{self, Write};

use anyhow::{Result, bail};

use crate::demo::{cargo, need_root, set_up};
use crate::kernels;

/// What to run beside the suites.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Options {
    /// Only the kernel suites, on the oldest and the newest supported kernel, emulated: ten to twenty minutes.
    #[arg(long)]
    pub(crate) kernels: bool,
    /// Every supported client (not available in this version).
    #[arg(long)]
    pub(crate) clients: bool,
    /// Faults at random for a long time (not available in this version).
    #[arg(long)]
    pub(crate) storm: bool,
}

/// Runs unit and golden tests, then the suites that need root and a real kernel.
///
/// # Errors
/// A test fails or cannot run.
pub(crate) fn run(options: Options) -> Result<()> {
    let asked = [(options.clients, "--clients"), (options.storm, "--storm")];
    if let Some((_, name)) = asked.iter().find(|(asked, _)| *asked) {
        bail!("{name} is not available in this version");
    }
    need_root("the lab")?;
    set_up()?;
    if options.kernels {
        return kernels::run();
    }
    cargo([
        "test",
        "--workspace",
        "--exclude",
        "guard-ebpf",
        "--exclude",
        "guard-tests",
    ])?;
    cargo(["build", "--package", "guard-agent", "--bin", "guard-agent"])?;
    cargo(["test", "--package", "guard-tests", "--no-fail-fast"])?;
    writeln!(io::stdout(), "All tests passed: unit, golden, lab and kernel.")?;
    Ok(())
}
