//! Leases: how far each account may be reserved before the disk has to hear of it again.
//!
//! In: what an account comes to with a new reservation. Out: whether a lease that is on disk covers it; if not, a larger
//! lease to write, and the record whose fsync the call has to wait for. On failure: nothing here can fail.
//!
//! A lease is a ceiling: a promise, on disk before any money is spent under it, that settled and reserved together stay
//! below it. What is journalled after the last fsync can be lost with the power, but what was spent cannot have passed
//! the ceiling, so the next start books each account up to it: a limit can be reached early, never passed.
//!
//! A lease ends when all reservations under it are on disk themselves and none was made for a while, or after a clean
//! stop.

use std::collections::{HashMap, VecDeque};

use super::Window;
use super::book::AccountId;
use super::record::{Numbered, Record};

/// A lease is at most this part of the limit: as much of it a power loss can take at most.
const PART: u64 = 16;
/// A first lease is for this many calls.
const CALLS: u64 = 4;
/// A lease that is used up sooner than this is followed by one twice as large (microseconds).
const BUSY: i64 = 1_000_000;
/// A lease under which nothing was reserved for this long ends (microseconds).
const IDLE: i64 = 60_000_000;

/// What one account comes to with a new reservation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub account: &'a AccountId,
    /// Settled and reserved, the new reservation included.
    pub total: u64,
    /// The new reservation.
    pub amount: u64,
    pub limit: u64,
    /// What is left below the limit then.
    pub room: u64,
}

/// Whether a reservation is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// By what is on disk.
    Covered,
    /// By a lease in the record of this number, which is not on disk yet.
    Once(u64),
    /// By a lease up to this much, which is to be written first. `ahead`: the one on disk covers this call still.
    Raise { ceiling: u64, ahead: bool },
}

#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    /// On disk.
    durable: u64,
    /// Written, and in which record.
    pending: Option<(u64, u64)>,
    /// How far above the account's total the last one went.
    step: u64,
    raised: i64,
    used: i64,
    /// The last record that reserved in the account.
    touched: u64,
}

/// The leases of all accounts.
#[derive(Debug, Default)]
pub(super) struct Escrow {
    leases: HashMap<AccountId, Lease>,
    /// Which leases become durable with which record.
    pending: VecDeque<(u64, AccountId)>,
}

impl Escrow {
    /// Looks whether a reservation is covered.
    pub(super) fn ask(&self, ask: &Ask<'_>, now: i64) -> Answer {
        let lease = self.leases.get(ask.account).copied().unwrap_or_default();
        let step = lease.next_step(ask, now);
        let ceiling = ask.total.saturating_add(step);
        if ask.total <= lease.durable {
            let half_used = ask.total.saturating_add(lease.step / 2) > lease.durable;
            let worthwhile = ceiling > lease.durable.saturating_add(lease.step / 4);
            if half_used && worthwhile && lease.pending.is_none() {
                return Answer::Raise { ceiling, ahead: true };
            }
            return Answer::Covered;
        }
        match lease.pending {
            Some((pending, record)) if ask.total <= pending => Answer::Once(record),
            Some(_) | None => Answer::Raise {
                ceiling,
                ahead: false,
            },
        }
    }

    /// How far an account may go without another record, on disk or not.
    pub(super) fn ceiling(&self, account: &AccountId) -> u64 {
        self.leases.get(account).map_or(0, Lease::ceiling)
    }

    /// A lease was written in the record of this number.
    pub(super) fn raised(&mut self, account: &AccountId, ceiling: u64, total: u64, record: u64, now: i64) {
        let lease = self.leases.entry(account.clone()).or_default();
        lease.pending = Some((ceiling, record));
        lease.step = ceiling.saturating_sub(total);
        (lease.raised, lease.used) = (now, now);
        self.pending.push_back((record, account.clone()));
    }

    /// A reservation was written in the record of this number.
    pub(super) fn touch(&mut self, account: &AccountId, record: u64, now: i64) {
        if let Some(lease) = self.leases.get_mut(account) {
            (lease.touched, lease.used) = (record, now);
        }
    }

    /// Every record up to this one is on disk.
    pub(super) fn synced(&mut self, record: u64) {
        while let Some((_, account)) = self.pending.pop_front_if(|(pending, _)| *pending <= record) {
            if let Some(lease) = self.leases.get_mut(&account)
                && let Some((ceiling, at)) = lease.pending
                && at <= record
            {
                (lease.durable, lease.pending) = (ceiling, None);
            }
        }
    }

    /// Ends the leases that protect nothing: all reservations under them are on disk, and the account is not in use, or
    /// its window is over. Gives the accounts.
    pub(super) fn lift(&mut self, synced: u64, now: i64) -> Vec<AccountId> {
        let mut lifted = Vec::new();
        self.leases.retain(|account, lease| {
            let over = account.window != Window::Run && account.ends <= now;
            let idle = now.saturating_sub(lease.used) >= IDLE;
            let keep = lease.touched > synced || lease.pending.is_some() || !(over || idle);
            if !keep {
                lifted.push(account.clone());
            }
            keep
        });
        lifted
    }

