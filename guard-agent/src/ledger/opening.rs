//! Opening a ledger: what the last process left open is charged, and after a power loss what it may have spent beyond
//! what is on disk.

use std::path::Path;
use std::sync::{Arc, Mutex};

use ulid::Ulid;

use super::book::Posting;
use super::files::{Directory, Files};
use super::journal::{self, SEGMENT_BYTES};
use super::record::{Boot, Outcome, Record};
use super::state::State;
use super::syncer::Signal;
use super::time::Time;
use super::{Amounts, Inner, LedgerError, LedgerSettings, Recovery, Unit, recovery, sqlite};
use crate::money::Pico;

/// What lies below a ledger.
pub(super) struct Ground {
    pub(super) files: Arc<dyn Files>,
    /// Zero when the machine does not say in which boot it is.
    pub(super) boot: u128,
    pub(super) segment_bytes: u64,
}

impl Ground {
    /// A directory, in this boot of this machine.
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            files: Arc::new(Directory(dir.to_owned())),
            boot: boot_id(),
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let id = text
        .ok()
        .and_then(|text| u128::from_str_radix(&text.trim().replace('-', ""), 16).ok());
    id.unwrap_or_else(|| {
        tracing::warn!("this boot has no id: a crash of the daemon counts as a power loss");
        0
    })
}

impl Inner {
    pub(super) fn open(settings: LedgerSettings, ground: Ground) -> Result<Self, LedgerError> {
        let LedgerSettings { dir, timezone, clock } = settings;
        let Ground {
            files,
            boot,
            segment_bytes,
        } = ground;
        let lock = journal::lock_directory(&dir)?;
        let opened = recovery::recover(&files, &dir, clock.now(), sqlite::balances(&dir))?;
        let mut recovery = opened.recovery;
        let last = opened.last;
        let same = last.boot.filter(|last| last.id == boot && boot != 0);
        // The clock may have jumped while nobody looked.
        let known = same.filter(|boot| boot.ticks != 0);
        let time = Time::new(clock, known.map(|boot| (last.opened, boot.ticks)));
        let boot = Boot {
            id: boot,
            ticks: time.ticks(),
        };
        let mut state = State::new(opened.book, opened.escrow, opened.journal, boot);
        let now = time.now().as_microsecond();
        let power_lost = last.boot.is_some() && !last.closed && same.is_none();
        state.charge_open(now, power_lost, &mut recovery);
        if power_lost {
            state.charge_leases(now, &mut recovery);
        }
        state.note(Record::Opened { at: now, boot });
        Ok(Self {
            state: Mutex::new(state),
            signal: Signal::default(),
            files,
            segment_bytes,
            timezone,
            time,
            recovery,
            _lock: lock,
        })
    }
}

impl State {
    /// Charges what was reserved and never settled: in full. After a power loss many of these may have been settled, with
    /// the records of that lost; but nothing was spent above a lease, so no account is taken above its own.
    fn charge_open(&mut self, at: i64, power_lost: bool, recovery: &mut Recovery) {
        for id in self.book.open_reservations() {
            let most = power_lost.then(|| self.most(id)).flatten();
            if let Some((cost, _)) = self.close(id, most, Outcome::Recovered, None, at) {
                recovery.charged_in_full += 1;
                recovery.charged_amount = sum(recovery.charged_amount, cost.usd);
            }
        }
    }

    /// The most that an open reservation can have cost: its amount, within the lease of each account that has one. A lease
    /// that ended bounds nothing, and takes nothing from what the others bound.
    fn most(&self, id: u64) -> Option<Amounts> {
        let posting = self.book.posting(id)?;
        let mut most = posting.amount;
        for account in &posting.accounts {
            let ceiling = self.escrow.ceiling(account);
            if ceiling == 0 {
                continue;
            }
            let left = ceiling.saturating_sub(self.book.settled_in(account));
            most = with(most, account.unit, most.of(account.unit).min(left));
        }
        Some(most)
    }

    /// The power was lost: what was journalled last may be gone, but nothing was spent above a lease. Books each account
    /// up to its lease. Done again when the power is lost in the middle of it, it books what is left.
    fn charge_leases(&mut self, at: i64, recovery: &mut Recovery) {
        for (account, ceiling) in self.escrow.standing() {
            let amount = ceiling.saturating_sub(self.book.total(&account));
            // A window that has passed limits nothing any more, and its account may have left memory.
            if amount == 0 || self.book.is_over(&account) {
                continue;
            }
            let posting = Arc::new(Posting {
                call: Ulid::nil(),
                amount: with(Amounts::ZERO, account.unit, amount),
                accounts: vec![account],
            });
            let id = self.journal.next_seq().saturating_add(self.waiting());
            self.book.hold(id, posting);
            if let Some((cost, _)) = self.close(id, None, Outcome::PowerLost, None, at) {
                recovery.charged_leases += 1;
                recovery.charged_amount = sum(recovery.charged_amount, cost.usd);
            }
        }
    }

    fn waiting(&self) -> u64 {
        u64::try_from(self.unwritten.len()).unwrap_or(u64::MAX)
    }
}

/// These amounts with another count of one unit.
fn with(mut amounts: Amounts, unit: Unit, count: u64) -> Amounts {
    match unit {
        Unit::Usd => amounts.usd = Pico(count),
        Unit::Tokens => amounts.tokens = count,
        Unit::Calls => amounts.calls = count,
    }
    amounts
}

fn sum(a: Pico, b: Pico) -> Pico {
    a.checked_add(b).unwrap_or(Pico(u64::MAX))
}
