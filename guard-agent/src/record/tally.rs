//! Counts by agent since the start of the daemon, for `status`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::money::Pico;
use crate::refusal::{Reason, Refusal};

/// Counts of one agent.
#[derive(Debug, Clone, Default)]
pub struct AgentTally {
    /// Calls, refused ones among them.
    pub calls: u64,
    /// Refused calls.
    pub refusals: u64,
    /// The refusal that came last.
    pub last_refusal: Option<(Timestamp, Reason, String)>,
    /// Settled money.
    pub cost: Pico,
    /// Calls that tried again what failed.
    pub retries: u64,
    /// Tools that models called.
    pub tools: u64,
}

/// Counts of every agent. One short lock a call; never on the path of a byte.
#[derive(Debug, Default)]
pub struct Tally(Mutex<HashMap<Arc<str>, AgentTally>>);

impl Tally {
    pub(super) fn admitted(&self, agent: &Arc<str>) {
        self.change(agent, |tally| tally.calls += 1);
    }

    pub(super) fn refused(&self, agent: &Arc<str>, at: Timestamp, refusal: &Refusal) {
        self.change(agent, |tally| {
            tally.calls += 1;
            tally.refusals += 1;
            tally.last_refusal = Some((at, refusal.reason, refusal.message.clone()));
        });
    }

    pub(super) fn settled(&self, agent: &Arc<str>, cost: Pico, tools: u64) {
        self.change(agent, |tally| {
            tally.cost = Pico(tally.cost.0.saturating_add(cost.0));
            tally.tools += tools;
        });
    }

    pub(crate) fn retried(&self, agent: &Arc<str>) {
        self.change(agent, |tally| tally.retries += 1);
    }

    /// The counts of one agent.
    pub fn of(&self, agent: &str) -> AgentTally {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(agent).cloned().unwrap_or_default()
    }

    fn change(&self, agent: &Arc<str>, change: impl FnOnce(&mut AgentTally)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(Arc::clone(agent)).or_default());
    }
}
