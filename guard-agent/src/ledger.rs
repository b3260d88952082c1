//! Budgets: reserve before a call is forwarded, settle or release exactly once.
//!
//! In: charges (whose account, which window, which limit in dollars, tokens or calls) and the worst case of a call. Out: a `Reservation`, which is
//! neither `Clone` nor `Copy`, and consumed by `settle` or `release`; dropped, it is charged in full.
//! On failure: `Exhausted` (with the numbers that a refusal needs), or `Stopped` while the journal cannot be
//! written: nothing is admitted that is not on record.
//!
//! Counters live in memory (`ledger/book.rs`); before a reservation is handed out its record is in the kernel's page
//! cache by write(2) (`ledger/journal.rs`), so the death of this process loses nothing: what was reserved and neither
//! settled nor released is charged in full at the next start. One short mutex and one write(2) per step; no fsync.
//!
//! **Power loss.** A thread of its own fsyncs the journal about four times a second (`ledger/syncer.rs`). What was
//! journalled after the last fsync can be lost with the power; so each account has a lease (`ledger/escrow.rs`), a
//! ceiling that was on disk before anything was spent under it. After a start in another boot of the machine without a
//! clean stop, each account is booked up to its lease: a limit can be reached early, never passed. A call that does not
//! fit into the lease waits for the fsync of a larger one before it is sent (`Reservation::on_disk`).
//!
//! A call is charged to the window in which it was reserved, also when it is settled after that window ended. A clock
//! that steps backwards never re-opens a window, and a change of the time zone opens none early: each kind of window
//! stays in the latest one in which something was booked until that one has ended (`ledger/book/periods.rs`). The price of that rule: after a clock that ran far ahead, windows stay in that future until the clock is
//! there again, and `resets_at` says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use ulid::Ulid;

mod amount;
mod book;
mod codec;
mod escrow;
mod facts;
mod files;
mod frames;
mod journal;
mod opening;
mod record;
mod recovery;
mod reservation;
mod rows;
mod sqlite;
mod state;
mod syncer;
mod text;
mod time;
mod types;
pub mod window;

pub use types::{
    AccountView, Cause, Charge, Exhausted, LedgerError, LedgerSettings, Recovery, ReserveError, Scope,
    ScopeKind, Settled,
};

pub use amount::{Amount, Amounts, Unit};
pub use book::NO_SESSION;
pub use facts::{Buckets, Caller, Ended};
pub use reservation::{OnDisk, Reservation};
pub use window::Window;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use codec::again;
use files::Files;
use opening::Ground;
use record::Outcome;
use state::State;
use syncer::Signal;
use time::Time;

/// The budget ledger of this host.
pub struct Ledger {
    inner: Arc<Inner>,
    syncer: Option<syncer::Syncer>,
    projector: Option<sqlite::Projector>,
}

/// What the ledger, its reservations and the projection share.
struct Inner {
    state: Mutex<State>,
    signal: Signal,
    files: Arc<dyn Files>,
    /// A segment longer than this is followed by a new one.
    segment_bytes: u64,
    timezone: TimeZone,
    time: Time,
    recovery: Recovery,
    /// Held for the life of the ledger: two daemons must not share one directory.
    _lock: std::fs::File,
}

impl Ledger {
    /// Opens (or creates) the ledger in a directory, replays its journal, charges what the previous process left open,
    /// and starts the thread that keeps `ledger.db`.
    pub fn open(settings: LedgerSettings) -> Result<Arc<Self>, LedgerError> {
        let dir = settings.dir.clone();
        let inner = Arc::new(Inner::open(settings, Ground::of(&dir))?);
        let syncer = syncer::Syncer::start(&inner)?;
        let projector = sqlite::Projector::start(dir, Arc::clone(&inner))?;
        Ok(Arc::new(Self {
            inner,
            syncer: Some(syncer),
            projector: Some(projector),
        }))
    }

    /// As `open`, without the threads that bring the journal to the disk and keep `ledger.db`.
    #[cfg(test)]
    fn without_threads(settings: LedgerSettings) -> Result<Arc<Self>, LedgerError> {
        let ground = Ground::of(&settings.dir);
        Ok(Arc::new(Self {
            inner: Arc::new(Inner::open(settings, ground)?),
            syncer: None,
            projector: None,
        }))
    }

