//! Proof of enforcement, on a timer: the kernel is asked whether every program is where it was attached.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Keeper;
use crate::seam::{Proof, ToWorker};

const EVERY: Duration = Duration::from_secs(2);

/// Keeps the worker told.
pub(super) async fn keep(keeper: Arc<Keeper>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = keeper.enforcement.kernel.stats().events_lost;
    loop {
        ticks.tick().await;
        keeper.say_proof();
        let now_lost = keeper.enforcement.kernel.stats().events_lost;
        if now_lost > lost {
            keeper.desk.tell(ToWorker::EventsLost(now_lost - lost));
            lost = now_lost;
        }
    }
}

impl Keeper {
    /// Looks, and tells the worker what was seen.
    pub(super) fn say_proof(&self) {
        self.desk.tell(ToWorker::Proof(self.prove()));
    }

    fn prove(&self) -> Proof {
        let attached = self.enforcement.kernel.attached();
        if attached.all() {
            return Proof::Enforcing;
        }
        let missing = attached.missing().join(", ");
        tracing::error!(missing, "programs are not attached any more: NOT ENFORCING");
        Proof::NotEnforcing(format!("programs that are not attached: {missing}"))
    }
}
