//! The command line: one file per command. Standard output is for results, standard error for everything else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{DEFAULT_PATH, Host};

mod audit;
mod budget;
mod ca;
mod canary;
mod check;
mod daemon;
mod detach;
mod doctor;
mod explain;
mod freeze;
mod outcome;
mod output;
mod prices;
mod reload;
mod run;
mod status;
mod top;
mod usage;
mod words;
mod worker;

/// Success.
const OK: u8 = 0;
/// The command was understood and did not work.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; clap uses the same.
const USAGE: u8 = 2;

/// A host network firewall for LLM agents.
///
/// The daemon sends every connection of a governed process to itself, decides about each LLM call, puts the provider's
/// key in, meters what the call costs, and keeps every agent within its budget.
#[derive(Debug, Parser)]
#[command(
    name = "guard-agent",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 success; 1 failure; 2 wrong command line or configuration. \
                  `run` exits as its command does.\n\
                  The log filter of the daemon is the environment variable GUARD_LOG (default: info)."
)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

// What a command says of itself stands with it.
#[derive(Debug, Subcommand)]
enum Command {
    Daemon(daemon::Daemon),
    Run(run::Run),
    Check(check::Check),
    Doctor(doctor::Doctor),
    Status(status::Show),
    Top(top::Top),
    Usage(usage::Usage),
    #[command(subcommand)]
    Budget(budget::Budget),
    Reload(reload::Reload),
    Explain(explain::Explain),
    Freeze(freeze::Freeze),
    Unfreeze(freeze::Unfreeze),
    Outcome(outcome::Tell),
    #[command(subcommand)]
    Prices(prices::Prices),
    #[command(subcommand)]
    Ca(ca::Ca),
    #[command(subcommand)]
    Audit(audit::Audit),
    Detach(detach::Detach),
    #[command(hide = true)]
    Worker(worker::Worker),
    #[command(hide = true)]
    Canary(canary::Canary),
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    let done = match command {
        Command::Daemon(command) => command.run(&config),
        Command::Run(command) => command.run(&config),
        Command::Check(command) => command.run(&config),
        Command::Doctor(command) => command.run(&config),
        Command::Status(command) => command.run(&config),
        Command::Top(command) => command.run(&config),
        Command::Usage(command) => command.run(&config),
        Command::Budget(command) => command.run(&config),
        Command::Reload(command) => command.run(&config),
        Command::Explain(command) => command.run(&config),
        Command::Freeze(command) => command.run(&config),
        Command::Unfreeze(command) => command.run(&config),
        Command::Outcome(command) => command.run(&config),
        Command::Prices(command) => command.run(&config),
        Command::Ca(command) => command.run(&config),
        Command::Audit(command) => command.run(&config),
        Command::Detach(command) => command.run(&config),
        Command::Worker(command) => command.run(),
        Command::Canary(command) => command.run(),
    };
    ExitCode::from(done.unwrap_or_else(|why| {
        if output::is_broken_pipe(&why) {
            return OK;
        }
        output::complain(&format!("guard-agent: {why:#}"));
        FAILED
    }))
}

/// Where things are, for commands that only need that. A member of the group `guard` may not be allowed to read the
/// configuration; the usual places are then assumed, and said so when the daemon is not found there.
fn host(config: &Path) -> anyhow::Result<Host> {
    match std::fs::File::open(config) {
        Ok(_readable) => crate::config::load(config)
            .map(|config| config.host)
            .map_err(|problems| {
                let errors = problems.len();
                anyhow::anyhow!(
                    "{} has {errors} problem(s): run `guard-agent check --config {}`",
                    config.display(),
                    config.display()
                )
            }),
        Err(_not_readable) => Ok(crate::config::usual_host()),
    }
}

/// A client for the daemon that uses this configuration.
fn client(config: &Path) -> anyhow::Result<crate::admin::client::Client> {
    let socket = host(config)?.runtime_dir.join(crate::admin::SOCKET);
    Ok(crate::admin::client::Client::new(&socket))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_command_of_a_run_is_taken_as_it_is() {
        let parsed = Arguments::try_parse_from([
            "guard-agent",
            "run",
            "--agent",
            "coder",
            "--",
            "claude",
            "-p",
            "--config",
            "x",
        ])
        .unwrap();
        let Command::Run(run) = parsed.command else {
            panic!("not a run")
        };
        assert_eq!(run.command(), ["claude", "-p", "--config", "x"]);
        assert_eq!(parsed.config, Path::new(DEFAULT_PATH));
        let parsed = Arguments::try_parse_from(["guard-agent", "run", "--agent", "coder", "codex", "--help"]);
        let Command::Run(run) = parsed.unwrap().command else {
            panic!("not a run")
        };
        assert_eq!(run.command(), ["codex", "--help"], "without -- as well");
    }

    #[test]
    fn every_command_explains_itself_in_sentences() {
        let mut root = Arguments::command();
        root.build();
        let mut commands: Vec<&clap::Command> = root.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            if command.get_name() == "help" {
                continue;
            }
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(about.len() > 15, "{}: {about:?}", command.get_name());
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            commands.extend(command.get_subcommands());
        }
    }
}
