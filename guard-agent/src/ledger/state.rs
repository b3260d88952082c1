//! Book, leases and journal together, under the ledger's one lock: what happened is on record in the order in which it
//! happened.
//!
//! In: steps. Out: their records. On failure: what is new is refused; what has happened already is kept and written
//! when it can be.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ulid::Ulid;

use super::book::{self, AccountId, Book, Posting, Slot};
use super::escrow::{Answer, Escrow};
use super::journal::{Journal, Position};
use super::record::{Boot, Outcome, Record};
use super::{Amounts, Caller, Charge, Ended, ReserveError, Scope};

pub(super) struct State {
    pub(super) book: Book,
    pub(super) escrow: Escrow,
    pub(super) journal: Journal,
    /// Steps that happened but are not in the journal yet, because it could not be written. Bounded by the
    /// reservations that were open when writing failed, since nothing new is admitted meanwhile.
    pub(super) unwritten: VecDeque<Record>,
    /// Why the journal cannot be written.
    stopped: Option<String>,
    /// Why it cannot be brought to the disk.
    pub(super) unsynced: Option<String>,
    /// What is on disk: up to this place, and up to the record of this number.
    pub(super) synced: (Position, u64),
    /// This boot of the machine.
    pub(super) boot: Boot,
}

/// An amount that was set aside.
pub(super) struct Held {
    pub(super) id: u64,
    pub(super) amount: Amounts,
    /// The record that has to be on disk before the money is spent; zero when that is so already.
    pub(super) needs: u64,
    /// A lease was written: the sooner it is on disk, the fewer calls wait for it.
    pub(super) raised: bool,
}

impl State {
    pub(super) fn new(book: Book, escrow: Escrow, journal: Journal, boot: Boot) -> Self {
        Self {
            book,
            escrow,
            journal,
            unwritten: VecDeque::new(),
            stopped: None,
            unsynced: None,
            synced: (Position::default(), 0),
            boot,
        }
    }

    /// Why nothing is admitted.
    pub(super) fn stopped(&self) -> Option<&String> {
        self.stopped.as_ref().or(self.unsynced.as_ref())
    }

    pub(super) fn reserve(
        &mut self,
        call: Ulid,
        charges: &[Charge],
        amounts: Amounts,
        caller: Option<Caller>,
        now: Timestamp,
        timezone: &TimeZone,
    ) -> Result<Held, ReserveError> {
        self.flush().map_err(ReserveError::Stopped)?;
        if let Some(why) = &self.unsynced {
            return Err(ReserveError::Stopped(why.clone()));
        }
        let slots = self
            .book
            .place(charges, now, timezone)
            .map_err(|e| ReserveError::Stopped(format!("the time {now} is in no window: {e}")))?;
        self.book
            .admit(&slots, &amounts, &Amounts::ZERO)
            .map_err(ReserveError::Exhausted)?;
        // Only an amount that no limit bounds can be larger.
        let amount = amounts.at_most(book::MOST);
        let at = now.as_microsecond();
        let (needs, raised) = self.lease(&slots, &amount, at).map_err(ReserveError::Stopped)?;
        let posting = Arc::new(Posting {
            call,
            amount,
            accounts: slots.iter().map(|slot| slot.account.clone()).collect(),
        });
        let id = self.journal.next_seq();
        self.append(&Record::Reserve {
            at,
            posting: Arc::clone(&posting),
            caller: caller.map(Box::new),
        })
        .map_err(ReserveError::Stopped)?;
        for account in &posting.accounts {
            self.escrow.touch(account, id, at);
        }
        self.book.hold(id, posting);
        debug_assert!(
            self.book.within_limits(&slots),
            "an admission took an account above its limit"
        );
        Ok(Held {
            id,
            amount,
            needs,
            raised,
        })
    }

    /// Sets more aside for a reservation, in every account that it is in, within the limits in force now. The lease is
    /// raised first, but nobody waits for the disk: the call is under way. Gives whether one was raised.
    pub(super) fn extend(
        &mut self,
        id: u64,
        more: Amounts,
        charges: &[Charge],
        now: Timestamp,
    ) -> Result<bool, ReserveError> {
        let more = more.at_most(book::MOST);
        self.flush().map_err(ReserveError::Stopped)?;
        if let Some(why) = &self.unsynced {
            return Err(ReserveError::Stopped(why.clone()));
        }
        let Some(posting) = self
            .book
            .more(id, more, charges)
            .map_err(ReserveError::Exhausted)?
        else {
            return Err(ReserveError::Stopped("the reservation is not open".to_owned()));
        };
        let at = now.as_microsecond();
        let raised = self
            .cover(&posting.accounts, &more, at)
            .map_err(ReserveError::Stopped)?;
        let record = self.journal.next_seq();
        let posting = Arc::new(posting);
        self.append(&Record::Extend {
            at,
            id,
            posting: Arc::clone(&posting),
        })
        .map_err(ReserveError::Stopped)?;
        for account in &posting.accounts {
            self.escrow.touch(account, record, at);
        }
        self.book.grow(id, more);
        Ok(raised)
    }

