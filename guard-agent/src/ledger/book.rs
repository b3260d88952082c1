//! The counters: pure arithmetic on accounts, no files, no clock, no locks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use ulid::Ulid;

use super::{Amount, Amounts, Charge, Exhausted, Scope, ScopeKind, Unit, Window};

mod extend;
mod periods;
mod replay;
mod views;

/// Largest amount that an account counts: what a signed 64-bit column of `ledger.db` holds, 9.2 million dollars.
pub(super) const MOST: u64 = i64::MAX.unsigned_abs();

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
    /// What it counts; money where nothing is said.
    #[serde(default)]
    pub unit: Unit,
    /// Begin and end in microseconds since 1970; zero for a run.
    pub starts: i64,
    pub ends: i64,
}

impl PartialEq for AccountId {
    fn eq(&self, other: &Self) -> bool {
        self.starts == other.starts
            && self.window == other.window
            && self.unit == other.unit
            && self.scope == other.scope
    }
}

impl Eq for AccountId {}

impl Hash for AccountId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scope.hash(state);
        self.window.hash(state);
        self.unit.hash(state);
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

    fn amount(&self, count: u64) -> Amount {
        Amount {
            unit: self.unit,
            count,
        }
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
    pub amount: Amounts,
    pub accounts: Vec<AccountId>,
}

/// A charge, placed in its window.
#[derive(Debug)]
pub(super) struct Slot {
    pub account: AccountId,
    limit: u64,
}

/// In the unit of its id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Account {
    settled: u64,
    reserved: u64,
}

/// The buckets of a rolling account have this in common.
type Rolling = (Scope, Window, Unit);

/// All accounts and all open reservations.
#[derive(Debug, Default)]
pub(super) struct Book {
    accounts: HashMap<AccountId, Account>,
    held: BTreeMap<u64, Arc<Posting>>,
    /// Latest window begun, by kind: a clock that steps back stays in it.
    floors: HashMap<Window, (i64, i64)>,
    /// Begins of the buckets of each rolling account; some may be gone.
    buckets: HashMap<Rolling, BTreeSet<i64>>,
    /// Scopes of ended runs, until nothing is reserved in them.
    ended: HashSet<Scope>,
}

fn add(a: u64, b: u64) -> u64 {
    a.saturating_add(b).min(MOST)
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
                unit: charge.limit.unit,
                starts,
                ends,
            });
            let limit = charge.limit.count.min(MOST);
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
            let key = (id.scope.clone(), id.window, id.unit);
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
            .retain(|id, account| id.window != kind || !id.is_over(starts) || account.reserved != 0);
        let accounts = &self.accounts;
        self.buckets.retain(|(scope, window, unit), begins| {
            begins.retain(|starts| {
                let id = AccountId {
                    scope: scope.clone(),
                    window: *window,
                    unit: *unit,
                    starts: *starts,
                    ends: 0,
                };
                accounts.contains_key(&id)
            });
            !begins.is_empty()
        });
    }

    /// Whether an amount fits into every account. Where several stand in the way, one that is final is named first.
    /// What the call holds already (`own`) is as good as spent: it cannot wait for itself.
    pub(super) fn admit(&self, slots: &[Slot], amounts: &Amounts, own: &Amounts) -> Result<(), Exhausted> {
        let mut transient = None;
        for Slot { account: id, limit } in slots {
            let mut account = self.balance(id);
            let (amount, own) = (amounts.of(id.unit), own.of(id.unit));
            account.settled = add(account.settled, own);
            account.reserved = account.reserved.saturating_sub(own);
            let fits = |base: Option<u64>| {
                base.and_then(|b| b.checked_add(amount))
                    .is_some_and(|sum| sum <= *limit)
            };
            if fits(account.settled.checked_add(account.reserved)) {
                continue;
            }
            let exhausted = Exhausted {
                scope: id.scope.clone(),
                window: id.window,
                limit: id.amount(*limit),
                settled: id.amount(account.settled),
                reserved: id.amount(account.reserved),
                requested: id.amount(amount),
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
            account.reserved = add(account.reserved, posting.amount.of(key.unit));
        }
        self.held.insert(id, posting);
    }

    /// Ends a reservation at a cost (none: in full). Gives its posting, or `None` when there is no such reservation.
    pub(super) fn close(&mut self, id: u64, cost: Option<Amounts>) -> Option<Arc<Posting>> {
        let posting = self.held.remove(&id)?;
        let cost = cost.unwrap_or(posting.amount);
        for key in &posting.accounts {
            let over = self.is_over(key);
            let account = self.account(key);
            let held = posting.amount.of(key.unit);
            debug_assert!(
                account.reserved >= held,
                "an account holds less than its open reservations"
            );
            account.reserved = account.reserved.saturating_sub(held);
            account.settled = add(account.settled, cost.of(key.unit));
            if account.reserved == 0 && (over || self.ended.contains(&key.scope)) {
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
                .filter(|(id, account)| gone(id) && account.reserved != 0)
                .map(|(id, _)| id.scope.clone()),
        );
        self.accounts
            .retain(|id, account| !gone(id) || account.reserved != 0);
    }

    pub(super) fn posting(&self, id: u64) -> Option<&Posting> {
        self.held.get(&id).map(AsRef::as_ref)
    }

    /// Settled in this very account.
    pub(super) fn settled_in(&self, id: &AccountId) -> u64 {
        self.accounts.get(id).map_or(0, |account| account.settled)
    }

    pub(super) fn open_reservations(&self) -> Vec<u64> {
        self.held.keys().copied().collect()
    }

    /// In test builds: what each of these accounts has reserved is exactly the sum of its open reservations.
    fn debug_check_held(&self, touched: &Posting) {
        if !cfg!(debug_assertions) {
            return;
        }
        for id in &touched.accounts {
            let open = self.held.values().filter(|p| p.accounts.contains(id));
            let sum: u64 = open.map(|p| p.amount.of(id.unit)).sum();
            let reserved = self.accounts.get(id).map_or(0, |account| account.reserved);
            assert_eq!(sum, reserved, "{id:?}");
        }
    }
}
