//! What the keeper says, one message after the other, until it says stop.
//!
//! In: messages. Out: each done, or on its way; none waits for another. On failure: the channel is broken and the worker
//! ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{DRAIN, Daemon, housekeeping};
use crate::drain::Drain;
use crate::seam::channel::Received;
use crate::seam::settings::Known;
use crate::seam::{Attempts, Channel, Event, FromWorker, ToWorker};

/// How often the keeper is told that this process lives.
const ALIVE: Duration = Duration::from_secs(1);
/// Refusals of the programs that may wait to be recorded.
const REFUSALS: usize = 1024;

/// Does what the keeper says until it says stop, then lets calls end.
pub(super) async fn hear(daemon: &Arc<Daemon>, channel: &Channel, drain: &Drain) -> anyhow::Result<()> {
    let (refused, recorded) = mpsc::channel(REFUSALS);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(housekeeping::keep(daemon.clone()));
    tasks.spawn(housekeeping::refusals(daemon.clone(), recorded));
    let mut alive = interval(ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut finishing = None;
    loop {
        tokio::select! {
            received = channel.receive() => {
                let received = received.context("the keeper is not understood")?;
                let received = received.ok_or_else(|| anyhow!("the keeper is gone"))?;
                if daemon.take(received, &refused)? && finishing.is_none() {
                    let drain = drain.clone();
                    finishing = Some(tokio::spawn(async move { drain.finish(DRAIN).await }));
                }
            }
            _ = alive.tick() => daemon.keeper.tell(FromWorker::Alive),
            cut = ended(&mut finishing) => {
                tracing::info!(cut, "calls have ended");
                return Ok(());
            }
        }
    }
}

/// How many calls were cut, once all have ended; never while no stop was asked for.
async fn ended(finishing: &mut Option<tokio::task::JoinHandle<usize>>) -> usize {
    match finishing {
        Some(task) => task.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

impl Daemon {
    /// Takes one message; says whether it was the last word.
    fn take(
        self: &Arc<Self>,
        mut received: Received,
        refused: &mpsc::Sender<Attempts>,
    ) -> anyhow::Result<bool> {
        let mut descriptors = std::mem::take(&mut received.descriptors);
        match received.message().context("the keeper is not understood")? {
            ToWorker::Start(_) => return Err(anyhow!("the keeper starts twice")),
            ToWorker::Listen {
                netns_cookie,
                sockets,
            } => {
                let sockets = sockets.into_iter().zip(descriptors).collect();
                if let Err(error) = self.worker.listen(netns_cookie, sockets) {
                    tracing::error!(
                        netns_cookie,
                        "connections of a namespace are not served: {error:#}"
                    );
                }
            }
            ToWorker::Close { netns_cookie } => self.worker.close(netns_cookie),
            ToWorker::Answer { id, answer } => self.keeper.answered(id, answer, descriptors),
            ToWorker::Reload { id } => {
                let settings = descriptors.pop();
                let daemon = self.clone();
                // It reads files; the tasks of calls must not wait for it.
                tokio::task::spawn_blocking(move || {
                    let outcome = settings
                        .ok_or_else(|| "no settings came along".to_owned())
                        .and_then(Known::read)
                        .and_then(|known| daemon.reload(known));
                    daemon.keeper.tell(FromWorker::Reloaded { id, outcome });
                });
            }
            ToWorker::Proof(proof) => self.saw(proof),
            ToWorker::Refusals(all) => {
                for attempts in all {
                    let count = attempts.count;
                    if refused.try_send(attempts).is_err() {
                        self.metrics.events_lost(count);
                    }
                }
            }
            ToWorker::EventsLost(count) => self.metrics.events_lost(count),
            ToWorker::Happened(event) => self.happened(event),
            ToWorker::Stop => return Ok(true),
        }
        Ok(false)
    }

    fn happened(&self, event: Event) {
        match event {
            Event::Repaired { program } => {
                self.metrics.repaired();
                self.recorder.host_alert(
                    "kernel.repaired",
                    format!("{program} was detached or unpinned by somebody, and was put back"),
                );
            }
            Event::Unproven(why) => self.recorder.host_alert("enforcement.unproven", why),
            Event::Proven => {
                let message = "enforcement is proven again".to_owned();
                self.recorder.host_alert("enforcement.proven", message);
            }
        }
    }
}
