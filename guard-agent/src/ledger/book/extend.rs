//! More for a reservation that turned out too small.

use std::sync::Arc;

use super::{AccountId, Book, Posting, Slot, add};
use crate::ledger::{Amounts, Charge, Exhausted, NO_SESSION, ScopeKind};

impl Book {
    /// The addition as a posting, if it fits into every account of the reservation by the limits in force; none when
    /// there is no such reservation.
    pub(in crate::ledger) fn more(
        &self,
        id: u64,
        more: Amounts,
        charges: &[Charge],
    ) -> Result<Option<Posting>, Exhausted> {
        let Some(held) = self.held.get(&id) else {
            return Ok(None);
        };
        let slots: Vec<Slot> = held
            .accounts
            .iter()
            .filter_map(|account| {
                let limits = charges.iter().filter(|charge| counts_in(charge, account));
                let limit = limits.map(|charge| charge.limit.count).min()?;
                Some(Slot {
                    account: account.clone(),
                    limit: limit.min(super::MOST),
                })
            })
            .collect();
        self.admit(&slots, &more)?;
        Ok(Some(Posting {
            call: held.call,
            amount: more,
            accounts: held.accounts.clone(),
        }))
    }

    /// Sets the addition aside.
    pub(in crate::ledger) fn grow(&mut self, id: u64, more: Amounts) {
        let Some(before) = self.held.remove(&id) else {
            return;
        };
        for account in &before.accounts {
            let known = self.account(account);
            known.reserved = add(known.reserved, more.of(account.unit));
        }
        let posting = Posting {
            call: before.call,
            amount: before.amount.plus(&more),
            accounts: before.accounts.clone(),
        };
        self.held.insert(id, Arc::new(posting));
    }
}

/// Whether a limit is that of an account. One more session than are told apart is in the account of the others.
fn counts_in(charge: &Charge, account: &AccountId) -> bool {
    let same = charge.scope == account.scope
        || (account.scope.kind == ScopeKind::Session
            && charge.scope.kind == ScopeKind::Session
            && account.scope.name.split_once('/').is_some_and(|(run, label)| {
                label == NO_SESSION && charge.scope.name.split('/').next() == Some(run)
            }));
    same && charge.window == account.window && charge.limit.unit == account.unit
}
