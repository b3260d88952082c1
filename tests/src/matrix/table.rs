//! The clients, one row each.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::Installed;
use crate::clients;
use crate::lab::Lab;
use crate::process::Spawn;
use crate::provider::Speaks;

/// How a client is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `tests/clients/matrix/sdk.py NAME`, in this virtual environment.
    Python {
        /// Which environment.
        environment: &'static str,
        /// The script's word for it.
        name: &'static str,
    },
    /// `tests/clients/matrix/sdk.mjs NAME`.
    Node(&'static str),
    /// A program of an npm package, with these arguments.
    Cli {
        /// Its name.
        program: &'static str,
        /// Its arguments.
        arguments: &'static [&'static str],
        /// Variables that it needs beside those of every governed process; a value of `$NAME` is another variable's.
        variables: &'static [(&'static str, &'static str)],
        /// Files that it needs in its home: name and text.
        files: &'static [(&'static str, &'static str)],
    },
}

/// One client.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// As people know it.
    pub name: &'static str,
    /// The package whose version is shown.
    pub package: &'static str,
    /// How it is started.
    pub kind: Kind,
    /// Whom it calls.
    pub speaks: Speaks,
    /// The tool that the model calls.
    pub tool: &'static str,
    /// With these arguments.
    pub arguments: &'static str,
    /// Most attempts at a call that is refused. More than one needs a reason in `note`.
    pub attempts: usize,
    /// It shows no message of a provider, whatever the answer.
    pub hides_message: bool,
    /// How long it takes to end after its last call, if that is long: its own work, not a wait for an answer.
    pub slow_exit: Duration,
    /// What a reader should know.
    pub note: &'static str,
}

const WEATHER: &str = "get_weather";
const PARIS: &str = r#"{"city":"Paris"}"#;
const QUESTION: &str = "What is the weather in Paris?";

const fn sdk(name: &'static str, package: &'static str, kind: Kind, speaks: Speaks) -> Client {
    Client {
        name,
        package,
        kind,
        speaks,
        tool: WEATHER,
        arguments: PARIS,
        attempts: 1,
        hides_message: false,
        slow_exit: Duration::ZERO,
        note: "",
    }
}

const fn python(name: &'static str) -> Kind {
    Kind::Python {
        environment: "sdk",
        name,
    }
}

const fn litellm(name: &'static str) -> Kind {
    Kind::Python {
        environment: "litellm",
        name,
    }
}

const fn cli(
    program: &'static str,
    arguments: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
) -> Kind {
    Kind::Cli {
        program,
        arguments,
        variables,
        files: &[],
    }
}

