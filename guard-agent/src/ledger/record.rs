//! What the journal holds. `codec.rs` has the bytes of it.

use std::sync::Arc;

use serde::Deserialize;

use super::Scope;
use super::amount::Amounts;
use super::book::{AccountId, Posting};
use super::facts::{Caller, Ended};

/// A record with its place in the sequence.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Numbered {
    /// One more than the record before; a reservation is known by the number of its record.
    pub seq: u64,
    #[serde(flatten)]
    pub record: Record,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum Record {
    /// Everything that must survive the segments before this one. The first record of every segment.
    Checkpoint {
        /// Microseconds since 1970.
        at: i64,
        /// Settled amounts; reserved ones follow from `held`.
        accounts: Vec<Balance>,
        /// Open reservations.
        held: Vec<(u64, Arc<Posting>)>,
        /// Latest window start seen, by kind of window.
        floors: Vec<(super::Window, i64, i64)>,
        /// Leases in force. The first format had none, as it had no boot.
        #[serde(default)]
        leases: Vec<(AccountId, u64)>,
        /// In which boot of the machine it was written.
        #[serde(default)]
        boot: Option<Boot>,
    },
    /// An amount was set aside.
    Reserve {
        at: i64,
        posting: Arc<Posting>,
        /// For reports only.
        #[serde(skip)]
        caller: Option<Box<Caller>>,
    },
    /// More was set aside for a reservation: `posting` has the addition, and repeats the accounts, so that the record can
    /// be booked without its reserve record.
    Extend { at: i64, id: u64, posting: Arc<Posting> },
    /// A reservation ended. Repeats its posting, so that the record can be booked without its reserve record.
    Close {
        at: i64,
        id: u64,
        cost: Amounts,
        outcome: Outcome,
        posting: Arc<Posting>,
        /// For reports only.
        #[serde(skip)]
        ended: Option<Box<Ended>>,
    },
    /// A run ended.
    Forget { at: i64, scope: Scope },
    /// Accounts may come to so much before the disk hears of them again; to nothing: the lease ended.
    Lease { at: i64, leases: Vec<(AccountId, u64)> },
    /// A process opened the journal.
    Opened { at: i64, boot: Boot },
    /// It closed it, and everything before this record was on disk. All leases end.
    Stopped { at: i64 },
}

/// One boot of the machine: what was written in another one may be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Boot {
    /// Zero when the machine does not say.
    pub id: u128,
    /// Microseconds since the machine was started, when the record was written.
    pub ticks: i64,
}

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// At the cost that was reported or estimated.
    Settled,
    /// At nothing.
    Released,
    /// In full, because it was dropped.
    Abandoned,
    /// In full, because the process died.
    Recovered,
    /// A lease that was open when the machine lost power: what may have been spent under it.
    PowerLost,
}

impl Outcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Settled,
        Self::Released,
        Self::Abandoned,
        Self::Recovered,
        Self::PowerLost,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Abandoned => "abandoned",
            Self::Recovered => "recovered",
            Self::PowerLost => "power_lost",
        }
    }
}

/// One account in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Balance {
    pub account: AccountId,
    /// In the account's unit.
    pub settled: u64,
}
