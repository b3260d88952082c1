//! The bytes of a record, written by hand: a call costs two of them, and JSON was most of that cost.
//!
//! A frame is a marker (with the version of the format), the length and the CRC-32 of the payload, and the payload:
//! kind, number, time, and the record's own fields. Integers are little-endian and of fixed size; lists and names have
//! their count first. Every record names its accounts in full, so each can be read without the others.

use super::book::{AccountId, Posting};
use super::record::{Balance, Boot, Numbered, Outcome, Record};
use super::{Amounts, Caller, Cause, Ended, Scope, ScopeKind, Unit, Window};

/// Begins every frame. No name that a client chooses can hold it: it has control characters.
pub(super) const MARKER: [u8; 4] = [0xa7, b'G', 0x03, 0x00];
/// Marker, length, checksum.
pub(super) const HEAD: usize = 12;
/// No payload is longer; a longer length field is damage, not a record.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

const CHECKPOINT: u8 = 1;
pub(super) const RESERVE: u8 = 2;
const CLOSE: u8 = 3;
const FORGET: u8 = 4;
pub(super) const EXTEND: u8 = 5;
const LEASE: u8 = 6;
const OPENED: u8 = 7;
const STOPPED: u8 = 8;

/// Appends the frame of a record to `out`.
pub(super) fn encode(seq: u64, record: &Record, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0; HEAD - MARKER.len()]);
    let mut writer = Writer(out);
    writer.record(seq, record);
    let Some((head, payload)) = out
        .get_mut(begin..)
        .and_then(|frame| frame.split_at_mut_checked(HEAD))
    else {
        return;
    };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let fields = length
        .to_le_bytes()
        .into_iter()
        .chain(crc32fast::hash(payload).to_le_bytes());
    for (byte, value) in head.iter_mut().skip(MARKER.len()).zip(fields) {
        *byte = value;
    }
}

/// Length and checksum in the head of a frame; `None` when it does not begin like one.
pub(super) fn head(bytes: &[u8]) -> Option<(usize, u32)> {
    let rest = bytes.strip_prefix(&MARKER)?;
    let length = u32::from_le_bytes(*rest.first_chunk()?);
    let checksum = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    (length <= MAX_PAYLOAD).then_some((length, checksum))
}

/// The record of a payload; `None` when the checksum or the content is wrong.
pub(super) fn decode(payload: &[u8], checksum: u32) -> Option<Numbered> {
    if crc32fast::hash(payload) != checksum {
        return None;
    }
    let mut reader = Reader(payload);
    let numbered = reader.record()?;
    reader.0.is_empty().then_some(numbered)
}

/// The frame's payload written again, if it can be read; the checksum is the one that it ought to have.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn again(payload: &[u8]) -> Option<Vec<u8>> {
    let Numbered { seq, record } = decode(payload, crc32fast::hash(payload))?;
    let mut frame = Vec::new();
    encode(seq, &record, &mut frame);
    frame.get(HEAD..).map(<[u8]>::to_vec)
}

mod reader;

