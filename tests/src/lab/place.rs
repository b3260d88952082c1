//! A place in the lab where clients run: inside an agent, or outside every one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::Value;

use super::Lab;
use crate::cgroup::Cgroup;
use crate::clients;
use crate::process::{Done, Spawn};

/// A place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    lab: &'a Lab,
    /// Name of the agent; none outside.
    agent: Option<&'a str>,
    cgroup: &'a Cgroup,
}

/// What a client outside has for a key. Inside an agent it has the placeholder that Guard issued to that agent.
pub const PLACEHOLDER: &str = "sk-nothing-that-opens-anything";

/// Variables that name a file of roots which replaces the client's own.
const ROOTS: [&str; 3] = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"];

/// Environments of agents' clients, as Guard issued them.
pub(super) type Environments = Mutex<BTreeMap<String, Environment>>;
type Environment = Vec<(String, String)>;

impl<'a> Place<'a> {
    pub(super) fn governed(lab: &'a Lab, agent: &'a str, cgroup: &'a Cgroup) -> Self {
        Self {
            lab,
            agent: Some(agent),
            cgroup,
        }
    }

    pub(super) fn outside(lab: &'a Lab, cgroup: &'a Cgroup) -> Self {
        Self {
            lab,
            agent: None,
            cgroup,
        }
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> &'a Cgroup {
        self.cgroup
    }

    /// A process to be in this place, with the lab's hosts file and nothing of a client's environment.
    pub fn spawn(&self, program: impl AsRef<OsStr>) -> Spawn {
        Spawn::new(program)
            .cgroup(self.cgroup)
            .netns(&self.lab.host)
            .mounts(&self.lab.mounts)
    }

    /// The same with what a client needs: a placeholder for a key, and the roots that it trusts.
    ///
    /// # Errors
    /// `guard-agent run` fails.
    pub fn client(&self, program: impl AsRef<OsStr>) -> Result<Spawn> {
        let start = self.spawn(program);
        Ok(self
            .environment()?
            .into_iter()
            .fold(start, |spawn, (name, value)| spawn.env(name, value)))
    }

    /// The variables that a client here is given.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let Some(agent) = self.agent else {
            let public = self.lab.files.at("public-ca.pem").display().to_string();
            let keys = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"].map(|name| (name, PLACEHOLDER.to_owned()));
            let roots = ROOTS.map(|name| (name, public.clone()));
            return Ok(keys
                .into_iter()
                .chain(roots)
                .map(|(name, value)| (name.to_owned(), value))
                .collect());
        };
        let mut known = self
            .lab
            .environments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = known.get(agent) {
            return Ok(environment.clone());
        }
        let environment = self.lab.issue(agent)?;
        known.insert(agent.to_owned(), environment.clone());
        Ok(environment)
    }

    /// A variable that a client here is given.
    ///
    /// # Errors
    /// It is given no such variable.
    pub fn variable(&self, wanted: &str) -> Result<String> {
        let mut all = self.environment()?.into_iter();
        all.find_map(|(name, value)| (name == wanted).then_some(value))
            .with_context(|| format!("a client is given no {wanted}"))
    }

    /// `curl` with these arguments.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn curl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Spawn> {
        let common = ["--silent", "--show-error", "--max-time", "30"];
        Ok(self.client("curl")?.args(common).args(arguments))
    }

    /// A script of `tests/clients/`, with arguments separated by blanks.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn python(&self, script: &str, arguments: &str) -> Result<Spawn> {
        let python = self.client(&self.lab.python)?.arg(clients::script(script));
        Ok(python.args(arguments.split_whitespace()))
    }

    /// The vendor's own SDK, called as `tests/clients/llm.py` says, with arguments separated by blanks.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn sdk(&self, arguments: &str) -> Result<Spawn> {
        self.python("llm.py", arguments)
    }

    /// One call by the vendor's own SDK: the last line that it printed.
    ///
    /// # Errors
    /// The script itself failed; an exception of the SDK is a result.
    pub fn call(&self, arguments: &str) -> Result<Value> {
        let done = self.sdk(arguments)?.run()?.ok()?;
        done.json_lines()?.pop().context("the client said nothing")
    }

    /// Runs `sh -c` with a client's environment.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn shell(&self, script: &str) -> Result<Done> {
        self.client("sh")?.arg("-c").arg(script).run()
    }
}

impl Lab {
    /// The environment that `guard-agent run` gives a command of this agent. Its file of roots gets the lab's own root
    /// added, which stands for the public ones.
    fn issue(&self, agent: &str) -> Result<Environment> {
        let said = self.guard(["run", "--agent", agent, "--", "env"])?.stdout;
        let variable = |line: &str| {
            line.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let mut environment: Environment = said.lines().filter_map(variable).collect();
        let named = environment.iter().find(|(name, _)| name == "SSL_CERT_FILE");
        let file = named
            .with_context(|| format!("a run is given no SSL_CERT_FILE: {said}"))?
            .1
            .clone();
        let mut roots = fs::read_to_string(&file).with_context(|| file.clone())?;
        roots += &fs::read_to_string(self.files.at("public-ca.pem"))?;
        let both = self.files.write(&format!("roots-{agent}.pem"), &roots)?;
        for (name, value) in &mut environment {
            if ROOTS.contains(&name.as_str()) {
                *value = both.display().to_string();
            }
        }
        Ok(environment)
    }
}
