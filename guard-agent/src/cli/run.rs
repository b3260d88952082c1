//! `guard-agent run`

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::output::complain;
use crate::admin::RunStarted;

/// Guard could not start the run; the command was not started. As `env`, `timeout` and `docker run` do.
const GUARD_FAILED: u8 = 125;
/// The command was found and could not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;

/// Starts a command as a run of an agent.
///
/// The daemon makes a cgroup for the run and moves this process into it; then the command takes this process's place. So
/// its signals, its exit code, its terminal and its working directory are its own, and everything it starts is governed
/// too. The environment is passed on, with three changes: variables that make clients trust Guard's CA, placeholders where
/// clients look for keys, and no variable that could hold a real key.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: those of the command; 125 Guard could not start the run; 126 the command cannot be \
                        executed; 127 it was not found.\n\n\
                        Examples:\n  sudo guard-agent run --agent coder -- claude -p 'fix the build'\n  \
                        sudo guard-agent run --agent coder -- sudo -u alice -E codex exec 'write a test'"
)]
pub(super) struct Run {
    /// The agent, as it is named in guard.toml.
    #[arg(long, value_name = "NAME")]
    agent: String,
    /// The command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<std::ffi::OsString>,
}

impl Run {
    #[cfg(test)]
    pub(super) fn command(&self) -> &[std::ffi::OsString] {
        &self.command
    }

    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let started = super::client(config).and_then(|client| Ok(client.start_run(&self.agent)?));
        let started = match started {
            Ok(started) => started,
            Err(why) => {
                complain(&format!(
                    "guard-agent: cannot start a run of {:?}: {why:#}",
                    self.agent
                ));
                return Ok(GUARD_FAILED);
            }
        };
        let Some((program, arguments)) = self.command.split_first() else {
            return Ok(GUARD_FAILED);
        };
        let mut command = Command::new(program);
        command.args(arguments);
        apply(&mut command, &started);
        // Returns only if it did not work.
        let why = command.exec();
        complain(&format!(
            "guard-agent: cannot execute {}: {why}",
            program.display()
        ));
        Ok(match why.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        })
    }
}

/// Removals first: what the daemon sets stays set.
fn apply(command: &mut Command, started: &RunStarted) {
    for name in &started.remove {
        command.env_remove(name);
    }
    command.envs(&started.env);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_real_key_goes_and_the_placeholder_stays() {
        let started = RunStarted {
            run: "r".into(),
            cgroup: "/c".into(),
            env: BTreeMap::from([("OPENAI_API_KEY".to_owned(), "sk-guard-1".to_owned())]),
            remove: vec!["ANTHROPIC_API_KEY".into(), "OPENAI_API_KEY".into()],
        };
        let mut command = Command::new("/usr/bin/env");
        command
            .env("ANTHROPIC_API_KEY", "sk-ant-real")
            .env("OPENAI_API_KEY", "sk-real")
            .env("KEPT", "1");
        apply(&mut command, &started);
        let shown = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(!shown.contains("real"), "{shown}");
        assert!(
            shown.contains("OPENAI_API_KEY=sk-guard-1") && shown.contains("KEPT=1"),
            "{shown}"
        );
    }
}
