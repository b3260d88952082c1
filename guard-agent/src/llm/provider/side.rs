//! Paths that clients call on a provider's host beside inference: settings, logins, telemetry.
//!
//! None of them costs money, so they are never counted as calls. What an agent needs in order to start passes; what
//! only reports on its user is refused at once, or passes where the owner says so.

use http::Method;

/// Why a client calls a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideKind {
    /// The client needs it, or behaves better with it.
    Needed,
    /// Reports on the client's use.
    Telemetry,
}

/// A row of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    /// `GET`, `POST`, …
    pub method: &'static str,
    /// The path; `/**` at its end covers everything below.
    pub path: &'static str,
    /// Why it is called.
    pub kind: SideKind,
}

impl Side {
    /// Whether a request is this one. `path` is without the query and in its plain form.
    pub fn covers(&self, method: &Method, path: &str) -> bool {
        let path_matches = match self.path.strip_suffix("/**") {
            None => self.path == path,
            Some(parent) => path
                .strip_prefix(parent)
                .is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')),
        };
        path_matches && method.as_str() == self.method
    }
}

const fn needed(method: &'static str, path: &'static str) -> Side {
    Side {
        method,
        path,
        kind: SideKind::Needed,
    }
}

const fn telemetry(method: &'static str, path: &'static str) -> Side {
    Side {
        method,
        path,
        kind: SideKind::Telemetry,
    }
}

/// What Claude Code and its SDK call on Anthropic's host.
pub(super) const ANTHROPIC: &[Side] = &[
    needed("HEAD", "/api/hello"),
    needed("GET", "/api/hello"),
    needed("GET", "/api/claude_code/settings"),
    needed("GET", "/api/claude_code/policy_limits"),
    needed("GET", "/api/claude_code/organizations/metrics_enabled"),
    needed("GET", "/api/claude_code_penguin_mode"),
    needed("GET", "/api/claude_cli/bootstrap"),
    needed("GET", "/api/claude_cli_profile"),
    needed("GET", "/api/directory/server-urls"),
    needed("GET", "/api/oauth/profile"),
    needed("GET", "/api/oauth/usage"),
    needed("GET", "/api/oauth/claude_cli/roles"),
    needed("POST", "/api/eval/**"),
    telemetry("POST", "/api/event_logging/**"),
    telemetry("POST", "/api/claude_code/metrics"),
    telemetry("POST", "/api/claude_cli_feedback"),
];

/// What Codex calls on the subscription's host beside `/responses`.
pub(super) const CHATGPT: &[Side] = &[
    needed("GET", "/backend-api/codex/models"),
    needed("GET", "/backend-api/wham/**"),
    needed("GET", "/backend-api/accounts/**"),
    needed("GET", "/backend-api/plugins/**"),
    needed("GET", "/backend-api/ps/plugins/**"),
    telemetry("POST", "/backend-api/codex/analytics-events/events"),
    telemetry("POST", "/otlp/v1/metrics"),
    telemetry("POST", "/otlp/v1/logs"),
    telemetry("POST", "/otlp/v1/traces"),
];

/// What OpenAI's agents SDK calls: whole prompts and answers go there.
pub(super) const OPENAI: &[Side] = &[telemetry("POST", "/v1/traces/ingest")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_covers_its_method_and_path_and_no_other() {
        let below = needed("POST", "/api/eval/**");
        assert!(below.covers(&Method::POST, "/api/eval/sdk-1"));
        assert!(below.covers(&Method::POST, "/api/eval/a/b"));
        for (method, path) in [
            (Method::GET, "/api/eval/x"),
            (Method::POST, "/api/eval"),
            (Method::POST, "/api/eval/"),
            (Method::POST, "/api/evaluate/x"),
        ] {
            assert!(!below.covers(&method, path), "{path}");
        }
        assert!(telemetry("POST", "/a").covers(&Method::POST, "/a"));
        assert!(!telemetry("POST", "/a").covers(&Method::POST, "/a/b"));
    }
}
