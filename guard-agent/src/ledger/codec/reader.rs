//! Reading a record from the bytes of its payload.

use ulid::Ulid;

use super::{CHECKPOINT, CLOSE, EXTEND, FORGET, LEASE, OPENED, RESERVE, STOPPED};
use crate::ledger::book::{AccountId, Posting};
use crate::ledger::record::{Balance, Boot, Numbered, Outcome, Record};
use crate::ledger::{Amounts, Buckets, Caller, Cause, Ended, Scope, ScopeKind, Unit, Window};
use crate::money::Pico;

/// What is left to read of a payload.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The whole record; `None` where it is not one.
    pub(super) fn record(&mut self) -> Option<Numbered> {
        let [kind] = self.array()?;
        let seq = self.u64()?;
        let at = self.i64()?;
        let record = match kind {
            CHECKPOINT => Record::Checkpoint {
                at,
                accounts: self.list(|r| {
                    Some(Balance {
                        account: r.account()?,
                        settled: r.u64()?,
                    })
                })?,
                held: self.list(|r| Some((r.u64()?, r.posting()?.into())))?,
                floors: self.list(|r| Some((r.window()?, r.i64()?, r.i64()?)))?,
                leases: self.leases()?,
                boot: match self.list(Self::boot)?.as_slice() {
                    [] => None,
                    [one] => Some(*one),
                    _ => return None,
                },
            },
            RESERVE => Record::Reserve {
                at,
                posting: self.posting()?.into(),
                caller: self.option(Self::caller)?.map(Box::new),
            },
            EXTEND => Record::Extend {
                at,
                id: self.u64()?,
                posting: self.posting()?.into(),
            },
            CLOSE => Record::Close {
                at,
                id: self.u64()?,
                cost: self.amounts()?,
                outcome: self.one_of(&Outcome::ALL)?,
                posting: self.posting()?.into(),
                ended: self.option(Self::ended)?.map(Box::new),
            },
            FORGET => Record::Forget {
                at,
                scope: self.scope()?,
            },
            LEASE => Record::Lease {
                at,
                leases: self.leases()?,
            },
            OPENED => Record::Opened {
                at,
                boot: self.boot()?,
            },
            STOPPED => Record::Stopped { at },
            _ => return None,
        };
        Some(Numbered { seq, record })
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.count()?;
        // No item is empty: a count beyond what is left is wrong, and nothing is set aside for it.
        let mut items = Vec::with_capacity(count.min(self.0.len()));
        for _ in 0..count {
            items.push(each(self)?);
        }
        Some(items)
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let [place] = self.array()?;
        all.get(usize::from(place)).copied()
    }

    fn scope(&mut self) -> Option<Scope> {
        Some(Scope {
            kind: self.one_of(&ScopeKind::ALL)?,
            name: self.text()?.into(),
        })
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.count()?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.array()? {
            [0] => Some(None),
            [1] => Some(Some(some(self)?)),
            _ => None,
        }
    }

    fn caller(&mut self) -> Option<Caller> {
        Some(Caller {
            agent: self.text()?.into(),
            owner: self.text()?.into(),
            run: self.text()?.into(),
            provider: self.text()?.into(),
            model: self.text()?.into(),
            session: self.option(Self::text)?.map(Into::into),
            key: self.option(Self::text)?.map(Into::into),
        })
    }

    fn ended(&mut self) -> Option<Ended> {
        Some(Ended {
            cause: self.one_of(&Cause::ALL)?,
            status: Some(u16::from_le_bytes(self.array()?)).filter(|status| *status != 0),
            tokens: self.option(|r| {
                let counts = [r.u64()?, r.u64()?, r.u64()?, r.u64()?, r.u64()?];
                Some(Buckets::of(counts))
            })?,
            tools: self.list(|r| Some(r.text()?.into()))?,
        })
    }

    fn amounts(&mut self) -> Option<Amounts> {
        Some(Amounts {
            usd: Pico(self.u64()?),
            tokens: self.u64()?,
            calls: self.u64()?,
        })
    }

    fn window(&mut self) -> Option<Window> {
        let number = u32::from_le_bytes(self.array()?);
        if number <= Window::LONGEST_ROLLING {
            return (number > 0).then_some(Window::Rolling(number));
        }
        let place = usize::try_from(u32::MAX - number).ok()?;
        Window::CALENDAR.get(place).copied()
    }

    fn account(&mut self) -> Option<AccountId> {
        Some(AccountId {
            scope: self.scope()?,
            window: self.window()?,
            unit: self.one_of(&Unit::ALL)?,
            starts: self.i64()?,
            ends: self.i64()?,
        })
    }

    fn leases(&mut self) -> Option<Vec<(AccountId, u64)>> {
        self.list(|r| Some((r.account()?, r.u64()?)))
    }

    fn boot(&mut self) -> Option<Boot> {
        Some(Boot {
            id: u128::from_le_bytes(self.array()?),
            ticks: self.i64()?,
        })
    }

    fn posting(&mut self) -> Option<Posting> {
        Some(Posting {
            call: Ulid(u128::from_le_bytes(self.array()?)),
            amount: self.amounts()?,
            accounts: self.list(Self::account)?,
        })
    }
}
