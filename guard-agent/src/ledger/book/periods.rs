//! Which period of a window is current, and what counts in it.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Account, AccountId, Book, NO_SESSION, SESSIONS, Slot, add};
use crate::ledger::escrow::Ask;
use crate::ledger::{Amounts, Scope, ScopeKind, Window, window};

impl Book {
    /// The window now. One that was entered stays until it has ended, whatever the clock and the time zone say meanwhile;
    /// where the window of another time zone would overlap it, it lasts until that one ends.
    pub(super) fn window(
        &self,
        kind: Window,
        now: Timestamp,
        tz: &TimeZone,
    ) -> Result<(i64, i64), jiff::Error> {
        let floor = self.floors.get(&kind).copied();
        let at = now.as_microsecond();
        if let Some(floor) = floor.filter(|(_, ends)| at < *ends) {
            return Ok(floor);
        }
        if let Some((_, bucket)) = kind.rolling() {
            let starts = at.div_euclid(bucket).saturating_mul(bucket);
            return Ok((starts, starts.saturating_add(bucket)));
        }
        let Some(bounds) = window::bounds(kind, now, tz)? else {
            return Ok((0, 0));
        };
        let (starts, ends) = (bounds.starts.as_microsecond(), bounds.ends.as_microsecond());
        Ok(match floor {
            Some((before, ended)) if starts < ended => (before, ends),
            Some(_) | None => (starts, ends),
        })
    }

    /// The account, or the one that sessions share when there are too many.
    pub(super) fn within_sessions(&self, account: AccountId) -> AccountId {
        if account.scope.kind != ScopeKind::Session || self.accounts.contains_key(&account) {
            return account;
        }
        let sessions = self
            .accounts
            .keys()
            .filter(|id| id.scope.kind == ScopeKind::Session);
        if sessions.count() < SESSIONS {
            return account;
        }
        let run = account.scope.name.split('/').next().unwrap_or_default();
        let scope = Scope {
            kind: ScopeKind::Session,
            name: format!("{run}/{NO_SESSION}").into(),
        };
        AccountId { scope, ..account }
    }

    /// Settled and reserved of an account; of a rolling one, in all its buckets that still count.
    pub(super) fn balance(&self, id: &AccountId) -> Account {
        if id.window.rolling().is_none() {
            return self.accounts.get(id).copied().unwrap_or_default();
        }
        let mut sum = Account::default();
        for (bucket, account) in self.buckets_of(id) {
            if !bucket.is_over(id.starts) {
                sum.settled = add(sum.settled, account.settled);
            }
            // A call in flight counts until it ends.
            sum.reserved = add(sum.reserved, account.reserved);
        }
        sum
    }

    fn buckets_of(&self, id: &AccountId) -> impl Iterator<Item = (AccountId, Account)> {
        let starts = self.buckets.get(&(id.scope.clone(), id.window, id.unit));
        starts.into_iter().flatten().filter_map(|starts| {
            let bucket = AccountId {
                starts: *starts,
                ..id.clone()
            };
            let (bucket, account) = self.accounts.get_key_value(&bucket)?;
            Some((bucket.clone(), *account))
        })
    }

    /// When there will be room: at the end of the window, or when enough of a rolling one has passed.
    pub(super) fn resets_at(
        &self,
        id: &AccountId,
        balance: Account,
        limit: u64,
        amount: u64,
    ) -> Option<Timestamp> {
        let Some((length, _)) = id.window.rolling() else {
            return id.bounds().map(|(_, ends)| ends);
        };
        let mut left = balance.settled;
        for (bucket, account) in self.buckets_of(id) {
            left = left.saturating_sub(account.settled);
            if !bucket.is_over(id.starts) && left.checked_add(amount).is_some_and(|sum| sum <= limit) {
                return Timestamp::from_microsecond(bucket.ends.saturating_add(length)).ok();
            }
        }
        None
    }

    /// What each account comes to with this amount, and what is left below its limit then.
    pub(in crate::ledger) fn asks<'a>(&self, slots: &'a [Slot], amounts: &Amounts) -> Vec<Ask<'a>> {
        slots
            .iter()
            .map(|Slot { account, limit }| {
                let amount = amounts.of(account.unit);
                let all = self.balance(account);
                let used = add(add(all.settled, all.reserved), amount);
                Ask {
                    account,
                    total: add(self.total(account), amount),
                    amount,
                    limit: *limit,
                    room: limit.saturating_sub(used),
                }
            })
            .collect()
    }

    /// Settled and reserved in this very account; of a rolling one, in this bucket.
    pub(in crate::ledger) fn total(&self, id: &AccountId) -> u64 {
        self.accounts
            .get(id)
            .map_or(0, |account| add(account.settled, account.reserved))
    }
}
