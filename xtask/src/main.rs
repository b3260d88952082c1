//! The project's chores: `cargo xtask --help`.
#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks on its standard output"
)]

mod setup;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Command {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Make this machine able to build and test: looks first, installs only what is missing
    Setup(setup::Options),
}

fn main() -> Result<()> {
    match Command::parse().chore {
        Chore::Setup(options) => setup::run(&options),
    }
}
