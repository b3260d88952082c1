//! The project's chores: `cargo xtask --help`.
#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks on its standard output"
)]

mod bench;
mod check;
mod countermeasures;
mod demo;
mod fuzz;
mod kernels;
mod mistakes;
mod prices;
mod setup;
mod systemd;
mod test;

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
    /// Show what Guard does, with real clients against fake providers; leaves nothing behind
    Demo {
        /// One JSON object a step instead of text
        #[arg(long)]
        json: bool,
    },
    /// Check format, lints and the size of files
    Check,
    /// Make the price snapshot in the binary anew from LiteLLM's model_prices_and_context_window.json
    Prices {
        /// The file; PyPI's `litellm` ships it as `litellm/model_prices_and_context_window_backup.json`
        file: std::path::PathBuf,
    },
    /// Measure: `--ledger` and `--passthrough` write docs/performance.md, `--hooks` prints
    Bench(bench::Options),
    /// Run every test; what cannot run here fails
    Test(test::Options),
}

fn main() -> Result<()> {
    match Command::parse().chore {
        Chore::Setup(options) => setup::run(&options),
        Chore::Demo { json } => demo::run(json),
        Chore::Check => check::run(),
        Chore::Prices { file } => prices::run(&file),
        Chore::Bench(options) => bench::run(options),
        Chore::Test(options) => test::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Command;

    #[test]
    fn the_command_line_of_every_chore_is_sound() {
        Command::command().debug_assert();
    }
}
