//! What a lab is to be like, and the `guard.toml` that follows from it.

use std::fmt::Write;

use anyhow::{Context, Result};

use super::{Files, Lab};
use crate::cgroup::Cgroup;
use crate::docker;

/// A lab to be.
#[derive(Debug, Default)]
pub struct Builder {
    coder: Option<String>,
    other: Option<String>,
    host: String,
    further: String,
    pub(super) ipv6: bool,
    pub(super) quiet: bool,
    pub(super) public: bool,
    pub(super) relayed: Vec<(&'static str, &'static str)>,
    containers: bool,
}

/// An agent that may do what agents usually do.
const USUAL: &str = r#"
providers = ["openai", "anthropic"]
models = ["gpt-5*", "claude-*"]
budget = [{ window = "day", usd = 100.0 }]
"#;

impl Builder {
    /// Lines of `[[agent]]` for agent `coder`, beside its name, owner and match.
    #[must_use]
    pub fn coder(mut self, lines: &str) -> Self {
        self.coder = Some(lines.to_owned());
        self
    }

    /// Lines of `[[agent]]` for agent `other`, beside its name, owner and match.
    #[must_use]
    pub fn other(mut self, lines: &str) -> Self {
        self.other = Some(lines.to_owned());
        self
    }

    /// Further lines of `[host]`.
    #[must_use]
    pub fn host(mut self, lines: &str) -> Self {
        self.host.push_str(lines);
        self
    }

    /// Further tables at the end of the file.
    #[must_use]
    pub fn further(mut self, tables: &str) -> Self {
        self.further.push_str(tables);
        self
    }

    /// Names lead to IPv6 addresses only.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// Agents are matched by container label too; `crate::docker::Engine` is the engine.
    #[must_use]
    pub fn containers(mut self) -> Self {
        self.containers = true;
        self
    }

    /// Does not show the daemon's log at the end; for programs that are not tests.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Names lead to addresses that look like any public one: some clients refuse to call those that only
    /// documentation uses.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.public = true;
        self
    }

    /// A further site: this provider at this host. It speaks what [`Lab::relay`] leads it to.
    #[must_use]
    pub fn relayed(mut self, provider: &'static str, host: &'static str) -> Self {
        self.relayed.push((provider, host));
        self
    }

    /// Makes the lab and starts the daemon; back when it is ready.
    ///
    /// # Errors
    /// Not root, a tool or the daemon's program is missing, or the daemon does not become ready; then the error has
    /// what it said.
    pub fn start(self) -> Result<Lab> {
        let lab = self.start_without_daemon()?;
        lab.start_daemon().context("starting the daemon")?;
        Ok(lab)
    }

    /// Makes the lab; no daemon runs in it.
    ///
    /// # Errors
    /// Not root, or a tool is missing.
    pub fn start_without_daemon(self) -> Result<Lab> {
        Lab::build(&self).context("making the lab")
    }

    /// Whether the sites of this provider are relayed, in the place of the usual ones.
    pub(super) fn relays(&self, provider: &str) -> bool {
        self.relayed.iter().any(|(name, _)| *name == provider)
    }

    pub(super) fn configuration(&self, files: &Files, root: &Cgroup) -> String {
        let mut toml = format!(
            r#"[host]
cgroup_root = "{root}"
state_dir = "{state}"
runtime_dir = "{run}"
bpffs = "/sys/fs/bpf/guard"
{host}
"#,
            root = root.path().display(),
            state = files.at("state").display(),
            run = files.at("run").display(),
            host = self.host,
        );
        if self.containers {
            let engine = files.at(docker::SOCKET);
            let lines = format!(
                "docker = \"unix://{}\"\ncontainer_cgroups = [\"/{}/*\"]\n",
                engine.display(),
                docker::CONTAINERS
            );
            toml.push_str(&lines);
        }
        let usual = [
            "openai",
            "anthropic",
            "gemini",
            "bedrock",
            "cohere",
            "mistral",
            "vertex",
            "ollama",
        ];
        for provider in usual
            .into_iter()
            .filter(|provider| !self.relays(provider))
            .chain(self.relayed.iter().map(|(provider, _)| *provider))
        {
            let part = format!(
                r#"
[[provider]]
name = "{provider}"
keys = [{{ name = "lab-{provider}", from = "file:{key}" }}]
trust = ["{trust}"]
"#,
                key = files.at("keys").join(provider).display(),
                trust = files.at("public-ca.pem").display(),
            );
            toml.push_str(&part);
        }
        for (name, lines) in [("coder", &self.coder), ("second", &self.other)] {
            let lines = lines.as_deref().unwrap_or(USUAL);
            let label = match self.containers {
                true => format!(", {{ container_label = \"guard.agent={name}\" }}"),
                false => String::new(),
            };
            let head = format!("\n[[agent]]\nname = \"{name}\"\nowner = \"{name}-team\"");
            // writing to a String cannot fail
            if writeln!(
                toml,
                "{head}\nmatch = [{{ cgroup = \"/agents/{name}/**\" }}{label}]\n{lines}"
            )
            .is_err()
            {
                break;
            }
        }
        toml.push_str(&self.further);
        toml
    }
}
