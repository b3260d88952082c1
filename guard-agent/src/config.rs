//! `/etc/guard/guard.toml` after checking: every value here is valid by type.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use globset::GlobMatcher;

use crate::ledger::Window;
use crate::llm::provider::Provider;
use crate::money::Pico;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[host]`
    pub host: Host,
    /// `[[provider]]` applied to the built-in table.
    pub providers: Vec<Arc<Provider>>,
    /// `[[agent]]`, with `[defaults]` filled in.
    pub agents: Vec<Arc<Agent>>,
}

/// `[host]`
#[derive(Debug, Clone)]
pub struct Host {
    /// Programs attach here.
    pub cgroup_root: PathBuf,
    /// CA, ledger, audit.
    pub state_dir: PathBuf,
    /// Admin socket.
    pub runtime_dir: PathBuf,
    /// Pinned links and maps.
    pub bpffs: PathBuf,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub metrics: SocketAddr,
    /// Enforce, or only watch.
    pub mode: Mode,
    /// Calendar of the budget windows.
    pub timezone: jiff::tz::TimeZone,
}

/// Whether rules change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuse what the rules refuse.
    Enforce,
    /// Never change a byte or a verdict; record what would have been refused.
    Observe,
}

/// `[[agent]]`
#[derive(Debug, Clone)]
pub struct Agent {
    /// Unique name.
    pub name: Arc<str>,
    /// Who pays.
    pub owner: Arc<str>,
    /// Cgroup patterns, relative to `cgroup_root`.
    pub cgroups: Vec<String>,
    /// Providers that it may use, by name; empty means none.
    pub providers: Vec<String>,
    /// Models that it may use.
    pub models: Vec<Pattern>,
    /// Further endpoints (paths) that it may use.
    pub endpoints: Vec<Pattern>,
    /// Whether the agent's own login is passed through.
    pub login: Login,
    /// Tools that it may declare; `None` means every tool.
    pub tools: Option<ToolRules>,
    /// Per-call and concurrency caps.
    pub caps: Caps,
    /// Budgets.
    pub budgets: Vec<Budget>,
}

/// What to do with a credential of the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Refuse it.
    Refuse,
    /// Forward it, metered.
    Pass,
}

/// Declared-tool rules.
#[derive(Debug, Clone)]
pub struct ToolRules {
    /// Allowed names.
    pub allow: Vec<Pattern>,
    /// What happens to a tool that is not allowed.
    pub on_violation: OnViolation,
}

/// What happens to a tool that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnViolation {
    /// Remove it from the request.
    Strip,
    /// Refuse the call.
    Refuse,
}

/// Caps on one call and on concurrency.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caps {
    /// Output tokens of one call.
    pub output_tokens: Option<u64>,
    /// Calls in flight.
    pub in_flight: Option<u32>,
}

/// One budget of an agent.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Its window.
    pub window: Window,
    /// Hard limit.
    pub limit: Pico,
    /// Soft limit in parts per million of the hard one.
    pub soft_ppm: Option<u32>,
}

/// A name pattern (`*`, `?`), kept with its text for messages.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As written.
    pub text: String,
    /// Compiled.
    pub matcher: GlobMatcher,
}

impl Pattern {
    /// Whether the pattern covers this name.
    pub fn covers(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}