use reader::Reader;

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn record(&mut self, seq: u64, record: &Record) {
        match record {
            Record::Checkpoint {
                at,
                accounts,
                held,
                floors,
                leases,
                boot,
            } => {
                self.begin(CHECKPOINT, seq, *at);
                self.list(accounts, |w, Balance { account, settled }| {
                    w.account(account);
                    w.u64(*settled);
                });
                self.list(held, |w, (id, posting)| {
                    w.u64(*id);
                    w.posting(posting);
                });
                self.list(floors, |w, (window, starts, ends)| {
                    w.window(*window);
                    w.i64(*starts);
                    w.i64(*ends);
                });
                self.leases(leases);
                self.list(boot.as_slice(), |w, boot| w.boot(*boot));
            }
            Record::Reserve { at, posting, caller } => {
                self.begin(RESERVE, seq, *at);
                self.posting(posting);
                self.option(caller.as_deref(), Self::caller);
            }
            Record::Extend { at, id, posting } => {
                self.begin(EXTEND, seq, *at);
                self.u64(*id);
                self.posting(posting);
            }
            Record::Close {
                at,
                id,
                cost,
                outcome,
                posting,
                ended,
            } => {
                self.begin(CLOSE, seq, *at);
                self.u64(*id);
                self.amounts(cost);
                self.one_of(&Outcome::ALL, *outcome);
                self.posting(posting);
                self.option(ended.as_deref(), Self::ended);
            }
            Record::Forget { at, scope } => {
                self.begin(FORGET, seq, *at);
                self.scope(scope);
            }
            Record::Lease { at, leases } => {
                self.begin(LEASE, seq, *at);
                self.leases(leases);
            }
            Record::Opened { at, boot } => {
                self.begin(OPENED, seq, *at);
                self.boot(*boot);
            }
            Record::Stopped { at } => self.begin(STOPPED, seq, *at),
        }
    }

    fn begin(&mut self, kind: u8, seq: u64, at: i64) {
        self.0.push(kind);
        self.u64(seq);
        self.i64(at);
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        self.0
            .extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            each(self, item);
        }
    }

    /// The place of a value among all of its kind.
    fn one_of<T: PartialEq + Copy>(&mut self, all: &[T], value: T) {
        let place = all.iter().position(|other| *other == value);
        self.0
            .push(place.and_then(|p| u8::try_from(p).ok()).unwrap_or(u8::MAX));
    }

    fn scope(&mut self, scope: &Scope) {
        self.one_of(&ScopeKind::ALL, scope.kind);
        self.text(&scope.name);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn option<T: ?Sized>(&mut self, value: Option<&T>, some: impl FnOnce(&mut Self, &T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            some(self, value);
        }
    }

    fn caller(&mut self, caller: &Caller) {
        for text in [
            &caller.agent,
            &caller.owner,
            &caller.run,
            &caller.provider,
            &caller.model,
        ] {
            self.text(text);
        }
        for text in [&caller.session, &caller.key] {
            self.option(text.as_deref(), Self::text);
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.one_of(&Cause::ALL, ended.cause);
        self.0.extend_from_slice(&ended.status.unwrap_or(0).to_le_bytes());
        self.option(ended.tokens.as_ref(), |w, tokens| {
            for count in tokens.all() {
                w.u64(count);
            }
        });
        self.list(&ended.tools, |w, tool| w.text(tool));
    }

    fn amounts(&mut self, amounts: &Amounts) {
        for unit in Unit::ALL {
            self.u64(amounts.of(unit));
        }
    }

    /// Minutes of a rolling one; a calendar one is its place after the longest of those.
    fn window(&mut self, window: Window) {
        let number = match window {
            Window::Rolling(minutes) => minutes,
            calendar => {
                let place = Window::CALENDAR.iter().position(|other| *other == calendar);
                u32::MAX - place.and_then(|p| u32::try_from(p).ok()).unwrap_or(0)
            }
        };
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn account(&mut self, account: &AccountId) {
        self.scope(&account.scope);
        self.window(account.window);
        self.one_of(&Unit::ALL, account.unit);
        self.i64(account.starts);
        self.i64(account.ends);
    }

    fn leases(&mut self, leases: &[(AccountId, u64)]) {
        self.list(leases, |w, (account, ceiling)| {
            w.account(account);
            w.u64(*ceiling);
        });
    }

    fn boot(&mut self, boot: Boot) {
        self.0.extend_from_slice(&boot.id.to_le_bytes());
        self.i64(boot.ticks);
    }

    fn posting(&mut self, posting: &Posting) {
        self.0.extend_from_slice(&posting.call.0.to_le_bytes());
        self.amounts(&posting.amount);
        self.list(&posting.accounts, |w, account| w.account(account));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ulid::Ulid;

    use super::*;
    use crate::ledger::Buckets;
    use crate::money::Pico;

    fn window() -> impl Strategy<Value = Window> {
        prop_oneof![
            prop::sample::select(Window::CALENDAR.to_vec()),
            (1..=Window::LONGEST_ROLLING).prop_map(Window::Rolling),
        ]
    }

    fn scope() -> impl Strategy<Value = Scope> {
        (prop::sample::select(ScopeKind::ALL.to_vec()), ".{0,20}").prop_map(|(kind, name)| Scope {
            kind,
            name: name.into(),
        })
    }

    fn account() -> impl Strategy<Value = AccountId> {
        (scope(), window(), unit(), any::<i64>(), any::<i64>()).prop_map(
            |(scope, window, unit, starts, ends)| AccountId {
                scope,
                window,
                unit,
                starts,
                ends,
            },
        )
    }

    fn unit() -> impl Strategy<Value = Unit> {
        prop::sample::select(Unit::ALL.to_vec())
    }

    fn amounts() -> impl Strategy<Value = Amounts> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(usd, tokens, calls)| Amounts {
            usd: Pico(usd),
            tokens,
            calls,
        })
    }

    fn name() -> impl Strategy<Value = String> {
        ".{0,20}"
    }

    fn caller() -> impl Strategy<Value = Option<Box<Caller>>> {
        let names = (name(), name(), name(), name(), name());
        let caller =
            (names, prop::option::of(name()), prop::option::of(name())).prop_map(|(names, session, key)| {
                let (agent, owner, run, provider, model) = names;
                Box::new(Caller {
                    agent: agent.into(),
                    owner: owner.into(),
                    run: run.into(),
                    session: session.map(Into::into),
                    provider: provider.into(),
                    model: model.into(),
                    key: key.map(Into::into),
                })
            });
        prop::option::of(caller)
    }

    fn ended() -> impl Strategy<Value = Option<Box<Ended>>> {
        let cause = prop::sample::select(Cause::ALL.to_vec());
        let tools = prop::collection::vec(name(), 0..3);
        let (status, tokens) = (prop::option::of(1..1000_u16), prop::option::of(any::<[u64; 5]>()));
        let ended = (cause, status, tokens, tools).prop_map(|(cause, status, tokens, tools)| {
            Box::new(Ended {
                cause,
                status,
                tokens: tokens.map(Buckets::of),
                tools: tools.into_iter().map(Into::into).collect(),
            })
        });
        prop::option::of(ended)
    }

    fn posting() -> impl Strategy<Value = Posting> {
        let accounts = prop::collection::vec(account(), 0..5);
        (any::<u128>(), amounts(), accounts).prop_map(|(call, amount, accounts)| Posting {
            call: Ulid(call),
            amount,
            accounts,
        })
    }

    fn leases() -> impl Strategy<Value = Vec<(AccountId, u64)>> {
        prop::collection::vec((account(), any::<u64>()), 0..5)
    }

    fn boot() -> impl Strategy<Value = Boot> {
        (any::<u128>(), any::<i64>()).prop_map(|(id, ticks)| Boot { id, ticks })
    }

    fn record() -> impl Strategy<Value = Record> {
        let balance = (account(), any::<u64>()).prop_map(|(account, settled)| Balance { account, settled });
        let checkpoint = (
            any::<i64>(),
            prop::collection::vec(balance, 0..5),
            prop::collection::vec((any::<u64>(), posting().prop_map_into()), 0..5),
            prop::collection::vec((window(), any::<i64>(), any::<i64>()), 0..5),
            leases(),
            prop::option::of(boot()),
        );
        prop_oneof![
            checkpoint.prop_map(|(at, accounts, held, floors, leases, boot)| Record::Checkpoint {
                at,
                accounts,
                held,
                floors,
                leases,
                boot,
            }),
            (any::<i64>(), leases()).prop_map(|(at, leases)| Record::Lease { at, leases }),
            (any::<i64>(), boot()).prop_map(|(at, boot)| Record::Opened { at, boot }),
            any::<i64>().prop_map(|at| Record::Stopped { at }),
            (any::<i64>(), posting(), caller()).prop_map(|(at, posting, caller)| Record::Reserve {
                at,
                posting: posting.into(),
                caller,
            }),
            (any::<i64>(), any::<u64>(), posting()).prop_map(|(at, id, posting)| Record::Extend {
                at,
                id,
                posting: posting.into(),
            }),
            (
                any::<i64>(),
                any::<u64>(),
                amounts(),
                prop::sample::select(Outcome::ALL.to_vec()),
                posting(),
                ended(),
            )
                .prop_map(|(at, id, cost, outcome, posting, ended)| Record::Close {
                    at,
                    id,
                    cost,
                    outcome,
                    posting: posting.into(),
                    ended,
                }),
            (any::<i64>(), scope()).prop_map(|(at, scope)| Record::Forget { at, scope }),
        ]
    }

    fn read(frame: &[u8]) -> Option<Numbered> {
        let (length, checksum) = head(frame)?;
        let payload = frame.get(HEAD..)?;
        (payload.len() == length).then(|| decode(payload, checksum))?
    }

    proptest! {
        #[test]
        fn every_record_is_read_back_as_it_was(seq in any::<u64>(), record in record()) {
            let mut frame = Vec::new();
            encode(seq, &record, &mut frame);
            prop_assert_eq!(read(&frame), Some(Numbered { seq, record }));
        }

        #[test]
        fn a_record_with_one_bit_turned_is_no_record(record in record(), bit in any::<prop::sample::Index>()) {
            let mut frame = Vec::new();
            encode(7, &record, &mut frame);
            let bit = bit.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read(&frame), None);
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_ask_for_much(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = Reader(&bytes).record();
        }
    }
}
