//! What the ledger takes and gives.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::amount::{Amount, Amounts};
use super::window::Window;
use crate::clock::SharedClock;
use crate::money::Pico;

/// Whose money.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Which kind of thing.
    pub kind: ScopeKind,
    /// Its name.
    pub name: Arc<str>,
}

/// Which kind of thing a scope is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// A configured agent.
    Agent,
    /// Who pays, for one agent or several.
    Owner,
    /// One run of an agent.
    Run,
    /// A label that the client gave, inside a run; named `RUN/LABEL`.
    Session,
    /// A provider's key; named `PROVIDER/KEY`.
    Key,
    /// The models that a pattern covers; named by the pattern.
    Model,
    /// The whole machine.
    Host,
}

impl ScopeKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Agent,
        Self::Owner,
        Self::Run,
        Self::Session,
        Self::Key,
        Self::Model,
        Self::Host,
    ];

    /// Name in messages and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Owner => "owner",
            Self::Run => "run",
            Self::Session => "session",
            Self::Key => "key",
            Self::Model => "model",
            Self::Host => "host",
        }
    }
}

/// What a ledger is opened with.
pub struct LedgerSettings {
    /// Its directory; created with mode 0750 when missing.
    pub dir: PathBuf,
    /// Calendar of the windows.
    pub timezone: TimeZone,
    /// Where the time comes from.
    pub clock: SharedClock,
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process holds the lock file.
    #[error("{0} is locked: another guard-agent has this ledger open")]
    Locked(PathBuf),
    /// A file could not be read, written or created.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The journal holds complete records, but no checkpoint to start from.
    #[error(
        "{0}: no readable checkpoint in the journal; restore the directory from a backup, or move it away to start from nothing"
    )]
    NoCheckpoint(PathBuf),
    /// The database that would have to stand in for a lost journal cannot be read.
    #[error("{path}: {message}")]
    Database {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        message: String,
    },
}

impl LedgerError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// One limit that a call counts against.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Whose money.
    pub scope: Scope,
    /// Over which time.
    pub window: Window,
    /// The limit in force, in its unit; above 9.2 * 10^18 (9.2 million dollars) it counts as that much (`ledger.db` has
    /// signed integers).
    pub limit: Amount,
}

/// Why nothing was reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// A limit stands in the way.
    #[error("{0}")]
    Exhausted(Exhausted),
    /// The journal cannot be written (or the clock cannot be placed in a window); the text says why.
    #[error("the ledger admits nothing: {0}")]
    Stopped(String),
}

/// The limit that stands in the way, and the state of its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// Whose money.
    pub scope: Scope,
    /// Over which time.
    pub window: Window,
    /// The limit in force.
    pub limit: Amount,
    /// Settled so far in this window.
    pub settled: Amount,
    /// Reserved by calls in flight.
    pub reserved: Amount,
    /// What was asked for.
    pub requested: Amount,
    /// When the window ends, or when enough of a rolling one has passed; none for a run.
    pub resets_at: Option<Timestamp>,
    /// Only reservations of calls in flight stand in the way; the same request may pass when they settle.
    pub transient: bool,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            scope,
            window,
            limit,
            settled,
            reserved,
            requested,
            ..
        } = self;
        write!(
            f,
            "{} {} has {settled} settled and {reserved} reserved of {limit} {}; {requested} more does not fit",
            scope.kind.label(),
            scope.name,
            window.per(),
        )
    }
}

/// One account, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountView {
    /// Whose money.
    pub scope: Scope,
    /// Over which time.
    pub window: Window,
    /// When the window began; none for a run.
    pub starts: Option<Timestamp>,
    /// When the window ends; none for a run, and for a rolling window.
    pub resets_at: Option<Timestamp>,
    /// Settled so far.
    pub settled: Amount,
    /// Reserved by calls in flight.
    pub reserved: Amount,
}

/// What was found and done when the ledger was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Records read back.
    pub replayed: u64,
    /// Bytes of an unfinished last record, cut off and kept beside the journal as `*.torn-*`.
    pub torn_bytes: u64,
    /// Records inside the journal with a wrong checksum: left in place, skipped.
    pub damaged: u64,
    /// Reservations of the previous process that were still open, charged in full.
    pub charged_in_full: u64,
    /// Accounts that were booked up to their lease, because the machine lost power.
    pub charged_leases: u64,
    /// The sum of both.
    pub charged_amount: Pico,
    /// The journal was missing or shorter than `ledger.db` says; balances were taken from there.
    pub from_database: bool,
}

/// Whether a call's money did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nothing speaks against it.
    #[default]
    Useful,
    /// A retry of a call that had been made already.
    Retried,
    /// The provider failed, and billed all the same.
    Failed,
    /// Part of a loop.
    Looping,
}

impl Cause {
    /// Every one, in the order in which the journal knows them.
    pub const ALL: [Self; 4] = [Self::Useful, Self::Retried, Self::Failed, Self::Looping];

    /// Name in `ledger.db` and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Useful => "useful",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Looping => "looping",
        }
    }
}

/// What became of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What was booked.
    pub cost: Amounts,
    /// What had been reserved.
    pub reserved: Amounts,
    /// More was used than reserved, in money or in tokens: booked all the same, and worth a finding.
    pub overrun: bool,
}
