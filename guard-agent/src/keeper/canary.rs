//! What the canary's connections told: see `proof`.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Connections of the canary that have arrived at the worker.
#[derive(Debug, Default)]
pub(super) struct Canary {
    arrived: Mutex<HashSet<u64>>,
}

impl Canary {
    /// The connection with this socket cookie has arrived.
    pub(super) fn arrived(&self, cookie: u64) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.insert(cookie);
    }
}
