//! `guard-agent`: one binary, the daemon and its commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    guard_agent::cli::main()
}
