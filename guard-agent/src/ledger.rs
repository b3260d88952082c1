//! Budgets: reserve before a call is forwarded, settle or release exactly once.

use std::sync::Arc;

use serde::Serialize;

/// Over which time a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// One life of the agent's cgroup.
    Run,
    /// A calendar hour in the host's time zone.
    Hour,
    /// A calendar day.
    Day,
    /// A calendar week, from Monday.
    Week,
    /// A calendar month.
    Month,
}

impl Window {
    /// Name in configuration, messages and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// Whose money.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Scope {
    /// Which kind of thing.
    pub kind: ScopeKind,
    /// Its name.
    pub name: Arc<str>,
}

/// Which kind of thing a scope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// A configured agent.
    Agent,
    /// One run of an agent.
    Run,
}

impl ScopeKind {
    /// Name in messages and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Run => "run",
        }
    }
}
