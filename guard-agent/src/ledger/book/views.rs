//! The accounts, as people and gauges see them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Account, AccountId, Book, Rolling};
use crate::ledger::{AccountView, Amount, Charge, Window};

impl Book {
    /// What is settled of a charge's account.
    pub(in crate::ledger) fn settled(
        &self,
        charge: &Charge,
        now: Timestamp,
        tz: &TimeZone,
    ) -> Option<Amount> {
        let slots = self.place(std::slice::from_ref(charge), now, tz).ok()?;
        let account = &slots.first()?.account;
        Some(account.amount(self.balance(account).settled))
    }

    /// Every account of a window that has not ended, and every one that still has reservations.
    pub(in crate::ledger) fn views(&self, now: Timestamp) -> Vec<AccountView> {
        let calendar = self.accounts.iter().filter(|(id, account)| {
            id.window.rolling().is_none()
                && (id.window == Window::Run || id.ends > now.as_microsecond() || account.reserved != 0)
        });
        let mut views: Vec<_> = calendar
            .map(|(id, account)| AccountView {
                scope: id.scope.clone(),
                window: id.window,
                starts: id.bounds().map(|(starts, _)| starts),
                resets_at: id.bounds().map(|(_, ends)| ends),
                settled: id.amount(account.settled),
                reserved: id.amount(account.reserved),
            })
            .collect();
        views.extend(self.buckets.keys().filter_map(|key| self.rolling_view(key, now)));
        views.sort_by(|a, b| {
            let key = |v: &AccountView| {
                (
                    v.scope.kind.label(),
                    v.scope.name.clone(),
                    v.window.label(),
                    v.settled.unit,
                    v.starts,
                )
            };
            key(a).cmp(&key(b))
        });
        views
    }

    fn rolling_view(&self, (scope, window, unit): &Rolling, now: Timestamp) -> Option<AccountView> {
        let (length, _) = window.rolling()?;
        let floor = self.floors.get(window).map_or(i64::MIN, |floor| floor.0);
        let starts = now.as_microsecond().max(floor);
        let id = AccountId {
            scope: scope.clone(),
            window: *window,
            unit: *unit,
            starts,
            ends: starts,
        };
        let Account { settled, reserved } = self.balance(&id);
        (settled != 0 || reserved != 0).then(|| AccountView {
            scope: scope.clone(),
            window: *window,
            starts: Timestamp::from_microsecond(starts.saturating_sub(length)).ok(),
            resets_at: None,
            settled: id.amount(settled),
            reserved: id.amount(reserved),
        })
    }
}
