//! `cargo xtask test`: every test there is. What cannot run here fails; nothing is skipped.

use std::io::{self, Write};

use anyhow::Result;

use crate::demo::{cargo, cargo_with, need_root, set_up};
use crate::{kernels, setup, systemd};

/// What to run beside the suites.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Options {
    /// Only the kernel suites, on the oldest and the newest supported kernel, emulated: ten to twenty minutes.
    #[arg(long)]
    pub(crate) kernels: bool,
    /// Only the matrix of clients: installs every supported SDK and agent CLI (2 GB), runs each against the fake
    /// providers, and writes docs/clients.md. About ten minutes.
    #[arg(long)]
    pub(crate) clients: bool,
    /// Only the suite under a real systemd, booted in namespaces of its own: two minutes, and two more to make its root.
    #[arg(long)]
    pub(crate) systemd: bool,
    /// Only the storm on the ledger: a million calls from two hundred threads against a hundred tight budgets, a
    /// thousand kill -9, and many more power losses. Some minutes.
    #[arg(long)]
    pub(crate) storm: bool,
}

/// Runs unit and golden tests, then the suites that need root and a real kernel.
///
/// # Errors
/// A test fails or cannot run.
pub(crate) fn run(options: Options) -> Result<()> {
    if options.storm {
        return storm();
    }
    need_root("the lab")?;
    set_up()?;
    if options.kernels {
        return kernels::run();
    }
    if options.systemd {
        return systemd::run();
    }
    if options.clients {
        return clients();
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

/// All of what the normal run does a part of.
fn storm() -> Result<()> {
    let suites = ["ledger::tests::storm", "ledger::tests::power"];
    let more = [("GUARD_STORM", "1"), ("PROPTEST_CASES", "500")];
    let tests = ["test", "--package", "guard-agent", "--lib", "--"];
    cargo_with(more, tests.into_iter().chain(suites).chain(["--nocapture"]))
}

/// The matrix of clients; its own program, because it writes a document and takes names of clients.
fn clients() -> Result<()> {
    setup::perform(setup::CLIENTS, false)?;
    cargo(["build", "--package", "guard-agent", "--bin", "guard-agent"])?;
    cargo(["run", "--package", "guard-tests", "--bin", "clients"])
}
