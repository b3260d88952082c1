//! Which address was given to an agent for which name.
//!
//! In: the addresses of an answer. Out: whether an address was given for a name. On failure: not known, which counts as
//! no. Kept longer than the answer's time to live, because clients and connection pools do so, too.

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

type Given = HashMap<(IpAddr, Box<str>), Instant>;

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
        if given.len() >= MOST {
            given.retain(|_, until| *until > now);
        }
        // Full of what still holds: the pair that ends first makes room.
        if given.len() >= MOST
            && let Some(first) = given.iter().min_by_key(|(_, until)| **until)
        {
            let first = first.0.clone();
            given.remove(&first);
        }
        let until = now + lives.clamp(LEAST, LONGEST);
        given.insert((address.to_canonical(), name.to_ascii_lowercase().into()), until);
    }

    /// Whether the agent was given this address for this name.
    pub fn gave(&self, agent: &str, address: IpAddr, name: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (address.to_canonical(), name.to_ascii_lowercase().into());
        all.get(agent)
            .and_then(|given| given.get(&pair))
            .is_some_and(|until| *until > Instant::now())
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
    }

    #[test]
    fn there_is_an_end_to_what_one_agent_may_have_kept() {
        let names = Names::default();
        let address = |n: u32| IpAddr::V4(n.into());
        for n in 0..u32::try_from(MOST).unwrap() + 10 {
            names.learn("coder", address(n), "a.example", Duration::from_secs(n.into()));
        }
        assert_eq!(names.0.lock().unwrap()["coder"].len(), MOST);
    }
}
