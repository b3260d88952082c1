//! What the journal holds: one record a line, framed with its length and checksum.
//!
//! `LLLLLLLL CCCCCCCC {json}\n`: length and CRC-32 of the JSON text in hexadecimal, so that a person can read the file.

use serde::{Deserialize, Serialize};

use super::amount::Amounts;
use super::book::{AccountId, Posting};
use super::facts::{Caller, Ended};
use super::Scope;

/// Bytes before the JSON text.
const HEAD: usize = 18;
/// No record is longer; a longer length field is damage, not a record.
const MAX_JSON: usize = 64 << 20;

/// A record with its place in the sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbered {
    /// One more than the record before; a reservation is known by the number of its record.
    pub seq: u64,
    #[serde(flatten)]
    pub record: Record,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub(super) enum Record {
    /// Everything that must survive the segments before this one. The first record of every segment.
    Checkpoint {
        /// Microseconds since 1970.
        at: i64,
        /// Settled amounts; reserved ones follow from `held`.
        accounts: Vec<Balance>,
        /// Open reservations.
        held: Vec<(u64, Posting)>,
        /// Latest window start seen, by kind of window.
        floors: Vec<(super::Window, i64, i64)>,
    },
    /// An amount was set aside.
    Reserve {
        at: i64,
        posting: Posting,
        /// For reports only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caller: Option<Box<Caller>>,
    },
    /// More was set aside for a reservation: `posting` has the addition, and repeats the accounts, so that the record can
    /// be booked without its reserve record.
    Extend { at: i64, id: u64, posting: Posting },
    /// A reservation ended. Repeats its posting, so that the record can be booked without its reserve record.
    Close {
        at: i64,
        id: u64,
        cost: Amounts,
        outcome: Outcome,
        posting: Posting,
        /// For reports only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Box<Ended>>,
    },
    /// A run ended.
    Forget { at: i64, scope: Scope },
}

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl Outcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Abandoned => "abandoned",
            Self::Recovered => "recovered",
        }
    }
}

/// One account in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Balance {
    pub account: AccountId,
    /// In the account's unit.
    pub settled: u64,
}

impl Record {
    pub(super) fn close(id: u64, at: i64, posting: &Posting, cost: Amounts, outcome: Outcome, ended: Option<Ended>) -> Self {
        Self::Close {
            at,
            id,
            cost,
            outcome,
            posting: posting.clone(),
            ended: ended.map(Box::new),
        }
    }
}

/// The line of a record.
pub(super) fn encode(numbered: &Numbered) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(numbered)?;
    let mut line = format!("{:08x} {:08x} ", json.len(), crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// The record of a line (without its newline); `None` when length, checksum or content is wrong.
pub(super) fn decode(line: &[u8]) -> Option<Numbered> {
    let hex = |range| u32::from_str_radix(std::str::from_utf8(line.get(range)?).ok()?, 16).ok();
    let length = usize::try_from(hex(0..8)?).ok()?;
    let checksum = hex(9..17)?;
    let json = line.get(HEAD..)?;
    if length > MAX_JSON || json.len() != length || crc32fast::hash(json) != checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}
