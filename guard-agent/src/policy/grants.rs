//! Grants: money that a person allows an agent for a while, beyond its budgets.
//!
//! In: the agent and the time. Out: how much its own limits in dollars are raised now. On failure: none; what has expired
//! raises nothing. Grants are kept in a file, so that a restart takes none away; one that cannot be read keeps the daemon
//! from starting, because it may hold what somebody was promised.
//!
//! A grant raises every limit in dollars of the agent itself, of its runs and of its sessions; limits that it shares with
//! others, and those in tokens and calls, stay.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ledger::{Amount, Scope, ScopeKind, Unit};
use crate::money::Pico;
use crate::policy::frozen::replace;

/// Name of the file in `state_dir`.
const FILE: &str = "grants.json";
/// Grants in force at the same time.
const MOST: usize = 256;

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// To whom.
    pub agent: String,
    /// How much.
    pub pico_usd: Pico,
    /// The reason that was given.
    pub why: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// By whom.
    pub by_uid: u32,
}

/// What an agent has been granted, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extra {
    /// All of it.
    pub usd: Pico,
    /// When the first of it expires.
    pub until: Option<Timestamp>,
}

impl Extra {
    /// A limit with what was granted.
    #[must_use]
    pub fn raise(&self, scope: &Scope, limit: Amount) -> Amount {
        match (limit.unit, scope.kind) {
            (Unit::Usd, ScopeKind::Agent | ScopeKind::Run | ScopeKind::Session) => {
                limit.with(limit.count.saturating_add(self.usd.0))
            }
            _ => limit,
        }
    }
}

/// Every grant, and where they are kept.
#[derive(Debug, Default)]
pub struct Grants {
    /// None in tests of other stages: then they are kept in memory only.
    file: Option<PathBuf>,
    /// Read on the path of a call, without a lock.
    list: ArcSwap<Vec<Grant>>,
    /// Held while the list is changed.
    changing: Mutex<()>,
}

impl Grants {
    /// What was granted when the daemon stopped.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join(FILE);
        let list: Vec<Grant> = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| {
                let message = format!(
                    "{}: {why}; it says what was granted to agents: repair it, or remove it to take all grants back",
                    file.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(why) => return Err(io::Error::new(why.kind(), format!("{}: {why}", file.display()))),
        };
        Ok(Self {
            file: Some(file),
            list: ArcSwap::from_pointee(list),
            changing: Mutex::default(),
        })
    }

    /// What an agent has beyond its budgets now.
    pub fn extra(&self, agent: &str, now: Timestamp) -> Extra {
        let list = self.list.load();
        let live = list
            .iter()
            .filter(|grant| grant.agent == agent && now < grant.until);
        live.fold(Extra::default(), |sum, grant| Extra {
            usd: Pico(sum.usd.0.saturating_add(grant.pico_usd.0)),
            until: Some(sum.until.map_or(grant.until, |until| until.min(grant.until))),
        })
    }

    /// An agent's grants that are in force.
    pub fn of(&self, agent: &str, now: Timestamp) -> Vec<Grant> {
        let list = self.list.load();
        let live = list
            .iter()
            .filter(|grant| grant.agent == agent && now < grant.until);
        live.cloned().collect()
    }

    /// Grants, from this moment on and over restarts. What has expired is forgotten.
    ///
    /// # Errors
    /// It cannot be written to disk, or there are too many; then nothing is granted.
    pub fn grant(&self, grant: Grant) -> io::Result<()> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = grant.at;
        let mut list: Vec<Grant> = self.list.load().iter().cloned().collect();
        list.retain(|known| now < known.until);
        if list.len() >= MOST {
            return Err(io::Error::other(format!(
                "{MOST} grants are in force: raise the budgets in guard.toml instead"
            )));
        }
        list.push(grant);
        if let Some(file) = &self.file {
            let text = serde_json::to_vec_pretty(&list).map_err(io::Error::from)?;
            replace(file, &text)?;
        }
        self.list.store(Arc::new(list));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + second).unwrap()
    }

    fn grant(usd: u64, from: i64, until: i64) -> Grant {
        Grant {
            agent: "coder".into(),
            pico_usd: Pico(usd),
            why: "a release".into(),
            at: at(from),
            until: at(until),
            by_uid: 0,
        }
    }

    #[test]
    fn a_grant_holds_over_restarts_and_ends_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let grants = Grants::open(dir.path()).unwrap();
        grants.grant(grant(5, 0, 100)).unwrap();
        grants.grant(grant(2, 10, 50)).unwrap();
        drop(grants);
        let grants = Grants::open(dir.path()).unwrap();
        let extra = |second| grants.extra("coder", at(second));
        assert_eq!((extra(20).usd, extra(20).until), (Pico(7), Some(at(50))));
        assert_eq!((extra(50).usd, extra(50).until), (Pico(5), Some(at(100))));
        assert_eq!(extra(100), Extra::default());
        assert_eq!(grants.extra("other", at(20)), Extra::default());
        assert_eq!(grants.of("coder", at(60)).len(), 1);
        // The next one sweeps what is over out of the file.
        grants.grant(grant(1, 200, 300)).unwrap();
        assert_eq!(Grants::open(dir.path()).unwrap().list.load().len(), 1);
    }

    #[test]
    fn only_the_agent_s_own_limits_in_dollars_are_raised() {
        let extra = Extra {
            usd: Pico(5),
            until: None,
        };
        let scope = |kind| Scope {
            kind,
            name: "x".into(),
        };
        for kind in ScopeKind::ALL {
            let own = matches!(kind, ScopeKind::Agent | ScopeKind::Run | ScopeKind::Session);
            let raised = extra.raise(&scope(kind), Pico(10).into()).count;
            assert_eq!(raised, if own { 15 } else { 10 }, "{kind:?}");
            let tokens = Amount::none(Unit::Tokens).with(10);
            assert_eq!(extra.raise(&scope(kind), tokens), tokens);
        }
    }

    #[test]
    fn a_grant_that_cannot_be_written_is_none_and_a_broken_list_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let grants = Grants::open(dir.path()).unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let said = Grants::open(dir.path()).unwrap_err().to_string();
        assert!(said.contains(FILE) && said.contains("repair it"), "{said}");
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(grants.grant(grant(5, 0, 100)).is_err());
        assert_eq!(grants.extra("coder", at(1)), Extra::default());
    }
}
