//! The counters: pure arithmetic on accounts, no files, no clock, no locks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use ulid::Ulid;

use super::{AccountView, Charge, Exhausted, Scope, ScopeKind, Window};
use crate::money::Pico;

mod periods;
mod replay;

/// Largest amount that an account counts: what a signed 64-bit column of `ledger.db` holds, 9.2 million dollars.
pub(super) const MOST: Pico = Pico(i64::MAX.unsigned_abs());

/// Sessions that are told apart at the same time. Labels are the client's word and only narrow, so one more than this
/// shares an account with the others of its run.
const SESSIONS: usize = 1024;
/// The label of those sessions, and of calls without a label.
pub const NO_SESSION: &str = "-";

/// One scope in one window (one bucket of a rolling one). Its end is no part of what it is: a change of the time zone
/// may put it off.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AccountId {
    pub scope: Scope,
    pub window: Window,
    /// Begin and end in microseconds since 1970; zero for a run.
    pub starts: i64,
    pub ends: i64,
}

impl PartialEq for AccountId {
    fn eq(&self, other: &Self) -> bool {
        self.starts == other.starts && self.window == other.window && self.scope == other.scope
    }
}

impl Eq for AccountId {}

impl Hash for AccountId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scope.hash(state);
        self.window.hash(state);
        self.starts.hash(state);
    }
}

impl AccountId {
    /// Whether nothing in it counts any more when a window of its kind begins at `now`.
    fn is_over(&self, now: i64) -> bool {
        match self.window.rolling() {
            Some((length, _)) => self.ends.saturating_add(length) <= now,
            None => self.starts < now,
        }
    }

    /// Whether it is a scope's own, or that of a session in a run.
    pub(super) fn belongs_to(&self, scope: &Scope) -> bool {
        let session = || {
            self.scope.kind == ScopeKind::Session
                && scope.kind == ScopeKind::Run
                && self
                    .scope
                    .name
                    .strip_prefix(&*scope.name)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        self.scope == *scope || session()
    }

    fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        if self.window == Window::Run {
            return None;
        }
        Some((
            Timestamp::from_microsecond(self.starts).ok()?,
            Timestamp::from_microsecond(self.ends).ok()?,
        ))
    }
}

/// An amount in all the accounts that one call is charged to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Posting {
    pub call: Ulid,
    pub amount: Pico,
    pub accounts: Vec<AccountId>,
}

/// A charge, placed in its window.
#[derive(Debug)]
pub(super) struct Slot {
    pub account: AccountId,
    limit: Pico,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Account {
    settled: Pico,
    reserved: Pico,
}

/// All accounts and all open reservations.
#[derive(Debug, Default)]
pub(super) struct Book {
    accounts: HashMap<AccountId, Account>,
    held: BTreeMap<u64, Arc<Posting>>,
    /// Latest window begun, by kind: a clock that steps back stays in it.
    floors: HashMap<Window, (i64, i64)>,
    /// Begins of the buckets of each rolling account; some may be gone.
    buckets: HashMap<(Scope, Window), BTreeSet<i64>>,
    /// Scopes of ended runs, until nothing is reserved in them.
    ended: HashSet<Scope>,
}

fn add(a: Pico, b: Pico) -> Pico {
    Pico(a.0.saturating_add(b.0)).min(MOST)
}

impl Book {
    /// Finds the account of each charge. Two charges to one account count once, at the lower limit.
    pub(super) fn place(
        &self,
        charges: &[Charge],
        now: Timestamp,
        tz: &TimeZone,
    ) -> Result<Vec<Slot>, jiff::Error> {
        let mut slots: Vec<Slot> = Vec::with_capacity(charges.len());
        for charge in charges {
            let (starts, ends) = self.window(charge.window, now, tz)?;
            let account = self.within_sessions(AccountId {
                scope: charge.scope.clone(),
                window: charge.window,
                starts,
                ends,
            });
            let limit = charge.limit.min(MOST);
            match slots.iter_mut().find(|slot| slot.account == account) {
                Some(slot) => slot.limit = slot.limit.min(limit),
                None => slots.push(Slot { account, limit }),
            }
        }
        Ok(slots)
    }

    /// The account with this id, made when it is new.
    fn account(&mut self, id: &AccountId) -> &mut Account {
        if id.window.rolling().is_some() {
            let key = (id.scope.clone(), id.window);
            self.buckets.entry(key).or_default().insert(id.starts);
        } else if self
            .accounts
            .get_key_value(id)
            .is_some_and(|(known, _)| known.ends < id.ends)
            && let Some(account) = self.accounts.remove(id)
        {
            // The latest end counts.
            self.accounts.insert(id.clone(), account);
        }
        self.accounts.entry(id.clone()).or_default()
    }

    /// Something is booked in a window: earlier ones of its kind are over.
    fn enter(&mut self, account: &AccountId) {
        let entered = (account.starts, account.ends);
        let floor = self.floors.entry(account.window).or_insert(entered);
        if entered > *floor {
            let later = entered.0 > floor.0;
            *floor = entered;
            if later {
                self.prune(account.window, entered.0);
            }
        }
    }

    /// Drops the accounts of earlier windows in which nothing is reserved any more.
    fn prune(&mut self, kind: Window, starts: i64) {
        self.accounts
            .retain(|id, account| id.window != kind || !id.is_over(starts) || account.reserved != Pico::ZERO);
        let accounts = &self.accounts;
        self.buckets.retain(|(scope, window), begins| {
            begins.retain(|starts| {
                let id = AccountId {
                    scope: scope.clone(),
                    window: *window,
                    starts: *starts,
                    ends: 0,
                };
                accounts.contains_key(&id)
            });
            !begins.is_empty()
        });
    }

