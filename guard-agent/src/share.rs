//! What one agent may hold of what all agents share, so that one of them can't starve the others or the host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::{Reason, Refusal};

pub(crate) mod large;

/// Connections of one agent; a quarter of what `accept` takes in all.
const CONNECTIONS: usize = 2_500;
/// Request bodies of one agent that are held at a time, in KiB: 256 MiB, eight of the largest.
const BODIES: usize = 256 * 1024;
/// Seconds after which a request that found no room may be tried again.
const BUSY: u32 = 5;

/// The shares of all agents. There are as many as the configuration names.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<Arc<str>, Share>>);

/// One agent's share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Share {
    connections: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            bodies: Arc::new(Semaphore::new(BODIES)),
        }
    }
}

impl Shares {
    /// The share of an agent.
    pub fn of(&self, agent: &Arc<str>) -> Share {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.entry(agent.clone()).or_default().clone()
    }
}

impl Share {
    /// A place for one more connection, until it is dropped.
    pub fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Room for a request's body, none of it taken yet.
    pub fn room(&self) -> Room {
        Room {
            bodies: self.bodies.clone(),
            held: None,
            kib: 0,
        }
    }
}

/// Room that a request's body takes; given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    bodies: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    kib: u32,
}

impl Room {
    /// Takes room for this many bytes in all.
    ///
    /// # Errors
    /// `InFlight`, transient: the agent's other requests hold the rest.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let more = kib.saturating_sub(self.kib);
        if more == 0 {
            return Ok(());
        }
        let Ok(taken) = self.bodies.clone().try_acquire_many_owned(more) else {
            let mut refusal = Refusal::new(
                Reason::InFlight,
                "Requests of this agent that are still being read or answered hold all the memory it may use. Wait \
                 for some to end, then try again.",
            );
            refusal.retry_after = Some(BUSY);
            return Err(refusal);
        };
        match &mut self.held {
            Some(held) => held.merge(taken),
            none => *none = Some(taken),
        }
        self.kib = kib;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_s_bodies_leave_the_others_their_room() {
        let shares = Shares::default();
        let (coder, spare) = (shares.of(&"coder".into()), shares.of(&"spare".into()));
        let mut first = coder.room();
        first.grow_to(100).unwrap();
        first.grow_to(BODIES * 1024).unwrap();
        let refusal = coder.room().grow_to(1).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.retry_after),
            (Reason::InFlight, Some(BUSY))
        );
        spare.room().grow_to(BODIES * 1024).unwrap();
        drop(first);
        shares.of(&"coder".into()).room().grow_to(BODIES * 1024).unwrap();
    }

    #[test]
    fn connections_are_given_back() {
        let share = Share::default();
        let held: Vec<_> = (0..CONNECTIONS).filter_map(|_| share.connection()).collect();
        assert_eq!(held.len(), CONNECTIONS);
        assert!(share.connection().is_none());
        drop(held);
        assert!(share.connection().is_some());
    }
}
