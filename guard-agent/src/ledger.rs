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
//! **Power loss.** A background thread fsyncs the journal about four times a second before it commits to `ledger.db`
//! (`ledger/sqlite.rs`). What was journalled after the last fsync can be lost with the power: up to a quarter of a
//! second of calls (a second, for settlements alone). There are no fsynced leases (escrow) yet.
//!
//! A call is charged to the window in which it was reserved, also when it is settled after that window ended. A clock
//! that steps backwards never re-opens a window, and a change of the time zone opens none early: each kind of window
//! stays in the latest one in which something was booked until that one has ended (`ledger/book/periods.rs`). The price of that rule: after a clock that ran far ahead, windows stay in that future until the clock is
//! there again, and `resets_at` says so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use ulid::Ulid;

use crate::clock::SharedClock;
use crate::money::Pico;

mod amount;
mod book;
mod codec;
mod facts;
mod files;
mod frames;
mod journal;
mod record;
mod recovery;
mod reservation;
mod rows;
mod sqlite;
mod text;
mod types;
pub mod window;

pub use types::{
    AccountView, Cause, Charge, Exhausted, LedgerError, LedgerSettings, Recovery, ReserveError, Scope,
    ScopeKind, Settled,
};

pub use amount::{Amount, Amounts, Unit};
pub use book::NO_SESSION;
pub use facts::{Buckets, Caller, Ended};
pub use reservation::Reservation;
pub use window::Window;

use book::{Book, Posting};
use files::{Directory, Files};
use journal::Journal;
use record::{Outcome, Record};

/// The budget ledger of this host.
pub struct Ledger {
    inner: Arc<Inner>,
    projector: Option<sqlite::Projector>,
}

/// What the ledger, its reservations and the projection share.
struct Inner {
    state: Mutex<State>,
    files: Arc<dyn Files>,
    timezone: TimeZone,
    clock: SharedClock,
    recovery: Recovery,
    /// Held for the life of the ledger: two daemons must not share one directory.
    _lock: std::fs::File,
}

struct State {
    book: Book,
    journal: Journal,
    /// Steps that happened but are not in the journal yet, because it could not be written. Bounded by the
    /// reservations that were open when writing failed, since nothing new is admitted meanwhile.
    unwritten: VecDeque<Record>,
    stopped: Option<String>,
}

impl Ledger {
    /// Opens (or creates) the ledger in a directory, replays its journal, charges what the previous process left open,
    /// and starts the thread that keeps `ledger.db`.
    pub fn open(settings: LedgerSettings) -> Result<Arc<Self>, LedgerError> {
        let dir = settings.dir.clone();
        let inner = Arc::new(Inner::open(settings)?);
        let projector = sqlite::Projector::start(dir, Arc::clone(&inner))?;
        Ok(Arc::new(Self {
            inner,
            projector: Some(projector),
        }))
    }