    /// Whether an amount fits into every account. Where several stand in the way, one that is final is named first.
    pub(super) fn admit(&self, slots: &[Slot], amount: Pico) -> Result<(), Exhausted> {
        let mut transient = None;
        for Slot { account: id, limit } in slots {
            let account = self.balance(id);
            let fits = |base: Option<Pico>| {
                base.and_then(|b| b.checked_add(amount))
                    .is_some_and(|sum| sum <= *limit)
            };
            if fits(account.settled.checked_add(account.reserved)) {
                continue;
            }
            let exhausted = Exhausted {
                scope: id.scope.clone(),
                window: id.window,
                limit: *limit,
                settled: account.settled,
                reserved: account.reserved,
                requested: amount,
                resets_at: self.resets_at(id, account, *limit, amount),
                transient: fits(Some(account.settled)),
            };
            if !exhausted.transient {
                return Err(exhausted);
            }
            transient.get_or_insert(exhausted);
        }
        transient.map_or(Ok(()), Err)
    }

    /// Sets an admitted amount aside.
    pub(super) fn hold(&mut self, id: u64, posting: Arc<Posting>) {
        for key in &posting.accounts {
            self.enter(key);
            let account = self.account(key);
            account.reserved = add(account.reserved, posting.amount);
        }
        self.held.insert(id, posting);
    }

    /// Ends a reservation at a cost (none: in full). Gives its posting, or `None` when there is no such reservation.
    pub(super) fn close(&mut self, id: u64, cost: Option<Pico>) -> Option<Arc<Posting>> {
        let posting = self.held.remove(&id)?;
        let cost = cost.unwrap_or(posting.amount);
        for key in &posting.accounts {
            let over = self.is_over(key);
            let account = self.account(key);
            debug_assert!(
                account.reserved >= posting.amount,
                "an account holds less than its open reservations"
            );
            account.reserved = account.reserved.saturating_sub(posting.amount);
            account.settled = add(account.settled, cost);
            if account.reserved == Pico::ZERO && (over || self.ended.contains(&key.scope)) {
                self.accounts.remove(key);
            }
        }
        if !self.ended.is_empty() {
            self.ended
                .retain(|scope| self.accounts.keys().any(|id| id.scope == *scope));
        }
        self.debug_check_held(&posting);
        Some(posting)
    }

    /// Whether nothing booked in this account counts any more.
    pub(super) fn is_over(&self, id: &AccountId) -> bool {
        self.floors
            .get(&id.window)
            .is_some_and(|floor| id.is_over(floor.0))
    }

    /// A run ended, and its sessions with it.
    pub(super) fn forget(&mut self, scope: &Scope) {
        let gone = |id: &AccountId| id.belongs_to(scope);
        self.ended.remove(scope);
        self.ended.extend(
            self.accounts
                .iter()
                .filter(|(id, account)| gone(id) && account.reserved != Pico::ZERO)
                .map(|(id, _)| id.scope.clone()),
        );
        self.accounts
            .retain(|id, account| !gone(id) || account.reserved != Pico::ZERO);
    }

    pub(super) fn posting(&self, id: u64) -> Option<&Posting> {
        self.held.get(&id).map(AsRef::as_ref)
    }

    /// Settled in this very account.
    pub(super) fn settled(&self, id: &AccountId) -> Pico {
        self.accounts.get(id).map_or(Pico::ZERO, |account| account.settled)
    }

    pub(super) fn open_reservations(&self) -> Vec<u64> {
        self.held.keys().copied().collect()
    }

    pub(super) fn views(&self, now: Timestamp) -> Vec<AccountView> {
        let calendar = self.accounts.iter().filter(|(id, account)| {
            id.window.rolling().is_none()
                && (id.window == Window::Run
                    || id.ends > now.as_microsecond()
                    || account.reserved != Pico::ZERO)
        });
        let mut views: Vec<_> = calendar
            .map(|(id, account)| AccountView {
                scope: id.scope.clone(),
                window: id.window,
                starts: id.bounds().map(|(starts, _)| starts),
                resets_at: id.bounds().map(|(_, ends)| ends),
                settled: account.settled,
                reserved: account.reserved,
            })
            .collect();
        views.extend(self.buckets.keys().filter_map(|key| self.rolling_view(key, now)));
        views.sort_by(|a, b| {
            let key = |v: &AccountView| {
                (
                    v.scope.kind.label(),
                    v.scope.name.clone(),
                    v.window.label(),
                    v.starts,
                )
            };
            key(a).cmp(&key(b))
        });
        views
    }

    /// The promise, for one admission: no account that it touched is above its limit.
    pub(super) fn within_limits(&self, slots: &[Slot]) -> bool {
        slots.iter().all(|Slot { account, limit }| {
            let Account { settled, reserved } = self.balance(account);
            settled.checked_add(reserved).is_some_and(|sum| sum <= *limit)
        })
    }

    /// In test builds: what each of these accounts has reserved is exactly the sum of its open reservations.
    fn debug_check_held(&self, touched: &Posting) {
        if !cfg!(debug_assertions) {
            return;
        }
        for id in &touched.accounts {
            let open = self.held.values().filter(|p| p.accounts.contains(id));
            let sum: u64 = open.map(|p| p.amount.0).sum();
            let reserved = self.accounts.get(id).map_or(0, |account| account.reserved.0);
            assert_eq!(sum, reserved, "{id:?}");
        }
    }
}
