//! What is held for one call, and the ways in which it ends.

use std::sync::Arc;

use tokio::sync::watch;

use super::record::Outcome;
use super::state::Held;
use super::{Amounts, Charge, Ended, Inner, ReserveError, Settled};

/// Money, tokens and the call itself, set aside for one call in all its accounts. Settle it or release it; dropped, it is charged in full.
#[must_use = "a dropped reservation is charged in full"]
pub struct Reservation {
    inner: Arc<Inner>,
    id: u64,
    amount: Amounts,
    /// The record that has to be on disk before anything is spent; zero when it is.
    needs: u64,
    open: bool,
}

/// Comes when what was reserved may be spent: should the power be lost then, it is on record.
#[derive(Debug)]
pub struct OnDisk {
    needs: u64,
    synced: watch::Receiver<u64>,
}

impl OnDisk {
    /// Waits for it. For ever, when the disk fails: bound it in time.
    pub async fn wait(mut self) {
        // The sender lives as long as the reservation does.
        if self
            .synced
            .wait_for(|synced| *synced >= self.needs)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }
}

impl Reservation {
    pub(super) fn new(inner: &Arc<Inner>, held: &Held) -> Self {
        Self {
            inner: Arc::clone(inner),
            id: held.id,
            amount: held.amount,
            needs: held.needs,
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

    /// What has to be waited for before the call is sent; none when a lease that is on disk covers it.
    pub fn on_disk(&self) -> Option<OnDisk> {
        let needs = self.needs;
        let synced = self.inner.signal.synced();
        let is_there = *synced.borrow() >= needs;
        (!is_there).then_some(OnDisk { needs, synced })
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
