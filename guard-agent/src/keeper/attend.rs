//! Attends to the worker: hears it, replaces it when it dies, ends it when a stop is asked for.
//!
//! In: signals, and what the worker says. Out: a worker, for as long as the keeper lives. On failure: another worker
//! after a pause that grows.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::answers::AT_ONCE;
use super::process::{Process, Seat};
use super::{Keeper, canary, heartbeat, notify, proof, refusals};
use crate::app::DRAIN;
use crate::identify::docker;
use crate::seam::channel::Received;
use crate::seam::{Answer, FromWorker, Start, ToWorker, VERSION};

/// Beyond its own deadline, for the books to be closed.
const CLOSING: Duration = Duration::from_secs(8);
/// A worker that says nothing for this long hangs.
const SILENT: Duration = Duration::from_secs(30);
/// Before the second, third, … worker in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A worker that lived this long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(10);

/// What a person or the service manager asks for.
pub(super) struct Signals {
    stop: Signal,
    interrupt: Signal,
    hangup: Signal,
}

enum Asked {
    Stop,
    Reload,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            stop: signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?,
            hangup: signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.stop.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// Why the keeper stopped hearing a worker.
enum Ended {
    /// A stop was asked for; the worker still lives.
    Stop,
    /// It died, or had to be ended.
    Died(String),
}

impl Keeper {
    /// Serves until a stop is asked for.
    pub(super) async fn attend(
        self: &Arc<Self>,
        first: Process,
        seat: &Seat,
        mut signals: Signals,
    ) -> anyhow::Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(refusals::tell(self.clone()));
        tasks.spawn(proof::keep(self.clone()));
        tasks.spawn(heartbeat::keep(self.clone()));
        tasks.spawn(canary::keep(self.clone()));
        let socket = self.config.load().host.docker.clone();
        if let (Some(socket), Some(containers)) = (socket, &self.enforcement.containers) {
            tasks.spawn(docker::follow(socket, containers.clone()));
        }
        if let Some(half) = notify::watchdog() {
            tasks.spawn(watchdog(half));
        }
        let mut worker = Some(first);
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            let why = match worker.take() {
                Some(mut process) => match self.hear(&mut process, &mut signals).await {
                    Ended::Stop => {
                        self.stop(&mut process).await;
                        return Ok(());
                    }
                    Ended::Died(why) => why,
                },
                None => String::new(),
            };
            if !why.is_empty() {
                self.bury(why);
            }
            if began.elapsed() > GOOD {
                pause = Duration::ZERO;
            }
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::Stop => return Ok(()),
                    Asked::Reload => tracing::warn!("there is no worker: the configuration is not read again now"),
                },
                next = self.next_worker(seat, pause) => match next {
                    Ok(next) => worker = Some(next),
                    Err(why) => {
                        self.restarts.fetch_add(1, Ordering::Relaxed);
                        tracing::error!("the worker did not start: {why:#}");
                    }
                },
            }
            pause = LONGEST_PAUSE.min((pause * 2).max(FIRST_PAUSE));
        }
    }

    async fn next_worker(&self, seat: &Seat, pause: Duration) -> anyhow::Result<Process> {
        sleep(pause).await;
        let start = Start {
            version: VERSION,
            since: self.since,
            restarts: self.restarts.load(Ordering::Relaxed),
            last_end: self.last_end().clone(),
        };
        Process::start(seat, &self.settings.load(), start).await
    }

    fn last_end(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the worker everything it needs and hears it until it ends or a stop is asked for.
    async fn hear(self: &Arc<Self>, process: &mut Process, signals: &mut Signals) -> Ended {
        let channel = process.channel.clone();
        let begun = self.listening.hand_over(|| self.desk.serve(channel.clone()));
        let _writing = match begun {
            Ok(writing) => writing,
            Err(error) => {
                process.kill().await;
                return Ended::Died(format!("its listeners cannot be handed over: {error}"));
            }
        };
        self.say_proof();
        self.canary.send();
        tracing::info!(
            pid = process.id(),
            version = env!("CARGO_PKG_VERSION"),
            "guard-agent serves"
        );
        notify::notify("READY=1");
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut silent = Instant::now() + SILENT;
        loop {
            tokio::select! {
                received = channel.receive() => match received {
                    Ok(Some(received)) => {
                        silent = Instant::now() + SILENT;
                        if let Err(error) = self.take(received, &room) {
                            process.kill().await;
                            return Ended::Died(format!("it said something that is not understood: {error}"));
                        }
                    }
                    Ok(None) => return Ended::Died(process.ended().await),
                    Err(error) => {
                        process.kill().await;
                        return Ended::Died(format!("the channel broke: {error}"));
                    }
                },
                () = self.desk.stuck() => {
                    process.kill().await;
                    return Ended::Died("it read no messages any more".to_owned());
                }
                () = sleep_until(silent) => {
                    process.kill().await;
                    return Ended::Died(format!("it was silent for {SILENT:?}"));
                }
                asked = signals.next() => match asked {
                    Asked::Stop => return Ended::Stop,
                    Asked::Reload => {
                        let keeper = self.clone();
                        tokio::spawn(async move {
                            if let Err(why) = keeper.reload().await {
                                tracing::error!(%why, "the configuration was not reloaded; the old one stays in force");
                            }
                        });
                    }
                },
            }
        }
    }

    /// Takes one message of the worker's.
    fn take(self: &Arc<Self>, mut received: Received, room: &Arc<Semaphore>) -> std::io::Result<()> {
        match received.message()? {
            FromWorker::Alive => {}
            FromWorker::Ask { id, ask } => match room.clone().try_acquire_owned() {
                Ok(place) => {
                    let keeper = self.clone();
                    let descriptors = std::mem::take(&mut received.descriptors);
                    tokio::spawn(async move {
                        keeper.answer(id, ask, descriptors).await;
                        drop(place);
                    });
                }
                Err(_full) => {
                    let answer = Answer::Busy;
                    self.desk.tell(ToWorker::Answer { id, answer });
                }
            },
            FromWorker::Reloaded { id, outcome } => self.reloaded(id, outcome),
            FromWorker::Ready { .. } | FromWorker::Failed(_) => {
                return Err(std::io::Error::other("it starts twice"));
            }
        }
        Ok(())
    }

    /// The worker is gone; its listeners stay, and connections wait in them.
    fn bury(&self, why: String) {
        self.desk.close();
        self.reloads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%why, "the worker ended: another one is started");
        *self.last_end() = Some(why);
    }

    /// Lets calls in flight end. New connections wait for the next keeper if the service manager keeps the listeners, and
    /// are refused otherwise.
    async fn stop(self: &Arc<Self>, process: &mut Process) {
        tracing::info!("stopping: calls in flight may end, new ones are refused");
        notify::notify("STOPPING=1");
        if !notify::is_managed() {
            self.listening.close_all();
        }
        self.desk.tell(ToWorker::Stop);
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let channel = process.channel.clone();
        let answering = async {
            while let Ok(Some(received)) = channel.receive().await {
                if self.take(received, &room).is_err() {
                    return;
                }
            }
        };
        if timeout(DRAIN + CLOSING, answering).await.is_err() {
            tracing::error!(
                "the worker did not end in time: it is killed, and what it held is charged at the next start"
            );
            process.kill().await;
            return;
        }
        let how = process.ended().await;
        tracing::info!(%how, "stopped; the programs stay in the kernel and refuse governed calls");
    }
}

async fn watchdog(half: Duration) {
    let mut ticks = interval(half);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notify::notify("WATCHDOG=1");
    }
}
