//! `cargo xtask test`: every test there is. What cannot run here fails; nothing is skipped.

use std::io::{self, Write};

use anyhow::Result;

use crate::demo::{cargo, cargo_with, need_root, set_up};
use crate::{countermeasures, fuzz, kernels, setup, systemd};

/// What to run beside the suites.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Only the kernel suites, emulated, on the oldest and the newest supported kernel, or on the series that are named
    /// (`--kernels 6.1`): ten to twenty minutes each.
    #[arg(long, value_name = "SERIES", num_args = 0.., value_parser = kernels::SERIES)]
    pub(crate) kernels: Option<Vec<String>>,
    /// Only what is not ours: an independent fake provider in every dialect that it speaks, an independent price list,
    /// and the matrix of clients: every supported SDK and agent CLI (2 GB), each run against the fake providers, the
    /// outcome written to docs/clients.md. About fifteen minutes.
    #[arg(long)]
    pub(crate) clients: bool,
    /// Only the fuzzer: every parser for half a minute, one after the other (eighteen minutes, and as long to build it
    /// once).
    #[arg(long)]
    pub(crate) fuzz: bool,
    /// How the fuzzer runs.
    #[command(flatten)]
    pub(crate) fuzzing: fuzz::Options,
    /// Only kill -9 of the daemon under load, this often; some three seconds each.
    #[arg(long, value_name = "N")]
    pub(crate) kills: Option<u32>,
    /// Only containers whose first act is to connect, this many of either kind; some two seconds each.
    #[arg(long, value_name = "N")]
    pub(crate) docker_starts: Option<u32>,
    /// Only the suite under a real systemd, booted in namespaces of its own: two minutes, and two more to make its root.
    #[arg(long)]
    pub(crate) systemd: bool,
    /// Only the proof that each counter-measure outside the kernel is what stops its attack, or those that are named: with
    /// it switched off, in a copy of the source that has such switches, the attack gets through. About twenty minutes.
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(crate) switched_off: Option<Vec<String>>,
    /// Only the storm on the ledger: a million calls from two hundred threads against a hundred tight budgets, a
    /// thousand kill -9, and many more power losses. Some minutes.
    #[arg(long)]
    pub(crate) storm: bool,
}

/// Runs unit and golden tests, then the suites that need root and a real kernel.
///
/// # Errors
/// A test fails or cannot run.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.storm {
        return storm();
    }
    if options.fuzz {
        return fuzz::run(&options.fuzzing);
    }
    need_root("the lab")?;
    set_up()?;
    if let Some(series) = &options.kernels {
        return kernels::run(series);
    }
    if options.systemd {
        return systemd::run();
    }
    if let Some(names) = &options.switched_off {
        return countermeasures::run(names);
    }
    if options.clients {
        return clients();
    }
    if let Some(count) = options.kills {
        return repeat("GUARD_KILLS", count, "kills", "killed_at_random");
    }
    if let Some(count) = options.docker_starts {
        return repeat(
            "GUARD_DOCKER_STARTS",
            count,
            "docker",
            "whose_first_act_is_to_connect",
        );
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

/// The tests of one suite whose names hold this, as often as they are told to by a variable.
fn repeat(variable: &str, count: u32, suite: &str, name: &str) -> Result<()> {
    cargo(["build", "--package", "guard-agent", "--bin", "guard-agent"])?;
    let count = count.to_string();
    cargo_with(
        ["test", "--package", "guard-tests", "--test", suite, name],
        [(variable, count.as_str())],
    )
}

/// All of what the normal run does a part of.
fn storm() -> Result<()> {
    let suites = ["ledger::tests::storm", "ledger::tests::power"];
    let more = [("GUARD_STORM", "1"), ("PROPTEST_CASES", "500")];
    let tests = ["test", "--package", "guard-agent", "--lib", "--"];
    cargo_with(tests.into_iter().chain(suites).chain(["--nocapture"]), more)
}

/// The matrix of clients; its own program, because it writes a document and takes names of clients.
fn clients() -> Result<()> {
    setup::perform(setup::CLIENTS, false)?;
    cargo(["build", "--package", "guard-agent", "--bin", "guard-agent"])?;
    cargo([
        "test",
        "--package",
        "guard-tests",
        "--test",
        "independent",
        "--",
        "--ignored",
    ])?;
    cargo(["run", "--package", "guard-tests", "--bin", "clients"])
}