    /// Sees that leases cover an amount in every account. Gives the record that has to be on disk first, and whether a
    /// lease was written.
    fn lease(&mut self, slots: &[Slot], amount: &Amounts, now: i64) -> Result<(u64, bool), String> {
        let (mut needs, mut leases, mut waits) = (0, Vec::new(), false);
        for ask in self.book.asks(slots, amount) {
            match self.escrow.ask(&ask, now) {
                Answer::Covered => {}
                Answer::Once(record) => needs = needs.max(record),
                Answer::Raise { ceiling, ahead } => {
                    leases.push((ask.account.clone(), ceiling, ask.total));
                    waits |= !ahead;
                }
            }
        }
        if leases.is_empty() {
            return Ok((needs, false));
        }
        let record = self.raise(&leases, now)?;
        Ok((if waits { record } else { needs }, true))
    }

    /// Writes larger leases: account, ceiling, and what the account comes to at present.
    fn raise(&mut self, leases: &[(AccountId, u64, u64)], now: i64) -> Result<u64, String> {
        let record = self.journal.next_seq();
        let ceilings = leases
            .iter()
            .map(|(account, ceiling, _)| (account.clone(), *ceiling));
        self.append(&Record::Lease {
            at: now,
            leases: ceilings.collect(),
        })?;
        for (account, ceiling, total) in leases {
            self.escrow.raised(account, *ceiling, *total, record, now);
        }
        Ok(record)
    }

    /// The one place where a reservation ends. `cost` is none when it is charged in full. Gives what was booked, and
    /// whether it was more than reserved; `None` when there is no such reservation.
    pub(super) fn close(
        &mut self,
        id: u64,
        cost: Option<Amounts>,
        outcome: Outcome,
        ended: Option<Ended>,
        at: i64,
    ) -> Option<(Amounts, bool)> {
        let posting = self.book.close(id, cost)?;
        let cost = cost.unwrap_or(posting.amount).at_most(book::MOST);
        let overrun = cost.exceeds(&posting.amount);
        self.note(Record::Close {
            at,
            id,
            cost,
            outcome,
            posting: Arc::clone(&posting),
            ended: ended.map(Box::new),
        });
        if overrun && let Err(why) = self.cover(&posting.accounts, &Amounts::ZERO, at) {
            // It is spent already; the lease follows with the next call.
            tracing::warn!(%why, "a call cost more than was reserved, and no lease could be written for it");
        }
        Some((cost, overrun))
    }

    /// Raises the leases of accounts to what they come to with this much more, where they are below it. Gives whether
    /// there were such.
    fn cover(&mut self, accounts: &[AccountId], more: &Amounts, at: i64) -> Result<bool, String> {
        let above: Vec<_> = accounts
            .iter()
            .map(|account| {
                let total = self.book.total(account).saturating_add(more.of(account.unit));
                (account.clone(), total)
            })
            .filter(|(account, total)| *total > self.escrow.ceiling(account))
            .map(|(account, total)| (account, total, total))
            .collect();
        if above.is_empty() {
            return Ok(false);
        }
        self.raise(&above, at)?;
        Ok(true)
    }

    /// A run ended.
    pub(super) fn forget(&mut self, scope: &Scope, at: i64) {
        self.book.forget(scope);
        self.escrow.forget(|account| account.belongs_to(scope));
        self.note(Record::Forget {
            at,
            scope: scope.clone(),
        });
    }

    /// Ends leases that protect nothing any more. Gives whether there were such.
    pub(super) fn lift(&mut self, now: i64) -> bool {
        let lifted = self.escrow.lift(self.synced.1, now);
        if lifted.is_empty() {
            return false;
        }
        let leases = lifted.into_iter().map(|account| (account, 0));
        self.note(Record::Lease {
            at: now,
            leases: leases.collect(),
        });
        true
    }

    /// Everything, as the first record of a new segment.
    pub(super) fn checkpoint(&self, at: i64) -> Record {
        self.book.checkpoint(at, self.escrow.standing(), Some(self.boot))
    }

    /// Begins a new segment.
    pub(super) fn rotate(&mut self, at: i64) -> io::Result<()> {
        let record = self.journal.next_seq();
        let checkpoint = self.checkpoint(at);
        self.journal.rotate(&checkpoint)?;
        self.escrow.rewritten(record);
        Ok(())
    }

    /// Writes anew what the disk did not take.
    pub(super) fn renew(&mut self, at: i64) -> io::Result<()> {
        // What waits is in a checkpoint already as done; its record must come first.
        self.flush().map_err(io::Error::other)?;
        if self.journal.is_untaken() {
            return self.journal.write_again();
        }
        let record = self.journal.next_seq();
        let checkpoint = self.checkpoint(at);
        self.journal.renew(&checkpoint)?;
        self.escrow.rewritten(record);
        Ok(())
    }

    /// Writes a record; a failure stops the ledger.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), String> {
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
    pub(super) fn note(&mut self, record: Record) {
        // Order counts: nothing overtakes what waits. `stopped` says so, and the next reserve tries again.
        if self.flush().is_err() || self.append(&record).is_err() {
            self.unwritten.push_back(record);
        }
    }

    /// Writes what is waiting, in order.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        while let Some(record) = self.unwritten.pop_front() {
            if let Err(why) = self.append(&record) {
                self.unwritten.push_front(record);
                return Err(why);
            }
        }
        Ok(())
    }
}
