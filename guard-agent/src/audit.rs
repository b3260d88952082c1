//! One record per decision, redacted, in a hash chain.
//!
//! In: an [`AuditRecord`], in the slot that was taken before the call was forwarded. Out: one line in
//! `audit-YYYYMMDD-NNNNNN.jsonl`, mode 0640, append-only. On failure: no slot is given while records cannot be written
//! ([`AuditFull`]), so nothing happens that would leave no record.
//!
//! One thread writes; callers only hand over. Lines are synced to disk at most a second after they were written,
//! never one by one. Files rotate by day (UTC) and size; the chain goes on across files and restarts.
//!
//! **The chain.** `prev` is the `hash` of the record before (64 zeros for the very first one). `hash` is the SHA-256 of
//! the line without its last member, so that a person can check any line by hand:
//!
//! ```sh
//! sed -n 42p FILE | sed -E 's/,"hash":"sha256:[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum
//! sed -n 42p FILE | jq -r .hash
//! ```
//!
//! A line that a crash or a full disk left unfinished stays where it is; the next record (an alert, `audit.torn`) names
//! its length and hash, and [`verify`] accepts the unfinished line only with that record.
//!
//! No prompt, no reply, no tool argument is ever part of a record; key-shaped strings in what is are masked
//! ([`redact`]).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;

use crate::clock::SharedClock;

mod bound;
mod chain;
pub mod record;
pub mod redact;
pub mod tail;
mod verify;
mod writer;

pub use record::AuditRecord;
pub use verify::{Broken, VerifyReport, verify};

/// Records that may be waiting or about to come: as many calls can be in flight at once.
const SLOTS: usize = 4096;

/// What the audit log is opened with.
pub struct AuditSettings {
    /// Directory of the files; created with mode 0750 when missing.
    pub dir: PathBuf,
    /// Where the time comes from.
    pub clock: SharedClock,
}

/// Why the audit log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another process writes here.
    #[error("{0} is locked: another guard-agent writes this audit log")]
    Locked(PathBuf),
    /// A file could not be read, written or created.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A pattern of the redaction is not well formed.
    #[error("redaction pattern: {0}")]
    Pattern(#[from] regex::Error),
}

impl AuditError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// Why there is no slot for a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFull {
    /// Every slot is taken.
    #[error("{SLOTS} audit records are in flight")]
    Busy,
    /// Records cannot be written at present; the text says why. It is tried again every second.
    #[error("the audit log cannot be written: {0}")]
    Failing(String),
}

/// Counts for metrics and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStats {
    /// Records written since the start.
    pub written: u64,
    /// Records given up at shutdown because they could not be written.
    pub dropped: u64,
    /// Slots that were dropped without a record; each left a record that says so.
    pub abandoned: u64,
    /// Slots taken: calls in flight and records waiting.
    pub pending: usize,
    /// Why records cannot be written at present.
    pub failing: Option<String>,
    /// Hash of the last record. Kept on another machine, it shows when records are removed from the end.
    pub head: String,
}

/// The audit log of this host.
pub struct Audit {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the log, its slots and its writer share.
struct Shared {
    queue: SyncSender<Message>,
    clock: SharedClock,
    taken: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    abandoned: AtomicU64,
    failing: AtomicBool,
    status: Mutex<Status>,
}

/// What is too long for an atomic.
#[derive(Default)]
struct Status {
    failing: Option<String>,
    head: String,
}

enum Message {
    Record(Box<AuditRecord>),
    Stop,
}

impl Audit {
    /// Opens the directory, finds the end of the chain, and starts the writer.
    pub fn open(settings: AuditSettings) -> Result<Self, AuditError> {
        // Room for every slot and the stop message: handing over never waits.
        let (queue, records) = sync_channel(SLOTS + 1);
        let shared = Arc::new(Shared {
            queue,
            clock: Arc::clone(&settings.clock),
            taken: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            status: Mutex::default(),
        });
        let writer = writer::Writer::open(&settings.dir, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&records))
            .map_err(AuditError::io("the audit thread"))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Takes the place of one record, before what it will tell may happen. Never waits.
    pub fn slot(&self) -> Result<AuditSlot, AuditFull> {
        if self.shared.failing.load(Ordering::Acquire) {
            let reason = self.shared.status().failing.clone();
            return Err(AuditFull::Failing(reason.unwrap_or_default()));
        }
        self.shared
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < SLOTS).then_some(taken + 1)
            })
            .map_err(|_taken| AuditFull::Busy)?;
        let about = About {
            since: self.shared.clock.now(),
            id: None,
            agent: None,
        };
        Ok(AuditSlot {
            shared: Arc::clone(&self.shared),
            about: Some(about),
        })
    }

    /// Counts for metrics and status.
    pub fn stats(&self) -> AuditStats {
        let status = self.shared.status();
        AuditStats {
            written: self.shared.written.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            abandoned: self.shared.abandoned.load(Ordering::Relaxed),
            pending: self.shared.taken.load(Ordering::Relaxed),
            failing: status.failing.clone(),
            head: status.head.clone(),
        }
    }
}

impl Drop for Audit {
    /// Waits until every record that was handed over is written and synced.
    fn drop(&mut self) {
        self.shared.send(Message::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the audit thread panicked");
        }
    }
}

impl Shared {
    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: Message) {
        match self.queue.try_send(message) {
            Ok(()) => {}
            // The queue has room for every slot, so only a writer that has ended refuses.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What is known about a slot when it is dropped.
struct About {
    since: Timestamp,
    id: Option<String>,
    agent: Option<Arc<str>>,
}

/// The place of one record. Dropped without one, it leaves a record that says so.
#[must_use = "a dropped slot is recorded as a lost record"]
pub struct AuditSlot {
    shared: Arc<Shared>,
    /// None once the record is handed over.
    about: Option<About>,
}

impl AuditSlot {
    /// Says whose record will come, in case it never does.
    pub fn expect(&mut self, id: &str, agent: &Arc<str>) {
        if let Some(about) = &mut self.about {
            about.id = Some(id.to_owned());
            about.agent = Some(Arc::clone(agent));
        }
    }

    /// Hands the record to the writer. Never waits.
    pub fn record(mut self, mut record: AuditRecord) {
        self.about = None;
        record.bound();
        self.shared.send(Message::Record(Box::new(record)));
    }

    /// Gives the place back: what was to be told did not happen.
    pub fn release(mut self) {
        self.about = None;
        self.shared.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for AuditSlot {
    fn drop(&mut self) {
        if let Some(About { since, id, agent }) = self.about.take() {
            self.shared.abandoned.fetch_add(1, Ordering::Relaxed);
            let record = AuditRecord::lost(self.shared.clock.now(), since, id, agent);
            self.shared.send(Message::Record(Box::new(record)));
        }
    }
}

#[cfg(test)]
mod tests;