/// Every supported client.
pub const CLIENTS: &[Client] = &[
    sdk(
        "openai (Python), chat",
        "openai",
        python("openai-chat"),
        Speaks::OpenAi,
    ),
    sdk(
        "anthropic (Python)",
        "anthropic",
        python("anthropic"),
        Speaks::Anthropic,
    ),
    sdk(
        "litellm, Anthropic",
        "litellm",
        litellm("litellm-anthropic"),
        Speaks::Anthropic,
    ),
    sdk(
        "litellm, OpenAI",
        "litellm",
        litellm("litellm-openai"),
        Speaks::OpenAi,
    ),
    sdk(
        "langchain-openai",
        "langchain-openai",
        python("langchain-openai"),
        Speaks::OpenAi,
    ),
    sdk(
        "pydantic-ai, Anthropic",
        "pydantic-ai-slim",
        python("pydantic-ai-anthropic"),
        Speaks::Anthropic,
    ),
    sdk(
        "openai (Node), chat",
        "openai",
        Kind::Node("openai-chat"),
        Speaks::OpenAi,
    ),
    sdk(
        "@anthropic-ai/sdk",
        "@anthropic-ai/sdk",
        Kind::Node("anthropic"),
        Speaks::Anthropic,
    ),
    sdk(
        "ai, Anthropic",
        "ai",
        Kind::Node("ai-anthropic"),
        Speaks::Anthropic,
    ),
    sdk(
        "openai (Python), responses",
        "openai",
        python("openai-responses"),
        Speaks::OpenAi,
    ),
    sdk(
        "openai (Node), responses",
        "openai",
        Kind::Node("openai-responses"),
        Speaks::OpenAi,
    ),
    sdk(
        "google-genai (Python)",
        "google-genai",
        python("google-genai"),
        Speaks::Gemini,
    ),
    sdk(
        "@google/genai",
        "@google/genai",
        Kind::Node("google-genai"),
        Speaks::Gemini,
    ),
    sdk(
        "mistralai (Python)",
        "mistralai",
        python("mistralai"),
        Speaks::Mistral,
    ),
    sdk(
        "@mistralai/mistralai",
        "@mistralai/mistralai",
        Kind::Node("mistralai"),
        Speaks::Mistral,
    ),
    sdk("cohere (Python)", "cohere", python("cohere"), Speaks::Cohere),
    sdk("cohere-ai", "cohere-ai", Kind::Node("cohere"), Speaks::Cohere),
    sdk("ai, OpenAI", "ai", Kind::Node("ai-openai"), Speaks::OpenAi),
    sdk("ai, Google", "ai", Kind::Node("ai-google"), Speaks::Gemini),
    sdk(
        "langchain-openai, responses",
        "langchain-openai",
        python("langchain-openai-responses"),
        Speaks::OpenAi,
    ),
    sdk(
        "pydantic-ai, OpenAI responses",
        "pydantic-ai-slim",
        python("pydantic-ai-openai-responses"),
        Speaks::OpenAi,
    ),
    sdk(
        "pydantic-ai, Google",
        "pydantic-ai-slim",
        python("pydantic-ai-google"),
        Speaks::Gemini,
    ),
    sdk(
        "openai-agents",
        "openai-agents",
        python("openai-agents"),
        Speaks::OpenAi,
    ),
    sdk(
        "litellm, Gemini",
        "litellm",
        litellm("litellm-gemini"),
        Speaks::Gemini,
    ),
    sdk(
        "litellm, OpenAI responses",
        "litellm",
        litellm("litellm-responses"),
        Speaks::OpenAi,
    ),
    Client {
        tool: "Bash",
        arguments: r#"{"command":"echo sunny","description":"weather"}"#,
        ..sdk(
            "claude-agent-sdk",
            "claude-agent-sdk",
            python("claude-agent-sdk"),
            Speaks::Anthropic,
        )
    },
    Client {
        tool: "Bash",
        arguments: r#"{"command":"echo sunny","description":"weather"}"#,
        ..sdk(
            "Claude Code",
            "@anthropic-ai/claude-code",
            cli(
                "claude",
                &[
                    "-p",
                    QUESTION,
                    "--model",
                    "claude-haiku-4-5",
                    "--allowedTools",
                    "Bash",
                ],
                &[],
            ),
            Speaks::Anthropic,
        )
    },
    Client {
        tool: "exec",
        arguments: r#"const said = await tools.exec_command({ cmd: "echo sunny" }); text(said.output);"#,
        ..sdk(
            "Codex",
            "@openai/codex",
            cli(
                "codex",
                &["exec", "--skip-git-repo-check", QUESTION],
                &[("CODEX_API_KEY", "$OPENAI_API_KEY")],
            ),
            Speaks::OpenAi,
        )
    },
    Client {
        tool: "run_shell_command",
        arguments: r#"{"command":"echo sunny"}"#,
        ..sdk(
            "Gemini CLI",
            "@google/gemini-cli",
            cli(
                "gemini",
                &[
                    "--skip-trust",
                    "--yolo",
                    "--model",
                    "gemini-2.5-flash",
                    "--prompt",
                    QUESTION,
                ],
                &[],
            ),
            Speaks::Gemini,
        )
    },
    Client {
        tool: "exec",
        arguments: r#"{"command":"echo sunny"}"#,
        slow_exit: Duration::from_secs(30),
        hides_message: true,
        note: "for a refusal it shows a text of its own, chosen by the status (billing, request schema), whatever the \
               provider says; Guard's words stand in its log, cut after some 200 characters, so without the request id. \
               Each turn takes it half a minute to start and to end.",
        ..sdk(
            "OpenClaw, Anthropic",
            "openclaw",
            cli(
                "openclaw",
                &[
                    "agent",
                    "--local",
                    "--session-id",
                    "lab",
                    "--model",
                    "anthropic/claude-haiku-4-5",
                    "--message",
                    QUESTION,
                ],
                &[],
            ),
            Speaks::Anthropic,
        )
    },
    Client {
        tool: "bash",
        arguments: r#"{"command":"echo sunny","description":"weather"}"#,
        ..sdk(
            "opencode, Anthropic",
            "opencode-ai",
            cli(
                "opencode",
                &["run", "--model", "anthropic/claude-haiku-4-5", QUESTION],
                &[],
            ),
            Speaks::Anthropic,
        )
    },
];

/// The providers that the clients need, as the configuration names them.
pub(super) fn providers() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = CLIENTS.iter().map(|client| client.speaks.provider()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Client {
    /// Whether it decides by itself what it sends, and always streams.
    pub fn is_cli(&self) -> bool {
        matches!(self.kind, Kind::Cli { .. }) || self.name == "claude-agent-sdk"
    }

    /// Whether an audit record is of the call that the user asked for, and not of one of the client's own: titles,
    /// classifiers and the like declare no tools.
    pub fn is_main(&self, record: &Value) -> bool {
        let declared = record["tools_declared"].as_array();
        declared.is_some_and(|tools| tools.iter().any(|tool| tool == self.tool))
    }

    /// The client, to be run as an agent's process in a home of its own.
    ///
    /// # Errors
    /// Its environment cannot be made.
    pub fn start(&self, lab: &Lab, installed: &Installed, home: &Path, stream: bool) -> Result<Spawn> {
        let place = lab.coder();
        let mut words: Vec<String> = match self.kind {
            Kind::Python { environment, name } => vec![
                installed.python(environment).display().to_string(),
                clients::script("matrix/sdk.py").display().to_string(),
                name.to_owned(),
            ],
            Kind::Node(name) => vec![
                installed.node().display().to_string(),
                clients::script("matrix/sdk.mjs").display().to_string(),
                name.to_owned(),
            ],
            Kind::Cli {
                program, arguments, ..
            } => std::iter::once(installed.program(program).display().to_string())
                .chain(arguments.iter().map(|argument| (*argument).to_owned()))
                .collect(),
        };
        if stream && !self.is_cli() {
            words.push("--stream".to_owned());
        }
        // a client looks at the directory that it is started in
        let mut spawn = place
            .client("sh")?
            .args(["-c", "cd \"$HOME\" && exec \"$@\" </dev/null", "sh"])
            .args(words)
            .env("HOME", home)
            .env("NODE_PACKAGES", installed.packages())
            .env("PATH", installed.path());
        if let Kind::Cli { variables, files, .. } = self.kind {
            for (name, text) in files {
                let path = home.join(name);
                std::fs::create_dir_all(path.parent().unwrap_or(home))?;
                std::fs::write(path, text)?;
            }
            for (name, value) in variables {
                let value = match value.strip_prefix('$') {
                    Some(other) => place.variable(other)?,
                    None => (*value).to_owned(),
                };
                spawn = spawn.env(name, value);
            }
        }
        Ok(spawn)
    }
}
