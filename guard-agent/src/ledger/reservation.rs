//! What is held for one call, and the ways in which it ends.

use std::sync::Arc;

use super::record::Outcome;
use super::{Amounts, Charge, Ended, Inner, ReserveError, Settled};

/// Money, tokens and the call itself, set aside for one call in all its accounts. Settle it or release it; dropped, it is charged in full.
#[must_use = "a dropped reservation is charged in full"]
pub struct Reservation {
    inner: Arc<Inner>,
    id: u64,
    amount: Amounts,
    open: bool,
}

impl Reservation {
    pub(super) fn new(inner: &Arc<Inner>, id: u64, amount: Amounts) -> Self {
        Self {
            inner: Arc::clone(inner),
            id,
            amount,
            open: true,
        }
    }

    /// Sets more aside for the same call, in the accounts that it is in: all of them or none. `charges` are the limits in
    /// force now; an account that none of them names any more is not limited any more.
    ///
    /// # Errors
    /// A limit stands in the way, or the journal cannot be written; what was reserved before stays.
    pub fn extend(&mut self, more: Amounts, charges: &[Charge]) -> Result<(), ReserveError> {
        self.inner.extend(self.id, more, charges)?;
        self.amount = self.amount.plus(&more);
        Ok(())
    }

    /// What was reserved.
    pub fn amount(&self) -> Amounts {
        self.amount
    }

    /// Books what the call did use. More than the reservation is booked in full and flagged.
    pub fn settle(self, used: impl Into<Amounts>) -> Settled {
        self.settle_as(used, None)
    }

    /// As [`Self::settle`], with what reports are to know of the call's end.
    pub fn settle_as(mut self, used: impl Into<Amounts>, ended: Option<Ended>) -> Settled {
        self.open = false;
        let cost = self
            .inner
            .close(self.id, Some(used.into()), Outcome::Settled, ended);
        Settled {
            cost,
            reserved: self.amount,
            overrun: cost.exceeds(&self.amount),
        }
    }

    /// The call never reached the provider: nothing is booked.
    pub fn release(mut self) {
        self.open = false;
        self.inner
            .close(self.id, Some(Amounts::ZERO), Outcome::Released, None);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.open {
            self.inner.close(self.id, None, Outcome::Abandoned, None);
        }
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation")
            .field("id", &self.id)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}
