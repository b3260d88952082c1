//! Proof of enforcement: what the kernel says of the programs, and what the canary saw.
//!
//! In: both, on timers. Out: one verdict, which `guard_enforcing`, `/readyz` and `status` show. On failure: the verdict is
//! "not enforcing", with the reason; what somebody took away is put back first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Keeper;
use crate::seam::{Event, Proof, ToWorker};

const EVERY: Duration = Duration::from_secs(2);

/// What is known.
#[derive(Debug)]
pub(super) struct Known(Mutex<Facts>);

#[derive(Debug)]
struct Facts {
    attached: Result<(), String>,
    canary: Result<(), String>,
    standing: Standing,
}

/// What was recorded last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing was proven since the start.
    Unknown,
    Proven,
    Lost,
}

impl Default for Known {
    fn default() -> Self {
        let nobody = || Err("it was not tried yet".to_owned());
        Self(Mutex::new(Facts {
            attached: nobody(),
            canary: nobody(),
            standing: Standing::Unknown,
        }))
    }
}

impl Facts {
    fn verdict(&self) -> Proof {
        match (&self.attached, &self.canary) {
            (Ok(()), Ok(())) => Proof::Enforcing,
            (Err(why), _) | (_, Err(why)) => Proof::NotEnforcing(why.clone()),
        }
    }
}

/// Keeps the programs attached, and the worker told.
pub(super) async fn keep(keeper: Arc<Keeper>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = keeper.enforcement.kernel.stats().events_lost;
    loop {
        ticks.tick().await;
        keeper.look();
        keeper.say_proof();
        let now_lost = keeper.enforcement.kernel.stats().events_lost;
        if now_lost > lost {
            keeper.desk.tell(ToWorker::EventsLost(now_lost - lost));
            lost = now_lost;
        }
    }
}

impl Keeper {
    /// Asks the kernel for every program, and puts back what is missing.
    fn look(&self) {
        let kernel = &self.enforcement.kernel;
        let mut attached = kernel.attached();
        if !attached.all() {
            let missing = attached.missing().join(", ");
            tracing::error!(missing, "somebody took programs away: they are put back");
            for (program, outcome) in kernel.repair() {
                match outcome {
                    Ok(()) => {
                        let program = program.to_owned();
                        self.desk.tell(ToWorker::Happened(Event::Repaired { program }));
                    }
                    Err(error) => {
                        tracing::error!(program, %error, "a program cannot be put back: NOT ENFORCING")
                    }
                }
            }
            attached = kernel.attached();
            // Whether it was enough is for the canary to say.
            self.canary.send();
        }
        let attached = match attached.all() {
            true => Ok(()),
            false => Err(format!(
                "programs that are not attached: {}",
                attached.missing().join(", ")
            )),
        };
        self.know(|facts| facts.attached = attached);
    }

    /// The canary is back.
    pub(super) fn canary_saw(&self, seen: Result<(), String>) {
        if let Err(why) = &seen {
            tracing::warn!(why, "what the canary saw");
        }
        self.know(|facts| facts.canary = seen);
        self.say_proof();
    }

    /// Tells the worker the verdict of this moment.
    pub(super) fn say_proof(&self) {
        let verdict = self.know(|_| {});
        self.desk.tell(ToWorker::Proof(verdict));
    }

    /// Takes a fact in, records what it changes, and gives the verdict.
    fn know(&self, change: impl FnOnce(&mut Facts)) -> Proof {
        let mut facts = self.proof.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut facts);
        let verdict = facts.verdict();
        let before = facts.standing;
        match (&verdict, before) {
            (Proof::NotEnforcing(why), Standing::Proven) => {
                tracing::error!(why, "NOT ENFORCING");
                facts.standing = Standing::Lost;
                self.desk.tell(ToWorker::Happened(Event::Unproven(why.clone())));
            }
            (Proof::Enforcing, Standing::Unknown | Standing::Lost) => {
                tracing::info!("enforcement is proven");
                facts.standing = Standing::Proven;
                if before == Standing::Lost {
                    self.desk.tell(ToWorker::Happened(Event::Proven));
                }
            }
            _ => {}
        }
        verdict
    }
}
