//! The thread that brings the journal to the disk: never on a call's path, unless a call needs a larger lease.
//!
//! In: the end of the journal. Out: fsync, at once when a lease was written, else about four times a second; a new
//! segment when the current one is long; leases that ended. On failure: nothing is admitted, and it is tried again
//! every second, written anew, because what a failed fsync left of the old one is not known.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::record::Record;
use super::{Inner, LedgerError};

/// How long records wait for an fsync when no call does.
const GATHER: Duration = Duration::from_millis(250);
/// Between two tries while the disk fails.
const AGAIN: Duration = Duration::from_secs(1);
/// How often leases are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// How others wake the thread, and hear from it. Never blocks.
pub(super) struct Signal {
    written: AtomicBool,
    urgent: AtomicBool,
    stop: AtomicBool,
    thread: OnceLock<Thread>,
    synced: watch::Sender<u64>,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            written: AtomicBool::new(true),
            urgent: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            thread: OnceLock::new(),
            synced: watch::Sender::new(0),
        }
    }
}

impl Signal {
    /// Something was written.
    pub(super) fn written(&self) {
        if !self.written.load(Ordering::Relaxed) && !self.written.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Somebody waits for it to be on disk.
    pub(super) fn urgent(&self) {
        self.urgent.store(true, Ordering::Release);
        self.wake();
    }

    /// Number of the last record that is on disk.
    pub(super) fn synced(&self) -> watch::Receiver<u64> {
        self.synced.subscribe()
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// The thread.
pub(super) struct Syncer {
    inner: Arc<Inner>,
    thread: JoinHandle<()>,
}

impl Syncer {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self, LedgerError> {
        let shared = Arc::clone(inner);
        let thread = std::thread::Builder::new()
            .name("ledger-sync".into())
            .spawn(move || run(&shared))
            .map_err(LedgerError::io("the ledger-sync thread"))?;
        Ok(Self {
            inner: Arc::clone(inner),
            thread,
        })
    }

    /// Everything is brought to the disk, and marked as complete; waits for it.
    pub(super) fn stop(self) {
        self.inner.signal.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the ledger-sync thread panicked; the next start takes this for a crash");
        }
    }
}

fn run(inner: &Inner) {
    let signal = &inner.signal;
    signal.thread.get_or_init(std::thread::current);
    let mut swept = Instant::now();
    while !signal.stop.load(Ordering::Acquire) {
        let failing = inner.lock().unsynced.is_some();
        if failing {
            std::thread::park_timeout(AGAIN);
        } else if signal.written.load(Ordering::Acquire) {
            gather(signal);
        } else if inner.lock().escrow.is_empty() {
            std::thread::park();
        } else {
            std::thread::park_timeout(SWEEP);
        }
        if failing || signal.written.load(Ordering::Acquire) || signal.urgent.load(Ordering::Acquire) {
            inner.sync_or_stop();
            inner.rotate_when_long();
        }
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            if inner.lock().lift(inner.now().as_microsecond()) {
                signal.written();
            }
        }
    }
    inner.mark_complete();
}

/// Waits for more to bring to the disk at once, but not when somebody waits for it.
fn gather(signal: &Signal) {
    let until = Instant::now() + GATHER;
    while !signal.urgent.load(Ordering::Acquire) && !signal.stop.load(Ordering::Acquire) {
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => std::thread::park_timeout(left),
            Some(_) | None => return,
        }
    }
}

impl Inner {
    /// Brings the journal to the disk. While that fails, nothing is admitted.
    pub(super) fn sync_or_stop(&self) {
        let failed = self.lock().unsynced.is_some();
        // What the old file has on disk is not known then: everything is written anew.
        let renewed = if failed { self.renew() } else { Ok(()) };
        let result = renewed.and_then(|()| self.sync());
        let mut state = self.lock();
        match result {
            Ok(()) if state.unsynced.take().is_some() => {
                tracing::warn!("the ledger's journal is on disk again: calls are admitted");
            }
            Ok(()) => {}
            Err(error) => {
                let reason = format!(
                    "{}: it cannot be brought to the disk: {error}",
                    state.journal.path().display()
                );
                if state.unsynced.is_none() {
                    tracing::error!(%reason, "no call is admitted until the ledger's journal is on disk");
                }
                state.unsynced = Some(reason);
            }
        }
    }

    /// One fsync of everything that was written when it began.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.signal.written.store(false, Ordering::Release);
        self.signal.urgent.store(false, Ordering::Release);
        let (unsynced, position, record) = {
            let state = self.lock();
            let record = state.journal.next_seq().saturating_sub(1);
            (state.journal.unsynced(), state.journal.position(), record)
        };
        if unsynced.directory {
            self.files.sync_directory()?;
        }
        for storage in &unsynced.storages {
            storage.sync()?;
        }
        let mut state = self.lock();
        state.journal.synced(&unsynced);
        state.synced = (position, record);
        state.escrow.synced(record);
        drop(state);
        self.signal.synced.send_replace(record);
        Ok(())
    }

    fn renew(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.boot.ticks = self.time.ticks();
        state.renew(self.now().as_microsecond())
    }

    pub(super) fn rotate_when_long(&self) {
        let mut state = self.lock();
        // What waits in `unwritten` is in a checkpoint already as done; its record must come first.
        if !state.journal.is_long(self.segment_bytes) || state.flush().is_err() {
            return;
        }
        state.boot.ticks = self.time.ticks();
        match state.rotate(self.now().as_microsecond()) {
            Ok(()) => self.signal.written(),
            Err(error) => {
                tracing::warn!(%error, "no new segment of the journal could be begun; the old one grows")
            }
        }
    }

    /// The last step of a clean stop: everything is on disk, then the mark that says so.
    pub(super) fn mark_complete(&self) {
        let at = self.now().as_microsecond();
        let marked = self.sync().and_then(|()| {
            // Nothing is reserved any more; what is settled meanwhile and gets lost is charged in full.
            let mut state = self.lock();
            state.flush().map_err(io::Error::other)?;
            state.append(&Record::Stopped { at }).map_err(io::Error::other)?;
            drop(state);
            self.sync()
        });
        if let Err(error) = marked {
            tracing::warn!(%error, "the journal could not be closed; after a power loss the next start charges open leases");
        }
    }
}
