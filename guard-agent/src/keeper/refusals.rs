//! What the programs refused, on its way to the record: gathered, so that a client in a tight loop costs little.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Keeper;
use crate::kernel::{CANARY, KernelEvent};
use crate::seam::{Attempts, ToWorker};

/// How long attempts are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// Attempts that are told apart at the same time; the most that one message holds.
const GATHERED: usize = 256;

/// Tells the worker of every refusal, gathered by agent and vector. What is not told apart any more is counted as lost.
pub(super) async fn tell(keeper: Arc<Keeper>) {
    let mut events = keeper.enforcement.kernel.events();
    let mut gathered: HashMap<(u32, u32), Attempts> = HashMap::new();
    let mut lost = 0;
    let mut flush = interval_at(Instant::now() + GATHER, GATHER);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                if event.agent == CANARY {
                    continue;
                }
                let key = (event.agent, event.reason as u32);
                if gathered.len() >= GATHERED && !gathered.contains_key(&key) {
                    lost += 1;
                    continue;
                }
                gathered.entry(key).or_insert_with(|| keeper.attempts(&event)).count += 1;
            }
            _ = flush.tick() => {
                if !gathered.is_empty() {
                    let all = gathered.drain().map(|(_, attempts)| attempts).collect();
                    keeper.desk.tell(ToWorker::Refusals(all));
                }
                if lost > 0 {
                    keeper.desk.tell(ToWorker::EventsLost(std::mem::take(&mut lost)));
                }
            }
        }
    }
}

impl Keeper {
    fn attempts(&self, event: &KernelEvent) -> Attempts {
        Attempts {
            agent: self.enforcement.identifier.agent_name(event.agent),
            reason: event.reason as u32,
            destination: event.destination,
            count: 0,
        }
    }
}
