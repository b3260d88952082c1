//! Installs the clients at pinned versions, below the repository where git does not see them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Client;
use super::table::Kind;
use crate::clients::{npm_install, python_install, repository};
use crate::process::Spawn;

/// Python environments: packages that can live together.
const PYTHON: [(&str, &[&str]); 2] = [
    (
        "sdk",
        &[
            "openai==3.54.0",
            "anthropic==2.12.0",
            "google-genai==2.34.0",
            "mistralai==3.7.0",
            "cohere==7.3.1",
            "langchain-openai==1.7.3",
            "pydantic-ai-slim[openai,anthropic,google]==2.68.0",
            "openai-agents==0.24.0",
            "claude-agent-sdk==0.2.187",
            "genai-prices==0.2.3",
        ],
    ),
    // it wants an older openai; tool calls need mcp
    ("litellm", &["litellm==1.106.2", "mcp"]),
];

/// The Node that the clients want is newer than Debian's; this package has the program.
const NODE: &str = "node@24.21.0";

const NPM: [&str; 14] = [
    "openai@7.57.0",
    "@anthropic-ai/sdk@1.12.0",
    "ai@7.0.173",
    "@ai-sdk/openai@4.0.118",
    "@ai-sdk/anthropic@4.0.105",
    "@ai-sdk/google@4.0.121",
    "@google/genai@2.22.0",
    "@mistralai/mistralai@2.7.0",
    "cohere-ai@8.1.0",
    "@anthropic-ai/claude-code@2.1.330",
    "@openai/codex@0.169.0",
    "@google/gemini-cli@0.61.0",
    "opencode-ai@1.18.33",
    "openclaw@2026.9.6",
];

const PATIENCE: Duration = Duration::from_secs(1200);

/// Where the clients are.
#[derive(Debug)]
pub struct Installed {
    root: PathBuf,
}

impl Installed {
    /// Installs what is missing.
    ///
    /// # Errors
    /// `python3` or `npm` is missing, or a package cannot be installed.
    pub fn ensure() -> Result<Self> {
        let this = Self {
            root: repository().join(".lab/matrix"),
        };
        fs::create_dir_all(&this.root)?;
        let lock = File::create(this.root.join("lock"))?;
        lock.lock().context("waiting for another installation")?;
        for (name, packages) in PYTHON {
            this.once(name, &packages.join("\n"), || {
                python_install(&this.root.join(name), packages, PATIENCE)
            })?;
        }
        this.once("node", NODE, || this.npm("node", &[NODE]))?;
        this.once("npm", &NPM.join("\n"), || this.npm("npm", &NPM))?;
        Ok(this)
    }

    /// Does it unless it was done for the same list.
    fn once(&self, name: &str, wanted: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
        let marker = self.root.join(format!("{name}.packages"));
        if fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
            return Ok(());
        }
        install().with_context(|| format!("installing {name}"))?;
        Ok(fs::write(marker, wanted)?)
    }

    fn npm(&self, name: &str, packages: &[&str]) -> Result<()> {
        npm_install(&self.root.join(name), packages)?
            // behind what is inherited: the packages' own scripts ask for the newer Node
            .env("PATH", self.path())
            .patience(PATIENCE)
            .run()?
            .ok()?;
        Ok(())
    }

    /// The Python of an environment.
    pub fn python(&self, environment: &str) -> PathBuf {
        self.root.join(environment).join("bin/python")
    }

    /// The Node that runs the npm packages.
    pub fn node(&self) -> PathBuf {
        self.root.join("node/node_modules/node/bin/node")
    }

    /// Where the npm packages are.
    pub fn packages(&self) -> PathBuf {
        self.root.join("npm")
    }

    /// A program of an npm package.
    pub fn program(&self, name: &str) -> PathBuf {
        self.packages().join("node_modules/.bin").join(name)
    }

    /// A `PATH` on which that Node comes first.
    pub fn path(&self) -> String {
        let node = self.node();
        let first = node.parent().unwrap_or(Path::new("/")).display().to_string();
        format!(
            "{first}:{}",
            std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into())
        )
    }

    /// The version of a client's package, as it is installed.
    ///
    /// # Errors
    /// It is not installed.
    pub fn version(&self, client: &Client) -> Result<String> {
        let Kind::Python { environment, .. } = client.kind else {
            let file = self
                .packages()
                .join("node_modules")
                .join(client.package)
                .join("package.json");
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let json: serde_json::Value = serde_json::from_str(&text)?;
            return Ok(json["version"].as_str().context("no version")?.to_owned());
        };
        let ask = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))";
        let done = Spawn::new(self.python(environment))
            .args(["-c", ask, client.package])
            .run()?
            .ok()?;
        Ok(done.stdout.trim().to_owned())
    }
}
