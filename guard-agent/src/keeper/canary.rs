//! The canary: a process of Guard's own in a hidden governed cgroup, which tries to get out.
//!
//! In: the programs as they are at this moment. Out: what each door answered. On failure: a canary that got out, or one that
//! could not even try, means that nothing is proven, and the reason says which.
//!
//! It is governed as every agent is, under a number that no agent has. A TCP connection of its own must be refused or
//! arrive at the worker, which asks the keeper who called: the record that the kernel put on that very connection, told by
//! the socket's cookie, is the proof. Everything else must be refused.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Keeper;
use crate::kernel::{CANARY, cgroup};

mod doors;

pub(crate) use doors::fly;

use doors::{Answer, Door};

/// Below the cgroup root. No agent can have this name, so it is no run of anybody's.
const CGROUP: &str = "guard.slice/CANARY";
/// All doors together; each of the four that may be silent is given up after a second.
const FLIGHT: Duration = Duration::from_secs(10);
/// How long a connection may take to be seen at the worker.
const ARRIVES: Duration = Duration::from_secs(2);
/// Once it has come back with bad news it is sent again soon, for the good news.
const SOON: Duration = Duration::from_secs(2);
/// Before a first piece of bad news is believed: a worker that has just died is no way out.
const AGAIN: Duration = Duration::from_millis(200);
/// Most that it may say, in bytes.
const MOST: u64 = 64 * 1024;
/// Connections of earlier flights that are remembered.
const REMEMBERED: usize = 256;

/// Connections of the canary that have arrived at the worker, and when it is to be sent.
#[derive(Debug, Default)]
pub(super) struct Canary {
    arrived: Mutex<HashSet<u64>>,
    news: Notify,
    wanted: Notify,
}

impl Canary {
    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with this socket cookie has arrived.
    pub(super) fn arrived(&self, cookie: u64) {
        let mut arrived = self.lock();
        if arrived.len() >= REMEMBERED {
            arrived.clear();
        }
        arrived.insert(cookie);
        drop(arrived);
        self.news.notify_waiters();
    }

    /// Has it sent now.
    pub(super) fn send(&self) {
        self.wanted.notify_one();
    }

    async fn has_arrived(&self, cookie: u64) -> bool {
        let deadline = Instant::now() + ARRIVES;
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if self.lock().remove(&cookie) {
                return true;
            }
            if timeout_at(deadline, news).await.is_err() {
                return false;
            }
        }
    }
}

/// Sends it, again and again, and keeps what it saw.
pub(super) async fn keep(keeper: Arc<Keeper>) {
    loop {
        let seen = keeper.fly_and_believe().await;
        let good = seen.as_ref().is_none_or(Result::is_ok);
        if let Some(seen) = seen {
            keeper.canary_saw(seen);
        }
        let every = keeper.config.load().host.canary;
        let pause = if good { every } else { every.min(SOON) };
        // A reason to look sooner: something was put back, or another worker serves.
        drop(timeout(pause, keeper.canary.wanted.notified()).await);
    }
}

impl Keeper {
    /// What the canary saw; none while no worker is there to see it arrive.
    async fn fly_and_believe(&self) -> Option<Result<(), String>> {
        for again in [true, false] {
            if !self.desk.is_open() {
                return None;
            }
            let restarts = self.restarts.load(Ordering::Relaxed);
            let seen = self.fly().await;
            if seen.is_ok() || (!again && restarts == self.restarts.load(Ordering::Relaxed)) {
                return Some(seen);
            }
            sleep(AGAIN).await;
        }
        None
    }

    async fn fly(&self) -> Result<(), String> {
        let cannot =
            |what: &str, why: &dyn std::fmt::Display| format!("the canary cannot fly: {what}: {why}");
        let cage = self.cage().map_err(|why| cannot("its cgroup", &why))?;
        let said = flight(&cage, self.doors_ports())
            .await
            .map_err(|why| cannot("its process", &why))?;
        let answers: Vec<(Door, Answer)> =
            serde_json::from_slice(&said).map_err(|why| cannot("what it said", &why))?;
        if answers.len() != Door::ALL.len() {
            return Err(cannot("it", &"it did not try every door"));
        }
        for (door, answer) in answers {
            match answer {
                Answer::Refused(_) | Answer::Absent => {}
                Answer::Connected(cookie) if door.leads_here() => {
                    if !self.canary.has_arrived(cookie).await {
                        return Err(format!(
                            "the canary's connection ({}) was made and did not arrive here",
                            door.label()
                        ));
                    }
                }
                Answer::Connected(_) => {
                    return Err(format!("the canary got out: {} was not refused", door.label()));
                }
                Answer::Open(how) => {
                    return Err(format!(
                        "the canary got out: {} was not refused ({how})",
                        door.label()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Its cgroup, governed.
    fn cage(&self) -> Result<PathBuf, String> {
        let said = |why: &dyn std::fmt::Display| why.to_string();
        let directory = self.config.load().host.cgroup_root.join(CGROUP);
        fs::create_dir_all(&directory).map_err(|why| said(&why))?;
        let id = cgroup::id_of(&directory).map_err(|why| said(&why))?;
        let governed = &self.enforcement.governed;
        let known = governed.lookup(id).is_some_and(|found| found.agent == CANARY);
        if !known || !self.enforcement.kernel.is_governed(id) {
            governed
                .adopt_cgroup(&directory, CANARY, "canary")
                .map_err(|why| said(&why))?;
        }
        Ok(directory)
    }

    fn doors_ports(&self) -> [u16; 2] {
        let metrics = self.config.load().host.metrics.port();
        [metrics, self.enforcement.port]
    }
}

/// One flight: what the process said.
async fn flight(cage: &Path, [metrics, listener]: [u16; 2]) -> io::Result<Vec<u8>> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("guard-agent")
        .args(["canary", &metrics.to_string(), &listener.to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let said = timeout(FLIGHT, out_of_the_cage(&mut child, cage)).await;
    let said = said.map_err(|_elapsed| io::Error::other("it is not back"))??;
    child.wait().await?;
    Ok(said)
}

/// It makes no socket before it is inside: it waits for a word.
async fn out_of_the_cage(child: &mut Child, cage: &Path) -> io::Result<Vec<u8>> {
    let gone = || io::Error::other("it ended before it began");
    let pid = child.id().ok_or_else(gone)?;
    fs::write(cage.join("cgroup.procs"), pid.to_string())?;
    let mut word = child.stdin.take().ok_or_else(gone)?;
    word.write_all(b"fly\n").await?;
    drop(word);
    let mut said = Vec::new();
    let output = child.stdout.take().ok_or_else(gone)?;
    output.take(MOST).read_to_end(&mut said).await?;
    Ok(said)
}
