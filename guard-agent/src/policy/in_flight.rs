//! Calls in flight, by agent.
//!
//! In: the agent. Out: a slot that is given back when it is dropped. On failure: a transient refusal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Agent;
use crate::policy::caps;
use crate::refusal::Refusal;

/// Counts the calls in flight of each agent; outlives a reload.
#[derive(Debug, Default)]
pub struct InFlight {
    counts: Mutex<HashMap<Arc<str>, Arc<AtomicU32>>>,
}

/// One call in flight.
#[derive(Debug)]
pub struct Slot(Arc<AtomicU32>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl InFlight {
    /// How many there are.
    pub fn count(&self, agent: &str) -> u32 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(agent).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Counts a call in, unless the agent's cap is reached.
    ///
    /// # Errors
    /// `InFlight`, transient.
    pub fn enter(&self, agent: &Agent) -> Result<Slot, Refusal> {
        let count = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.entry(agent.name.clone()).or_default().clone()
        };
        let mut refusal = None;
        let entered = count.fetch_update(
            Ordering::AcqRel,
            Ordering::Acquire,
            |running| match caps::in_flight(agent, running) {
                Ok(()) => Some(running.saturating_add(1)),
                Err(busy) => {
                    refusal = Some(busy);
                    None
                }
            },
        );
        match (entered, refusal) {
            (Err(_), Some(busy)) => Err(busy),
            (Ok(_) | Err(_), _) => Ok(Slot(count)),
        }
    }
}
