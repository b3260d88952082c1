//! A place in the lab where clients run: inside an agent, or outside every one.

use std::fs;
use std::path::PathBuf;

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

/// What a client has for a key; the real ones are the daemon's alone.
pub const PLACEHOLDER: &str = "guard-placeholder";

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
    pub fn spawn(&self, program: impl AsRef<std::ffi::OsStr>) -> Spawn {
        Spawn::new(program)
            .cgroup(self.cgroup)
            .netns(&self.lab.host)
            .mounts(&self.lab.mounts)
    }

    /// The same with what a client needs: a placeholder for a key, and the roots that it trusts.
    ///
    /// # Errors
    /// The roots cannot be read.
    pub fn client(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Spawn> {
        let roots = self.roots()?;
        Ok(self
            .spawn(program)
            .env("OPENAI_API_KEY", PLACEHOLDER)
            .env("ANTHROPIC_API_KEY", PLACEHOLDER)
            .env("SSL_CERT_FILE", &roots)
            .env("CURL_CA_BUNDLE", &roots))
    }

    /// `curl` with these arguments.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn curl<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Spawn> {
        Ok(self
            .client("curl")?
            .args(["--silent", "--show-error", "--max-time", "30"])
            .args(arguments))
    }

    /// The vendor's own SDK, called as `tests/clients/llm.py` says, with arguments separated by blanks.
    ///
    /// # Errors
    /// As [`Place::client`].
    pub fn sdk(&self, arguments: &str) -> Result<Spawn> {
        Ok(self
            .client(&self.lab.python)?
            .arg(clients::script("llm.py"))
            .args(arguments.split_whitespace()))
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

    /// The roots that a client here trusts: the lab's own, which stands for the public ones, and inside an agent
    /// those that Guard tells it to trust.
    fn roots(&self) -> Result<PathBuf> {
        let public = self.lab.files.at("public-ca.pem");
        if self.agent.is_none() {
            return Ok(public);
        }
        let both = self.lab.files.at("agent-ca.pem");
        if !both.exists() {
            let mut text = fs::read_to_string(&public)?;
            text += &self.lab.guard_roots()?;
            // renamed into place: clients start in parallel
            let new = self
                .lab
                .files
                .at(&format!("agent-ca.{:?}", std::thread::current().id()));
            fs::write(&new, text)?;
            fs::rename(&new, &both)?;
        }
        Ok(both)
    }
}

impl Lab {
    /// The roots that `guard-agent ca env` names.
    fn guard_roots(&self) -> Result<String> {
        let said = self.guard(["ca", "env"])?.stdout;
        let file = said
            .lines()
            .filter_map(|line| line.trim_start_matches("export ").split_once('='))
            .find_map(|(name, value)| (name == "SSL_CERT_FILE").then(|| value.trim_matches(['"', '\''])))
            .with_context(|| format!("ca env names no SSL_CERT_FILE: {said}"))?;
        fs::read_to_string(file).with_context(|| file.to_owned())
    }
}
