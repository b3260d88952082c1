//! The admin interface: HTTP and JSON over a Unix socket for people, and a loopback port for Prometheus.
//!
//! In: requests of local processes, known by their credentials. Out: the daemon's state, or a change to it. On failure:
//! a JSON error with a code and a sentence that says what to do. What is served comes from [`AdminState`]; this module
//! decides who may ask.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::{Amount, Unit};
use crate::money::Pico;
use crate::policy::outcomes::Outcome;

pub use crate::policy::grants::Grant;

pub mod client;
mod health;
mod http;
mod server;
#[cfg(test)]
mod tests;

pub use health::serve as serve_health;
pub use server::{Peer, bind, serve};

/// Name of the socket in `runtime_dir`.
pub const SOCKET: &str = "admin.sock";

/// What the daemon shows and lets be changed. Methods may block for a moment: they are called on threads of their own.
pub trait AdminState: Send + Sync + 'static {
    /// A picture of this moment.
    fn status(&self) -> Status;

    /// Makes a run of `agent`, moves the asking process into its new cgroup and says what environment it needs.
    ///
    /// # Errors
    /// Unknown agent; the process is gone; the cgroup cannot be made.
    fn start_run(&self, peer: &Peer, agent: &str) -> Result<RunStarted, AdminError>;

    /// The environment that processes of `agent` need, for those that Guard does not start itself.
    ///
    /// # Errors
    /// Unknown agent.
    fn environment(&self, agent: &str) -> Result<AgentEnvironment, AdminError>;

    /// Reads the configuration again.
    ///
    /// # Errors
    /// The file has errors; the old configuration stays in force.
    fn reload(&self) -> Result<Reloaded, AdminError>;

    /// Freezes an agent or one of its runs: its calls are refused until it is thawed.
    ///
    /// # Errors
    /// Unknown agent; no reason; the disk.
    fn freeze(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError>;

    /// Thaws it.
    ///
    /// # Errors
    /// Nothing is frozen by that name; the disk.
    fn unfreeze(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError>;

    /// Allows an agent more money for a while.
    ///
    /// # Errors
    /// Unknown agent; no reason; no amount or time; the disk.
    fn grant(&self, by: &Peer, asked: &GrantRequest) -> Result<Grant, AdminError>;

    /// Takes what became of a run.
    ///
    /// # Errors
    /// Unknown run; the disk.
    fn outcome(&self, by: &Peer, asked: &OutcomeRequest) -> Result<OutcomeTold, AdminError>;

    /// Whether a process belongs to an agent. A process that cannot be found counts as governed.
    fn peer_is_governed(&self, pid: u32) -> bool;

    /// Whether calls can be served: enforcement is proven and the ledger accepts reservations. Otherwise why not.
    ///
    /// # Errors
    /// The reason, in a sentence.
    fn ready(&self) -> Result<(), String>;

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// The reason, in a sentence.
    fn metrics(&self) -> Result<Vec<u8>, String>;
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Whether enforcement is proven right now.
    pub enforcing: bool,
    /// Why calls cannot be served, when they cannot.
    pub not_ready: Option<String>,
    /// Start of the daemon.
    pub started_at: Timestamp,
    /// When the configuration in force was read.
    pub configured_at: Timestamp,
    /// Every configured agent, by name.
    pub agents: Vec<AgentStatus>,
    /// Budgets that agents share.
    #[serde(default)]
    pub shared: Vec<BudgetStatus>,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Name.
    pub name: String,
    /// Who pays.
    pub owner: String,
    /// Lives of its cgroups right now.
    pub runs: u64,
    /// Calls since the start of the daemon.
    pub calls: u64,
    /// Of these, refused.
    pub refusals: u64,
    /// Calls in flight.
    pub in_flight: u64,
    /// The refusal that came last.
    pub last_refusal: Option<LastRefusal>,
    /// Its budgets, and those of its runs.
    pub budgets: Vec<BudgetStatus>,
    /// What it may spend beyond them for a while; their limits include it.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// The refusal that came last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRefusal {
    /// When.
    pub at: Timestamp,
    /// Reason label.
    pub reason: String,
    /// What the caller was told.
    pub message: String,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// `agent`, `run`, `session`; `owner`, `key`, `model` or `host` where agents share it.
    pub scope: String,
    /// Name of the scope.
    pub name: String,
    /// `day`, `run`, …
    pub window: String,
    /// What the numbers count; money in pico-dollars.
    pub unit: Unit,
    /// Hard limit, with what is granted beyond it.
    pub limit: u64,
    /// Soft limit, if there is one.
    pub soft: Option<u64>,
    /// Settled in the current window.
    pub settled: u64,
    /// Reserved by calls in flight.
    pub reserved: u64,
    /// End of the window; none for a run.
    pub resets_at: Option<Timestamp>,
}

impl BudgetStatus {
    /// So many of its unit.
    pub fn amount(&self, count: u64) -> Amount {
        Amount {
            unit: self.unit,
            count,
        }
    }
}

/// `POST /v1/runs`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Name of the agent.
    pub agent: String,
}

/// The answer to [`RunRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Id of the run.
    pub run: String,
    /// Cgroup that the asking process is in now.
    pub cgroup: String,
    /// Environment to set: trust in the CA, placeholders for keys.
    pub env: BTreeMap<String, String>,
    /// Environment to remove: variables in which a real key would enter the cgroup.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// `GET /v1/agents/NAME/environment`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEnvironment {
    /// To set: trust in the CA, placeholders for keys.
    pub env: BTreeMap<String, String>,
    /// Not to be set: variables in which a real key would enter the cgroup.
    pub remove: Vec<String>,
}

/// `POST /v1/freeze` and `POST /v1/unfreeze`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// Name of the agent.
    pub agent: String,
    /// Only this run of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The reason; the agent and the audit log see it.
    #[serde(default)]
    pub why: String,
}

/// The answer to [`FreezeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// Name of the agent.
    pub agent: String,
    /// Only this run of it.
    pub run: Option<String>,
    /// Whether it is frozen now.
    pub frozen: bool,
    /// Calls of the agent that are still under way: they may end.
    pub in_flight: u64,
}

/// `POST /v1/grant`; the answer is the grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// Name of the agent.
    pub agent: String,
    /// How much.
    pub pico_usd: Pico,
    /// For how long.
    pub seconds: u64,
    /// The reason; the audit log has it.
    pub why: String,
}

/// `POST /v1/outcome`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeRequest {
    /// Id of the run.
    pub run: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// The answer to [`OutcomeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeTold {
    /// Whose run it is.
    pub agent: String,
    /// Id of the run.
    pub run: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What the run cost.
    pub cost_pico_usd: Pico,
    /// Of this, wasted.
    pub wasted_pico_usd: Pico,
    /// What a success of the agent costs; none while it has none.
    pub cost_per_success_pico_usd: Option<Pico>,
}

/// The answer to `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Configured agents.
    pub agents: u64,
    /// What deserves a look: warnings, and what needs a restart.
    pub notes: Vec<String>,
}

/// Why a request failed. The message says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// Stable code.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The asking process belongs to an agent.
    Governed,
    /// Only uid 0 may do this.
    NeedsRoot,
    /// No such agent or path.
    NotFound,
    /// The request is not what this path takes.
    BadRequest,
    /// The configuration has errors.
    BadConfiguration,
    /// Too many requests at once, or one that took too long.
    Busy,
    /// It was tried and did not work.
    Failed,
}

impl AdminError {
    /// An error of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// The envelope of an error on the wire.
#[derive(Debug, Serialize, Deserialize)]
struct ErrorBody {
    error: AdminError,
}