    /// As `open`, without the thread that keeps `ledger.db`.
    #[cfg(test)]
    fn without_projection(settings: LedgerSettings) -> Result<Arc<Self>, LedgerError> {
        let inner = Arc::new(Inner::open(settings)?);
        Ok(Arc::new(Self {
            inner,
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
        let now = self.inner.clock.now();
        self.inner.lock().book.settled(&charge, now, &self.inner.timezone)
    }

    /// Every account of a window that has not ended, and every account that still has reservations.
    pub fn accounts(&self) -> Vec<AccountView> {
        let now = self.inner.clock.now();
        self.inner.lock().book.views(now)
    }

    /// Why nothing is admitted at present; none when all is well.
    pub fn stopped(&self) -> Option<String> {
        self.inner.lock().stopped.clone()
    }

    /// What opening found.
    pub fn recovery(&self) -> Recovery {
        self.inner.recovery
    }

    /// A run has ended: its account leaves memory as soon as nothing is reserved in it (`ledger.db` keeps it).
    pub fn forget(&self, scope: &Scope) {
        let mut state = self.inner.lock();
        state.book.forget(scope);
        let record = Record::Forget {
            at: self.inner.clock.now().as_microsecond(),
            scope: scope.clone(),
        };
        state.note(record);
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // The projection catches up once more, so that a clean stop leaves a complete `ledger.db`.
        if let Some(projector) = self.projector.take() {
            projector.stop();
        }
    }
}

impl Inner {
    fn open(settings: LedgerSettings) -> Result<Self, LedgerError> {
        let LedgerSettings { dir, timezone, clock } = settings;
        let lock = journal::lock_directory(&dir)?;
        let files: Arc<dyn Files> = Arc::new(Directory(dir.clone()));
        let opened = recovery::recover(&files, &dir, clock.now(), sqlite::balances(&dir))?;
        let mut recovery = opened.recovery;
        let mut state = State {
            book: opened.book,
            journal: opened.journal,
            unwritten: VecDeque::new(),
            stopped: None,
        };
        let now = clock.now().as_microsecond();
        for id in state.book.open_reservations() {
            if let Some(posting) = state.book.close(id, None) {
                recovery.charged_in_full += 1;
                recovery.charged_amount = recovery
                    .charged_amount
                    .checked_add(posting.amount.usd)
                    .unwrap_or(Pico(u64::MAX));
                state.note(Record::Close {
                    at: now,
                    id,
                    cost: posting.amount,
                    outcome: Outcome::Recovered,
                    posting,
                    ended: None,
                });
            }
        }
        Ok(Self {
            state: Mutex::new(state),
            files,
            timezone,
            clock,
            recovery,
            _lock: lock,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every step below is complete or not begun when it could panic, so the state is sound after a panic elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(
        inner: &Arc<Self>,
        call: Ulid,
        charges: &[Charge],
        amount: Amounts,
        caller: Option<Caller>,
    ) -> Result<Reservation, ReserveError> {
        let now = inner.clock.now();
        let mut state = inner.lock();
        state.flush().map_err(ReserveError::Stopped)?;
        let slots = state
            .book
            .place(charges, now, &inner.timezone)
            .map_err(|e| ReserveError::Stopped(format!("the time {now} is in no window: {e}")))?;
        state
            .book
            .admit(&slots, &amount, &Amounts::ZERO)
            .map_err(ReserveError::Exhausted)?;
        // Only an amount that no limit bounds can be larger.
        let amount = amount.at_most(book::MOST);
        let posting = Arc::new(Posting {
            call,
            amount,
            accounts: slots.iter().map(|slot| slot.account.clone()).collect(),
        });
        let id = state.journal.next_seq();
        state
            .append(&Record::Reserve {
                at: now.as_microsecond(),
                posting: Arc::clone(&posting),
                caller: caller.map(Box::new),
            })
            .map_err(ReserveError::Stopped)?;
        state.book.hold(id, posting);
        debug_assert!(
            state.book.within_limits(&slots),
            "an admission took an account above its limit"
        );
        Ok(Reservation::new(inner, id, amount))
    }

    /// Sets more aside for a reservation, in every account that it is in, within the limits in force now.
    fn extend(&self, id: u64, more: Amounts, charges: &[Charge]) -> Result<(), ReserveError> {
        let more = more.at_most(book::MOST);
        let mut state = self.lock();
        state.flush().map_err(ReserveError::Stopped)?;
        let Some(posting) = state
            .book
            .more(id, more, charges)
            .map_err(ReserveError::Exhausted)?
        else {
            return Err(ReserveError::Stopped("the reservation is not open".to_owned()));
        };
        state
            .append(&Record::Extend {
                at: self.clock.now().as_microsecond(),
                id,
                posting: Arc::new(posting),
            })
            .map_err(ReserveError::Stopped)?;
        state.book.grow(id, more);
        Ok(())
    }

    /// The one place where a reservation ends. `cost` is none when it is charged in full.
    fn close(&self, id: u64, cost: Option<Amounts>, outcome: Outcome, ended: Option<Ended>) -> Amounts {
        let at = self.clock.now().as_microsecond();
        let mut state = self.lock();
        let Some(posting) = state.book.close(id, cost) else {
            return Amounts::ZERO;
        };
        let cost = cost.unwrap_or(posting.amount).at_most(book::MOST);
        state.note(Record::Close {
            at,
            id,
            cost,
            outcome,
            posting,
            ended: ended.map(Box::new),
        });
        cost
    }
}

impl State {
    /// Writes a record; a failure stops the ledger.
    fn append(&mut self, record: &Record) -> Result<(), String> {
        match self.journal.append(record) {
            Ok(()) => {
                self.stopped = None;
                Ok(())
            }
            Err(error) => {
                let reason = format!("{}: {error}", self.journal.path().display());
                if self.stopped.is_none() {
                    tracing::error!(%reason, "the ledger's journal cannot be written: no call is admitted until it can");
                }
                self.stopped = Some(reason.clone());
                Err(reason)
            }
        }
    }

    /// Writes a record of something that has happened already: kept for later when it cannot be written now. If the
    /// process dies first, the reservation is charged in full at the next start: no less than the call cost, unless it
    /// cost more than was reserved.
    fn note(&mut self, record: Record) {
        // Order counts: nothing overtakes what waits. `stopped` says so, and the next reserve tries again.
        if self.flush().is_err() || self.append(&record).is_err() {
            self.unwritten.push_back(record);
        }
    }

    /// Writes what is waiting, in order.
    fn flush(&mut self) -> Result<(), String> {
        while let Some(record) = self.unwritten.pop_front() {
            if let Err(why) = self.append(&record) {
                self.unwritten.push_front(record);
                return Err(why);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
