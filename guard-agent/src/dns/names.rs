//! Which address was given to an agent for which name.
//!
//! In: the addresses of an answer. Out: whether an address was given for a name, and for which names it was. On failure:
//! not known, which counts as no. Kept longer than the answer's time to live, because clients and connection pools do so,
//! too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Pairs of one agent.
const MOST: usize = 4096;
/// Kept at least.
const LEAST: Duration = Duration::from_secs(60 * 60);
/// Kept at most, whatever the answer says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The names of each address, and until when they hold.
#[derive(Debug, Default)]
struct Given {
    names: HashMap<IpAddr, HashMap<Box<str>, Instant>>,
    pairs: usize,
}

impl Given {
    fn retain(&mut self, keep: impl Fn(IpAddr, &str, Instant) -> bool) {
        let mut pairs = 0;
        self.names.retain(|address, names| {
            names.retain(|name, until| keep(*address, name, *until));
            pairs += names.len();
            !names.is_empty()
        });
        self.pairs = pairs;
    }

    /// The pair that ends first.
    fn first(&self) -> Option<(IpAddr, Box<str>)> {
        let pairs = self
            .names
            .iter()
            .flat_map(|(address, names)| names.iter().map(move |(name, until)| (address, name, until)));
        pairs
            .min_by_key(|(_, _, until)| **until)
            .map(|(address, name, _)| (*address, name.clone()))
    }

    fn insert(&mut self, address: IpAddr, name: Box<str>, until: Instant) {
        let names = self.names.entry(address).or_default();
        if names.insert(name, until).is_none() {
            self.pairs += 1;
        }
    }
}

/// What each agent was told. There are as many agents as the configuration names.
#[derive(Debug, Default)]
pub struct Names(Mutex<HashMap<Box<str>, Given>>);

impl Names {
    /// An agent was given this address for this name.
    pub fn learn(&self, agent: &str, address: IpAddr, name: &str, lives: Duration) {
        self.learn_at(agent, address, name, lives, Instant::now());
    }

    fn learn_at(&self, agent: &str, address: IpAddr, name: &str, lives: Duration, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let given = all.entry(agent.into()).or_default();
        if given.pairs >= MOST {
            given.retain(|_, _, until| until > now);
        }
        // Full of what still holds: the pair that ends first makes room.
        if given.pairs >= MOST
            && let Some((address, name)) = given.first()
        {
            given.retain(|at, called, _| (at, called) != (address, &*name));
        }
        let until = now + lives.clamp(LEAST, LONGEST);
        given.insert(address.to_canonical(), name.to_ascii_lowercase().into(), until);
    }

    /// Whether the agent was given this address for this name.
    pub fn gave(&self, agent: &str, address: IpAddr, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.of(agent, address).iter().any(|given| **given == *name)
    }

    /// The names for which the agent was given this address.
    pub fn of(&self, agent: &str, address: IpAddr) -> Vec<Box<str>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let names = all
            .get(agent)
            .and_then(|given| given.names.get(&address.to_canonical()));
        let valid = names.into_iter().flatten().filter(|(_, until)| **until > now);
        valid.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_for_its_agent_and_its_address_alone() {
        let names = Names::default();
        let address = "203.0.113.7".parse().unwrap();
        names.learn("coder", address, "A.example", Duration::ZERO);
        assert!(names.gave("coder", "::ffff:203.0.113.7".parse().unwrap(), "a.example"));
        assert!(!names.gave("other", address, "a.example"));
        assert!(!names.gave("coder", address, "b.example"));
        assert!(!names.gave("coder", "203.0.113.8".parse().unwrap(), "a.example"));
        names.learn("coder", address, "c.example", Duration::ZERO);
        let mut all = names.of("coder", address);
        all.sort();
        assert_eq!(all, ["a.example".into(), "c.example".into()]);
        assert!(names.of("other", address).is_empty());
    }

    #[test]
    fn there_is_an_end_to_what_one_agent_may_have_kept() {
        let names = Names::default();
        let address = |n: u32| IpAddr::V4(n.into());
        for n in 0..u32::try_from(MOST).unwrap() + 10 {
            names.learn("coder", address(n), "a.example", Duration::from_secs(n.into()));
        }
        let all = names.0.lock().unwrap();
        let kept: usize = all["coder"].names.values().map(HashMap::len).sum();
        assert_eq!((kept, all["coder"].pairs), (MOST, MOST));
    }
}
