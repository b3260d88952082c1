//! The book from records, and as one.

use super::{AccountId, Book};
use crate::ledger::record::{Balance, Boot, Numbered, Record};

impl Book {
    /// Applies a record that was read back.
    pub(in crate::ledger) fn replay(&mut self, numbered: Numbered) {
        match numbered.record {
            Record::Checkpoint {
                accounts,
                held,
                floors,
                ..
            } => {
                *self = Self::default();
                for Balance { account, settled } in accounts {
                    self.account(&account).settled = settled;
                }
                for (id, posting) in held {
                    self.hold(id, posting);
                }
                self.floors = floors
                    .into_iter()
                    .map(|(kind, starts, ends)| (kind, (starts, ends)))
                    .collect();
            }
            Record::Reserve { posting, .. } => self.hold(numbered.seq, posting),
            Record::Extend { id, posting, .. } => {
                if self.held.contains_key(&id) {
                    self.grow(id, posting.amount);
                } else {
                    // Its reserve record is damaged.
                    self.hold(id, posting);
                }
            }
            Record::Close {
                id, cost, posting, ..
            } => {
                if self.close(id, Some(cost)).is_none() {
                    // Its reserve record is damaged: the cost is booked all the same.
                    self.hold(id, posting);
                    self.close(id, Some(cost));
                }
            }
            Record::Forget { scope, .. } => self.forget(&scope),
            Record::Lease { .. } | Record::Opened { .. } | Record::Stopped { .. } => {}
        }
    }

    /// Balances taken from the database, in place of a journal that is gone.
    pub(in crate::ledger) fn seed(&mut self, balances: Vec<Balance>) {
        for Balance { account, settled } in balances {
            self.enter(&account);
            let known = self.account(&account);
            known.settled = known.settled.max(settled);
        }
    }

    /// Everything, as the first record of a new segment.
    pub(in crate::ledger) fn checkpoint(
        &self,
        at: i64,
        leases: Vec<(AccountId, u64)>,
        boot: Option<Boot>,
    ) -> Record {
        Record::Checkpoint {
            at,
            leases,
            boot,
            accounts: self
                .accounts
                .iter()
                .map(|(id, account)| Balance {
                    account: id.clone(),
                    settled: account.settled,
                })
                .collect(),
            held: self
                .held
                .iter()
                .map(|(id, posting)| (*id, posting.clone()))
                .collect(),
            floors: self
                .floors
                .iter()
                .map(|(kind, (starts, ends))| (*kind, *starts, *ends))
                .collect(),
        }
    }
}