    /// Reserves in every charge's account at once, each in its unit, or in none. The record is written before this returns.
    pub fn reserve(
        &self,
        call: Ulid,
        charges: &[Charge],
        amounts: impl Into<Amounts>,
    ) -> Result<Reservation, ReserveError> {
        self.reserve_for(call, charges, amounts, None)
    }

    /// As [`Self::reserve`], with what reports are to know of the call.
    ///
    /// # Errors
    /// A limit stands in the way, or the journal cannot be written.
    pub fn reserve_for(
        &self,
        call: Ulid,
        charges: &[Charge],
        amounts: impl Into<Amounts>,
        caller: Option<Caller>,
    ) -> Result<Reservation, ReserveError> {
        let reservation = Inner::reserve(&self.inner, call, charges, amounts.into(), caller);
        if let Some(projector) = &self.projector {
            projector.wake();
        }
        reservation
    }

    /// Settled of one account in its present window; none when the time is in no window.
    pub fn settled(&self, scope: &Scope, window: Window, unit: Unit) -> Option<Amount> {
        let charge = Charge {
            scope: scope.clone(),
            window,
            limit: Amount::none(unit),
        };
        let now = self.inner.now();
        self.inner.lock().book.settled(&charge, now, &self.inner.timezone)
    }

    /// Every account of a window that has not ended, and every account that still has reservations.
    pub fn accounts(&self) -> Vec<AccountView> {
        let now = self.inner.now();
        self.inner.lock().book.views(now)
    }

    /// Why nothing is admitted at present; none when all is well.
    pub fn stopped(&self) -> Option<String> {
        self.inner.lock().stopped().cloned()
    }

    /// By how much the wall clock is ahead of the time that passed, as long as nothing vouches for it: budgets go by the
    /// latter then.
    pub fn clock_held(&self) -> Option<SignedDuration> {
        self.inner.time.held()
    }

    /// The operator says that the wall clock is right.
    pub fn believe_clock(&self) {
        self.inner.time.believe();
    }

    /// What opening found.
    pub fn recovery(&self) -> Recovery {
        self.inner.recovery
    }

    /// A run has ended: its account leaves memory as soon as nothing is reserved in it (`ledger.db` keeps it).
    pub fn forget(&self, scope: &Scope) {
        let at = self.inner.now().as_microsecond();
        self.inner.lock().forget(scope, at);
        self.inner.signal.written();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Everything is brought to the disk first; then the projection catches up once more, so that a clean stop
        // leaves a complete `ledger.db`.
        if let Some(syncer) = self.syncer.take() {
            syncer.stop();
        }
        if let Some(projector) = self.projector.take() {
            projector.stop();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every step is complete or not begun when it could panic, so the state is sound after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.time.now()
    }

    fn reserve(
        inner: &Arc<Self>,
        call: Ulid,
        charges: &[Charge],
        amount: Amounts,
        caller: Option<Caller>,
    ) -> Result<Reservation, ReserveError> {
        let held = inner
            .lock()
            .reserve(call, charges, amount, caller, inner.now(), &inner.timezone)?;
        if held.raised {
            inner.signal.urgent();
        }
        inner.signal.written();
        Ok(Reservation::new(inner, &held))
    }

    /// Sets more aside for a reservation, in every account that it is in, within the limits in force now.
    fn extend(&self, id: u64, more: Amounts, charges: &[Charge]) -> Result<(), ReserveError> {
        let raised = self.lock().extend(id, more, charges, self.now())?;
        if raised {
            self.signal.urgent();
        }
        self.signal.written();
        Ok(())
    }

    /// The one place where a reservation ends. `cost` is none when it is charged in full.
    fn close(&self, id: u64, cost: Option<Amounts>, outcome: Outcome, ended: Option<Ended>) -> Amounts {
        let at = self.now().as_microsecond();
        let closed = self.lock().close(id, cost, outcome, ended, at);
        let Some((cost, overrun)) = closed else {
            return Amounts::ZERO;
        };
        if overrun {
            self.signal.urgent();
        }
        self.signal.written();
        cost
    }
}

#[cfg(test)]
mod tests;
