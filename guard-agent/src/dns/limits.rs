//! What one agent may ask for, so that a look-up stays a look-up.
//!
//! In: an agent and a name. Out: a place among the queries in flight. On failure: too many queries, or so many bytes of
//! names that were not asked before in this minute that they must carry data.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Queries of one agent in a second. A package manager or crawler asks some dozens.
const PER_SECOND: u32 = 500;
/// Queries of one agent that are being answered.
const IN_FLIGHT: usize = 256;
/// Bytes of distinct names in a minute: a thousand names of ordinary length. A tunnel of 1 KiB/s needs twice as much.
const NAME_BYTES: usize = 32 * 1024;
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// What became of a query.
#[derive(Debug)]
pub enum Spent {
    /// It may be asked; the place is free again when this is dropped.
    Place(OwnedSemaphorePermit),
    /// Too many queries.
    TooMany,
    /// A tunnel.
    Tunnel {
        /// The first query of this minute that was refused for it.
        first: bool,
    },
}

/// The accounts of all agents. There are as many as the configuration names.
#[derive(Debug, Default)]
pub struct Limits(Mutex<HashMap<Box<str>, Account>>);

#[derive(Debug)]
struct Account {
    in_flight: Arc<Semaphore>,
    second: Instant,
    queries: u32,
    minute: Instant,
    names: HashSet<u64>,
    bytes: usize,
    told: bool,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            second: now,
            queries: 0,
            minute: now,
            names: HashSet::new(),
            bytes: 0,
            told: false,
        }
    }
}

impl Limits {
    /// Takes a place for a query.
    pub fn spend(&self, agent: &str, name: &str) -> Spent {
        self.spend_at(agent, name, Instant::now())
    }

    fn spend_at(&self, agent: &str, name: &str, now: Instant) -> Spent {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account = accounts.entry(agent.into()).or_insert_with(|| Account::new(now));
        if now.saturating_duration_since(account.second) >= SECOND {
            (account.second, account.queries) = (now, 0);
        }
        if now.saturating_duration_since(account.minute) >= MINUTE {
            account.minute = now;
            account.names.clear();
            (account.bytes, account.told) = (0, false);
        }
        account.queries = account.queries.saturating_add(1);
        if account.queries > PER_SECOND {
            return Spent::TooMany;
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let known = hasher.finish();
        if !account.names.contains(&known) {
            if account.bytes + name.len() > NAME_BYTES {
                let first = !std::mem::replace(&mut account.told, true);
                return Spent::Tunnel { first };
            }
            account.bytes += name.len();
            account.names.insert(known);
        }
        account
            .in_flight
            .clone()
            .try_acquire_owned()
            .map_or(Spent::TooMany, Spent::Place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_names_are_counted_by_their_bytes_and_the_finding_comes_once_a_minute() {
        let (limits, began) = (Limits::default(), Instant::now());
        let spend = |name: &str, at: Duration| limits.spend_at("coder", name, began + at);
        let mut firsts = 0;
        let mut refused = 0;
        for n in 0_u32..400 {
            let name = format!("{n:0>200}.tunnel.example");
            match spend(&name, SECOND * (n / 100)) {
                Spent::Place(_) => {}
                Spent::Tunnel { first } => {
                    refused += 1;
                    firsts += u32::from(first);
                }
                Spent::TooMany => panic!("too many"),
            }
        }
        assert_eq!(firsts, 1);
        assert!((240..260).contains(&refused), "{refused}");
        let known = format!("{:0>200}.tunnel.example", 0);
        assert!(
            matches!(spend(&known, SECOND * 5), Spent::Place(_)),
            "a name that is known"
        );
        assert!(matches!(
            limits.spend_at("other", "a.example", began),
            Spent::Place(_)
        ));
        assert!(matches!(spend("new.example", MINUTE), Spent::Place(_)));
    }

    #[test]
    fn queries_in_a_second_and_in_flight_have_an_end() {
        let (limits, began) = (Limits::default(), Instant::now());
        let held: Vec<_> = (0..IN_FLIGHT)
            .map(|_| limits.spend_at("coder", "a.example", began))
            .collect();
        assert!(held.iter().all(|spent| matches!(spent, Spent::Place(_))));
        assert!(matches!(
            limits.spend_at("coder", "a.example", began),
            Spent::TooMany
        ));
        drop(held);
        for _ in 0..PER_SECOND {
            drop(limits.spend_at("coder", "a.example", began));
        }
        assert!(matches!(
            limits.spend_at("coder", "a.example", began),
            Spent::TooMany
        ));
        assert!(matches!(
            limits.spend_at("coder", "a.example", began + SECOND),
            Spent::Place(_)
        ));
    }
}