    /// Drops the leases of accounts that left for good.
    pub(super) fn forget(&mut self, gone: impl Fn(&AccountId) -> bool) {
        self.leases.retain(|account, _| !gone(account));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Every lease, as a checkpoint holds it.
    pub(super) fn standing(&self) -> Vec<(AccountId, u64)> {
        self.leases
            .iter()
            .map(|(account, lease)| (account.clone(), lease.ceiling()))
            .collect()
    }

    /// A new segment begins with all leases in the record of this number.
    pub(super) fn rewritten(&mut self, record: u64) {
        self.pending.clear();
        for (account, lease) in &mut self.leases {
            let ceiling = lease.ceiling();
            if lease.pending.is_some() {
                lease.pending = Some((ceiling, record));
                self.pending.push_back((record, account.clone()));
            }
        }
    }

    /// Applies a record that was read back. What is read may not be on disk yet: it counts as just written.
    pub(super) fn replay(&mut self, numbered: &Numbered) {
        match &numbered.record {
            Record::Checkpoint { leases, .. } => {
                *self = Self::default();
                self.read(leases, numbered.seq);
            }
            Record::Lease { leases, .. } => self.read(leases, numbered.seq),
            Record::Stopped { .. } => *self = Self::default(),
            Record::Reserve { posting, at, .. } | Record::Extend { posting, at, .. } => {
                for account in &posting.accounts {
                    self.touch(account, numbered.seq, *at);
                }
            }
            Record::Close { .. } | Record::Forget { .. } | Record::Opened { .. } => {}
        }
    }

    fn read(&mut self, leases: &[(AccountId, u64)], record: u64) {
        for (account, ceiling) in leases {
            if *ceiling == 0 {
                self.leases.remove(account);
                continue;
            }
            let lease = self.leases.entry(account.clone()).or_default();
            lease.pending = Some((*ceiling, record));
            lease.touched = record;
            self.pending.push_back((record, account.clone()));
        }
    }
}

impl Lease {
    fn ceiling(&self) -> u64 {
        self.pending.map_or(self.durable, |(ceiling, _)| ceiling)
    }

    /// How far above the total a new lease goes.
    fn next_step(&self, ask: &Ask<'_>, now: i64) -> u64 {
        let few = ask.amount.saturating_mul(CALLS);
        let busy = (0..BUSY).contains(&now.saturating_sub(self.raised));
        let step = if busy {
            few.max(self.step.saturating_mul(2))
        } else {
            few
        };
        step.min(ask.limit / PART).min(ask.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Scope, ScopeKind, Unit};

    const SECOND: i64 = 1_000_000;

    fn account() -> AccountId {
        AccountId {
            scope: Scope {
                kind: ScopeKind::Agent,
                name: "a".into(),
            },
            window: Window::Day,
            unit: Unit::Usd,
            starts: 0,
            ends: 1000 * SECOND,
        }
    }

    fn ask(account: &AccountId, total: u64) -> Ask<'_> {
        Ask {
            account,
            total,
            amount: 10,
            limit: 16_000,
            room: 16_000 - total,
        }
    }

    #[test]
    fn a_lease_covers_nothing_before_it_is_on_disk() {
        let account = account();
        let mut escrow = Escrow::default();
        let raise = escrow.ask(&ask(&account, 10), 0);
        let ceiling = 50;
        assert_eq!(
            raise,
            Answer::Raise {
                ceiling,
                ahead: false
            }
        );
        escrow.raised(&account, ceiling, 10, 7, 0);
        assert_eq!(escrow.ask(&ask(&account, 20), 0), Answer::Once(7));
        escrow.synced(6);
        assert_eq!(escrow.ask(&ask(&account, 20), 0), Answer::Once(7));
        escrow.synced(7);
        assert_eq!(escrow.ask(&ask(&account, 20), 0), Answer::Covered);
        // Half of it is used: the next one is written before a call has to wait for it, and twice as large.
        let raise = escrow.ask(&ask(&account, 40), SECOND / 2);
        assert_eq!(
            raise,
            Answer::Raise {
                ceiling: 120,
                ahead: true
            }
        );
    }

    #[test]
    fn a_lease_stays_below_the_limit_and_is_a_small_part_of_it() {
        let account = account();
        let escrow = Escrow::default();
        let large = Ask {
            amount: 8000,
            ..ask(&account, 8000)
        };
        let Answer::Raise { ceiling, .. } = escrow.ask(&large, 0) else {
            panic!("not covered");
        };
        assert_eq!(ceiling, 9000);
        let last = Ask {
            amount: 8000,
            ..ask(&account, 15_990)
        };
        let Answer::Raise { ceiling, .. } = escrow.ask(&last, 0) else {
            panic!("not covered");
        };
        assert_eq!(ceiling, 16_000);
    }

    #[test]
    fn a_lease_ends_when_idle_or_over_and_not_before_its_reservations_are_on_disk() {
        let account = account();
        let mut escrow = Escrow::default();
        escrow.raised(&account, 50, 10, 7, 0);
        escrow.touch(&account, 8, 0);
        escrow.synced(7);
        assert_eq!(escrow.lift(7, 100 * SECOND), [], "a reservation is not on disk");
        assert_eq!(escrow.lift(8, 30 * SECOND), [], "in use");
        assert_eq!(escrow.lift(8, 60 * SECOND), std::slice::from_ref(&account));
        escrow.raised(&account, 50, 10, 9, 999 * SECOND);
        assert_eq!(escrow.lift(9, 1000 * SECOND), [], "not on disk itself");
        escrow.synced(9);
        assert_eq!(escrow.lift(9, 1000 * SECOND), [account]);
        assert!(escrow.is_empty());
    }
}
