use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use jiff::Timestamp;
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::files::{Directory, Storage, segment_path};
use super::*;
use crate::clock::Clock;
use crate::money::Pico;

mod clock;
mod power;
mod scopes;
mod storm;
mod units;

const DOLLAR: u64 = crate::money::PICO_PER_USD;
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

struct TestClock(AtomicI64);

impl TestClock {
    /// 2026-11-23T09:00:00Z
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(
            "2026-11-23T09:00:00Z"
                .parse::<Timestamp>()
                .unwrap()
                .as_microsecond(),
        )))
    }

    fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

fn settings(dir: &Path, clock: &Arc<TestClock>) -> LedgerSettings {
    let clock: Arc<TestClock> = Arc::clone(clock);
    LedgerSettings {
        dir: dir.to_owned(),
        timezone: TimeZone::UTC,
        clock,
    }
}

fn scope(kind: ScopeKind, name: &str) -> Scope {
    Scope {
        kind,
        name: name.into(),
    }
}

fn day(agent: &str, limit: u64) -> Charge {
    Charge {
        scope: scope(ScopeKind::Agent, agent),
        window: Window::Day,
        limit: Pico(limit).into(),
    }
}

fn run(name: &str, limit: u64) -> Charge {
    Charge {
        scope: scope(ScopeKind::Run, name),
        window: Window::Run,
        limit: Pico(limit).into(),
    }
}

fn call() -> Ulid {
    Ulid::from_parts(1, 2)
}

fn exhausted(result: Result<Reservation, ReserveError>) -> Exhausted {
    match result {
        Err(ReserveError::Exhausted(exhausted)) => exhausted,
        other => panic!("{other:?}"),
    }
}

/// The files as a kill -9 leaves them: everything that was written is in the page cache.
fn crash(dir: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn segments(dir: &Path) -> Vec<u64> {
    Directory(dir.to_owned()).segments().unwrap()
}

/// Where the payloads of records of a kind begin.
fn payloads_of(bytes: &[u8], kind: u8) -> Vec<usize> {
    memchr::memmem::find_iter(bytes, &codec::MARKER)
        .map(|at| at + codec::HEAD)
        .filter(|at| bytes[*at] == kind)
        .collect()
}

fn journal_file(dir: &Path) -> PathBuf {
    let last = *segments(dir).last().unwrap();
    segment_path(dir, last)
}

fn balance(ledger: &Ledger, charge: &Charge) -> (u64, u64) {
    ledger
        .accounts()
        .into_iter()
        .rfind(|view| view.scope == charge.scope && view.window == charge.window)
        .map_or((0, 0), |view| (view.settled.count, view.reserved.count))
}

#[test]
fn all_scopes_at_once_or_none() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [day("coder", 10), run("r1", 4)];
    let held = ledger.reserve(call(), &charges, Pico(3)).unwrap();
    let refused = exhausted(ledger.reserve(call(), &charges, Pico(3)));
    assert_eq!(refused.scope.name.as_ref(), "r1");
    assert_eq!(
        (refused.settled.count, refused.reserved.count, refused.transient),
        (0, 3, true)
    );
    assert_eq!(refused.resets_at, None);
    assert_eq!(
        balance(&ledger, &charges[0]),
        (0, 3),
        "a refused call leaves nothing behind"
    );
    assert_eq!(
        held.settle(Pico(2)),
        Settled {
            cost: Pico(2).into(),
            reserved: Pico(3).into(),
            overrun: false
        }
    );
    let refused = exhausted(ledger.reserve(call(), &charges, Pico(3)));
    assert!(!refused.transient, "settled money does not come back");
    assert!(!exhausted(ledger.reserve(call(), &charges, Pico(11))).transient);
    let refused = exhausted(ledger.reserve(call(), &[day("coder", 10)], Pico(9)));
    assert_eq!(refused.resets_at, Some("2026-11-24T00:00:00Z".parse().unwrap()));
}

#[test]
fn one_account_in_two_charges_counts_once_at_the_lower_limit() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::without_threads(settings(dir.path(), &TestClock::new())).unwrap();
    let _held = ledger
        .reserve(call(), &[day("a", 10), day("a", 5)], Pico(5))
        .unwrap();
    assert_eq!(balance(&ledger, &day("a", 10)), (0, 5));
    assert_eq!(
        exhausted(ledger.reserve(call(), &[day("a", 10), day("a", 5)], Pico(1))).limit,
        Pico(5).into()
    );
}

#[test]
fn settle_release_and_drop() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::without_threads(settings(dir.path(), &TestClock::new())).unwrap();
    let charges = [day("a", 10)];
    let overrun = ledger.reserve(call(), &charges, Pico(4)).unwrap().settle(Pico(6));
    assert!(overrun.overrun);
    assert_eq!(balance(&ledger, &charges[0]), (6, 0));
    ledger.reserve(call(), &charges, Pico(4)).unwrap().release();
    assert_eq!(balance(&ledger, &charges[0]), (6, 0));
    drop(ledger.reserve(call(), &charges, Pico(3)).unwrap());
    assert_eq!(balance(&ledger, &charges[0]), (9, 0), "dropped: charged in full");
}

#[test]
fn a_call_is_charged_to_the_window_in_which_it_was_reserved() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [day("a", 10)];
    let held = ledger.reserve(call(), &charges, Pico(8)).unwrap();
    clock.advance(DAY);
    let today = ledger.reserve(call(), &charges, Pico(10)).unwrap();
    assert_eq!(
        ledger.accounts().len(),
        2,
        "the old window is listed while something is reserved in it"
    );
    held.settle(Pico(8));
    assert_eq!(ledger.accounts().len(), 1);
    today.settle(Pico(10));
    assert_eq!(balance(&ledger, &charges[0]), (10, 0));
    // A clock that steps back finds the window that it left closed.
    clock.advance(-DAY);
    exhausted(ledger.reserve(call(), &charges, Pico(1)));
    drop(ledger);
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    exhausted(ledger.reserve(call(), &charges, Pico(1)));
    clock.advance(2 * DAY);
    ledger.reserve(call(), &charges, Pico(1)).unwrap().release();
}

#[test]
fn two_hundred_threads_twenty_admitted() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::open(settings(dir.path(), &TestClock::new())).unwrap();
    let admitted = AtomicUsize::new(0);
    let transient = AtomicUsize::new(0);
    let barrier = std::sync::Barrier::new(200);
    std::thread::scope(|threads| {
        for _ in 0..200 {
            threads.spawn(|| {
                barrier.wait();
                match ledger.reserve(
                    Ulid::new(),
                    &[day("a", DOLLAR), run("r", 2 * DOLLAR)],
                    Pico(DOLLAR / 20),
                ) {
                    Ok(held) => {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        held.settle(Pico(DOLLAR / 20));
                    }
                    Err(ReserveError::Exhausted(e)) => {
                        transient.fetch_add(usize::from(e.transient), Ordering::Relaxed);
                    }
                    Err(other) => panic!("{other}"),
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 20);
    assert_eq!(balance(&ledger, &day("a", 0)), (DOLLAR, 0));
}

#[test]
fn what_was_open_when_the_process_died_is_charged_in_full() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [day("a", 100), run("r", 100)];
    ledger
        .reserve(call(), &charges, Pico(10))
        .unwrap()
        .settle(Pico(1));
    let _open = ledger.reserve(call(), &charges, Pico(20)).unwrap();
    let left = crash(dir.path());
    let after = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
    let recovery = after.recovery();
    assert_eq!((recovery.charged_in_full, recovery.charged_amount), (1, Pico(20)));
    for charge in &charges {
        assert_eq!(balance(&after, charge), (21, 0));
    }
    // Recovery is itself on record: a second start charges nothing again.
    drop(after);
    let again = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
    assert_eq!(again.recovery().charged_in_full, 0);
    assert_eq!(balance(&again, &charges[0]), (21, 0));
}

const CHILD: &str = "GUARD_TEST_LEDGER_CHILD";

/// The process that the next test kills: reserves 3 and settles 1 for ever, and notes each step after it was done.
#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let ledger = Ledger::open(settings(&dir, &TestClock::new())).unwrap();
    let mut steps = std::fs::File::create(dir.join("steps")).unwrap();
    loop {
        let held = ledger.reserve(call(), &[day("a", u64::MAX)], Pico(3)).unwrap();
        io::Write::write_all(&mut steps, b"r").unwrap();
        held.settle(Pico(1));
        io::Write::write_all(&mut steps, b"s").unwrap();
    }
}

#[test]
fn kill_9_loses_no_step() {
    for after in [300, 500, 900] {
        let dir = TempDir::new().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::child_that_is_killed"])
            .env(CHILD, dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
        let steps = std::fs::read(dir.path().join("steps")).unwrap();
        let settled = u64::try_from(steps.iter().filter(|s| **s == b's').count()).unwrap();
        assert!(settled > 10, "the child got {settled} calls done");
        let ledger = Ledger::open(settings(dir.path(), &TestClock::new())).unwrap();
        let (booked, reserved) = balance(&ledger, &day("a", 0));
        // One step may be in the journal that the child had no time to note.
        let expected = if steps.last() == Some(&b's') {
            [settled, settled + 3]
        } else {
            [settled + 3, settled + 1]
        };
        assert!(
            expected.contains(&booked),
            "{booked} booked after {settled} settled"
        );
        assert_eq!(reserved, 0);
        drop(ledger);
        assert_eq!(
            database(dir.path()),
            [("agent a".into(), i64::try_from(booked).unwrap(), 0)]
        );
    }
}

#[test]
fn a_second_daemon_is_turned_away() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    assert!(matches!(
        Ledger::open(settings(dir.path(), &clock)),
        Err(LedgerError::Locked(_))
    ));
    drop(ledger);
    Ledger::open(settings(dir.path(), &clock)).unwrap();
}

#[test]
fn a_torn_tail_is_cut_and_kept_at_every_length() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [day("a", 100)];
    ledger
        .reserve(call(), &charges, Pico(10))
        .unwrap()
        .settle(Pico(7));
    let before = std::fs::metadata(journal_file(dir.path())).unwrap().len();
    std::mem::forget(ledger.reserve(call(), &charges, Pico(20)).unwrap());
    let whole = std::fs::metadata(journal_file(dir.path())).unwrap().len();
    for cut in before..whole {
        let left = crash(dir.path());
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(journal_file(left.path()))
            .unwrap();
        file.set_len(cut).unwrap();
        let after = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
        assert_eq!(balance(&after, &charges[0]), (7, 0), "cut at {cut}");
        // A larger lease stands before the reservation; it may be whole.
        let bytes = std::fs::read(journal_file(dir.path())).unwrap();
        let whole = &bytes[..usize::try_from(cut).unwrap()];
        let end = u64::try_from(frames::read(whole).end).unwrap();
        assert_eq!(after.recovery().torn_bytes, cut - end);
        let kept = std::fs::read_dir(left.path())
            .unwrap()
            .filter(|e| {
                e.as_ref()
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .contains(".torn-")
            })
            .count();
        assert_eq!(kept, usize::from(cut > end));
        // The journal goes on behind the cut.
        after.reserve(call(), &charges, Pico(1)).unwrap().settle(Pico(1));
        drop(after);
        let again = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
        assert_eq!(
            (balance(&again, &charges[0]), again.recovery().torn_bytes),
            ((8, 0), 0)
        );
    }
}

#[test]
fn a_damaged_record_inside_is_skipped_and_reported_and_its_end_still_booked() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [day("a", 100)];
    ledger
        .reserve(call(), &charges, Pico(10))
        .unwrap()
        .settle(Pico(7));
    drop(ledger);
    let path = journal_file(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let reserve = payloads_of(&bytes, codec::RESERVE)[0];
    bytes[reserve] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let after = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    assert_eq!(after.recovery().damaged, 1);
    assert_eq!(balance(&after, &charges[0]), (7, 0));
}

#[test]
fn a_journal_without_a_checkpoint_is_not_taken_for_an_empty_one() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    ledger
        .reserve(call(), &[day("a", 100)], Pico(10))
        .unwrap()
        .settle(Pico(7));
    drop(ledger);
    let path = journal_file(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let checkpoint = codec::HEAD;
    bytes[checkpoint] ^= 0x40;
    std::fs::write(&path, bytes).unwrap();
    let opened = Ledger::without_threads(settings(dir.path(), &clock));
    assert!(matches!(opened, Err(LedgerError::NoCheckpoint(_))));
}

/// A file on a disk that fills up: takes part of a write, then nothing, until there is room again.
struct FullDisk {
    file: std::fs::File,
    full: Arc<AtomicBool>,
    /// What it says when it takes nothing at all.
    error: Option<io::ErrorKind>,
    cannot_cut: Arc<AtomicBool>,
}

impl Storage for FullDisk {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kind) = self.error.filter(|_| self.full.load(Ordering::Relaxed)) {
            return Err(kind.into());
        }
        if self.full.load(Ordering::Relaxed) {
            return Storage::write(&self.file, &bytes[..bytes.len() / 2]);
        }
        Storage::write(&self.file, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.cannot_cut.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Storage::set_len(&self.file, len)
    }

    fn sync(&self) -> io::Result<()> {
        Storage::sync(&self.file)
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_stops_admission_and_room_resumes_it() {
    let read_only = Some(io::ErrorKind::ReadOnlyFilesystem);
    for (cannot_cut, error) in [(false, None), (true, None), (false, read_only), (true, read_only)] {
        let dir = TempDir::new().unwrap();
        let clock = TestClock::new();
        let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
        let charges = [day("a", 100)];
        let open = ledger.reserve(call(), &charges, Pico(10)).unwrap();
        let full = Arc::new(AtomicBool::new(true));
        let stuck = Arc::new(AtomicBool::new(cannot_cut));
        let file = std::fs::OpenOptions::new()
            .append(true)
            .open(journal_file(dir.path()))
            .unwrap();
        let storage = FullDisk {
            file,
            full: Arc::clone(&full),
            error,
            cannot_cut: Arc::clone(&stuck),
        };
        ledger.inner.lock().journal.replace_storage(Arc::new(storage));

        let refused = ledger.reserve(call(), &charges, Pico(10));
        assert!(
            matches!(&refused, Err(ReserveError::Stopped(why)) if why.contains("journal-")),
            "{refused:?}"
        );
        assert!(ledger.stopped().is_some());
        // A call in flight still settles: in memory at once, in the journal when there is room.
        open.settle(Pico(3));
        assert_eq!(balance(&ledger, &charges[0]), (3, 0));
        // Dying now charges it in full: never less than was spent.
        let left = crash(dir.path());
        let after = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
        assert_eq!(balance(&after, &charges[0]), (10, 0));

        full.store(false, Ordering::Relaxed);
        stuck.store(false, Ordering::Relaxed);
        ledger.reserve(call(), &charges, Pico(5)).unwrap().settle(Pico(5));
        assert_eq!(ledger.stopped(), None);
        let left = crash(dir.path());
        let after = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
        assert_eq!(
            after.recovery().torn_bytes,
            0,
            "the half-written record was cut off"
        );
        assert_eq!(after.recovery().damaged, 0);
        assert_eq!(balance(&after, &charges[0]), (8, 0));
    }
}

#[test]
fn a_forgotten_run_leaves_when_nothing_is_reserved() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [run("r", 100)];
    let open = ledger.reserve(call(), &charges, Pico(10)).unwrap();
    ledger.forget(&charges[0].scope);
    assert_eq!(balance(&ledger, &charges[0]), (0, 10));
    open.settle(Pico(4));
    assert_eq!(ledger.accounts(), []);
    drop(ledger);
    let again = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    assert_eq!(again.accounts(), []);
}

fn database(dir: &Path) -> Vec<(String, i64, i64)> {
    let db = Connection::open(dir.join("ledger.db")).unwrap();
    let mut rows = db
        .prepare("SELECT kind || ' ' || name, settled, reserved FROM accounts ORDER BY 1, starts_us")
        .unwrap();
    rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn the_database_is_complete_after_a_clean_stop_and_counts_once_after_a_crash() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    let charges = [day("a", 1000), run("r", 1000)];
    for cost in [7, 0, 12] {
        ledger
            .reserve(Ulid::new(), &charges, Pico(10))
            .unwrap()
            .settle(Pico(cost));
    }
    std::mem::forget(ledger.reserve(call(), &charges, Pico(20)).unwrap());
    drop(ledger);
    assert_eq!(
        database(dir.path()),
        [("agent a".into(), 19, 20), ("run r".into(), 19, 20)]
    );

    // The same journal under a database that is behind it (a fresh one) and one that has seen all of it.
    for behind in [true, false] {
        let left = crash(dir.path());
        if behind {
            std::fs::remove_file(left.path().join("ledger.db")).unwrap();
        }
        for _ in 0..2 {
            drop(Ledger::open(settings(left.path(), &clock)).unwrap());
            assert_eq!(
                database(left.path()),
                [("agent a".into(), 39, 0), ("run r".into(), 39, 0)]
            );
        }
        let db = Connection::open(left.path().join("ledger.db")).unwrap();
        let calls: (i64, i64, f64) = db
            .query_row(
                "SELECT count(*), sum(outcome = 'recovered'), sum(cost_usd) FROM calls_usd",
                [],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
            )
            .unwrap();
        assert_eq!((calls.0, calls.1), (4, 1));
        assert!((calls.2 - 39e-12).abs() < 1e-15);
    }
}

#[test]
fn the_database_stands_in_for_a_lost_journal() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let charges = [day("a", 100)];
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    ledger
        .reserve(Ulid::new(), &charges, Pico(30))
        .unwrap()
        .settle(Pico(25));
    std::mem::forget(ledger.reserve(Ulid::new(), &charges, Pico(30)).unwrap());
    drop(ledger);
    let left = crash(dir.path());
    std::fs::remove_file(journal_file(left.path())).unwrap();
    for first in [true, false] {
        let after = Ledger::open(settings(left.path(), &clock)).unwrap();
        assert_eq!(after.recovery().from_database, first);
        assert_eq!(balance(&after, &charges[0]), (55, 0));
        drop(after);
        assert_eq!(database(left.path()), [("agent a".into(), 55, 0)]);
    }
}

#[test]
fn a_damaged_database_is_put_aside_and_made_anew_from_the_journal() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let charges = [day("a", 100)];
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    ledger
        .reserve(Ulid::new(), &charges, Pico(30))
        .unwrap()
        .settle(Pico(25));
    drop(ledger);
    let path = dir.path().join("ledger.db");
    std::fs::write(
        &path,
        "no database at all, but long enough to be looked at ".repeat(100),
    )
    .unwrap();
    let after = Ledger::open(settings(dir.path(), &clock)).unwrap();
    assert_eq!(balance(&after, &charges[0]), (25, 0));
    drop(after);
    assert_eq!(database(dir.path()), [("agent a".into(), 25, 0)]);
    // Without a journal there is nothing else to go by: the ledger does not start from nothing by itself.
    std::fs::write(
        &path,
        "no database at all, but long enough to be looked at ".repeat(100),
    )
    .unwrap();
    std::fs::remove_file(journal_file(dir.path())).unwrap();
    let opened = Ledger::open(settings(dir.path(), &clock));
    assert!(matches!(opened, Err(LedgerError::Database { .. })));
}

#[test]
fn a_long_journal_is_rotated_and_old_segments_go_when_the_database_holds_them() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let charges = [day("a", u64::MAX), run("r", u64::MAX)];
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    let open = ledger.reserve(call(), &charges, Pico(5)).unwrap();
    let mut calls = 0;
    while ledger.inner.lock().journal.position().offset < journal::SEGMENT_BYTES + 1000 {
        ledger.reserve(call(), &charges, Pico(2)).unwrap().settle(Pico(1));
        calls += 1;
    }
    for _ in 0..600 {
        if segments(dir.path()) == [2] {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(segments(dir.path()), [2]);
    open.settle(Pico(4));
    drop(ledger);
    let after = Ledger::open(settings(dir.path(), &clock)).unwrap();
    assert_eq!(balance(&after, &charges[0]), (calls + 4, 0));
    drop(after);
    let settled = i64::try_from(calls + 4).unwrap();
    assert_eq!(
        database(dir.path()),
        [("agent a".into(), settled, 0), ("run r".into(), settled, 0)]
    );
}

#[test]
fn a_segment_whose_checkpoint_is_torn_falls_back_to_the_one_before() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [day("a", 100)];
    ledger
        .reserve(call(), &charges, Pico(10))
        .unwrap()
        .settle(Pico(7));
    drop(ledger);
    std::fs::write(segment_path(dir.path(), 2), b"0000ffff 00").unwrap();
    for _ in 0..2 {
        let after = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
        assert_eq!(balance(&after, &charges[0]).1, 0);
        after.reserve(call(), &charges, Pico(10)).unwrap().settle(Pico(1));
    }
    let after = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    assert_eq!(balance(&after, &charges[0]), (9, 0));
}

// --- random interleavings against a plain model ------------------------------------------------------------------

const AGENT_LIMIT: u64 = 100;
const RUN_LIMIT: u64 = 60;

#[derive(Debug, Clone)]
enum Step {
    Reserve { agent: u8, run: u8, amount: u64 },
    Settle { which: usize, percent: u64 },
    Release { which: usize },
    Abort { which: usize },
    Crash { garbage: Vec<u8> },
    Clock { minutes: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2_u8, 0..3_u8, 0..50_u64).prop_map(|(agent, run, amount)| Step::Reserve { agent, run, amount }),
        4 => (any::<usize>(), 0..=100_u64).prop_map(|(which, percent)| Step::Settle { which, percent }),
        2 => any::<usize>().prop_map(|which| Step::Release { which }),
        2 => any::<usize>().prop_map(|which| Step::Abort { which }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|garbage| Step::Crash { garbage }),
        2 => (-1500_i64..3000).prop_map(|minutes| Step::Clock { minutes }),
    ]
}

/// What the ledger should say, in the plainest terms: accounts by name, the day being the number of days since 1970,
/// never earlier than a day on which something was booked.
#[derive(Default)]
struct Model {
    settled: BTreeMap<String, u64>,
    open: Vec<(Vec<String>, u64)>,
    day: i64,
    admitted: u64,
    ended: u64,
}

impl Model {
    fn keys(day: i64, agent: u8, run: u8) -> Vec<String> {
        vec![format!("a{agent} {day}"), format!("r{run}")]
    }

    fn reserved(&self, key: &str) -> u64 {
        self.open
            .iter()
            .filter(|(keys, _)| keys.iter().any(|k| k == key))
            .map(|(_, amount)| amount)
            .sum()
    }

    fn settled(&self, key: &str) -> u64 {
        self.settled.get(key).copied().unwrap_or(0)
    }

    fn end(&mut self, which: usize, cost: u64) {
        let (keys, _) = self.open.remove(which);
        for key in keys {
            *self.settled.entry(key).or_default() += cost;
        }
        self.ended += 1;
    }
}

fn run_steps(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let clock = TestClock::new();
    let mut dir = TempDir::new().unwrap();
    let mut ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let mut held: Vec<Reservation> = Vec::new();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Reserve { agent, run, amount } => {
                held.extend(reserve_step(
                    &ledger,
                    &mut model,
                    clock.now(),
                    (agent, run),
                    amount,
                )?);
            }
            Step::Settle { which, percent } if !held.is_empty() => {
                let which = which % held.len();
                let reservation = held.remove(which);
                let cost = reservation.amount().usd.0 * percent / 100;
                prop_assert!(!reservation.settle(Pico(cost)).overrun);
                model.end(which, cost);
            }
            Step::Release { which } if !held.is_empty() => {
                let which = which % held.len();
                held.remove(which).release();
                model.end(which, 0);
            }
            Step::Abort { which } if !held.is_empty() => {
                let which = which % held.len();
                let amount = model.open[which].1;
                drop(held.remove(which));
                model.end(which, amount);
            }
            Step::Crash { garbage } => {
                let left = crash(dir.path());
                let path = journal_file(left.path());
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.extend_from_slice(&garbage);
                std::fs::write(&path, bytes).unwrap();
                // Only the old files see the old process's reservations end.
                held.clear();
                dir = left;
                ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
                prop_assert_eq!(
                    ledger.recovery().charged_in_full,
                    u64::try_from(model.open.len()).unwrap()
                );
                prop_assert_eq!(
                    ledger.recovery().torn_bytes,
                    u64::try_from(garbage.len()).unwrap()
                );
                while let Some((_, amount)) = model.open.first() {
                    let amount = *amount;
                    model.end(0, amount);
                }
            }
            Step::Clock { minutes } => clock.advance(minutes * MINUTE),
            Step::Settle { .. } | Step::Release { .. } | Step::Abort { .. } => {}
        }
        compare(&ledger, &model)?;
    }
    prop_assert_eq!(model.admitted, model.ended + u64::try_from(held.len()).unwrap());
    Ok(())
}

fn reserve_step(
    ledger: &Ledger,
    model: &mut Model,
    now: Timestamp,
    (agent, r): (u8, u8),
    amount: u64,
) -> Result<Option<Reservation>, TestCaseError> {
    let today = model.day.max(now.as_microsecond().div_euclid(DAY));
    let charges = [
        day(&format!("a{agent}"), AGENT_LIMIT),
        run(&format!("r{r}"), RUN_LIMIT),
    ];
    let keys = Model::keys(today, agent, r);
    let total = |key: &str| model.settled(key) + model.reserved(key) + amount;
    let fits = total(&keys[0]) <= AGENT_LIMIT && total(&keys[1]) <= RUN_LIMIT;
    match ledger.reserve(call(), &charges, Pico(amount)) {
        Ok(reservation) => {
            prop_assert!(fits);
            model.open.push((keys, amount));
            model.day = today;
            model.admitted += 1;
            Ok(Some(reservation))
        }
        Err(ReserveError::Exhausted(e)) => {
            prop_assert!(!fits);
            let alone = |key: &str, limit| model.settled(key) + amount <= limit;
            prop_assert_eq!(
                e.transient,
                alone(&keys[0], AGENT_LIMIT) && alone(&keys[1], RUN_LIMIT)
            );
            Ok(None)
        }
        Err(other) => Err(TestCaseError::fail(other.to_string())),
    }
}

fn compare(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    let mut seen = BTreeMap::new();
    for view in ledger.accounts() {
        let (key, limit) = match view.starts {
            Some(starts) => (
                format!("{} {}", view.scope.name, starts.as_microsecond().div_euclid(DAY)),
                AGENT_LIMIT,
            ),
            None => (view.scope.name.to_string(), RUN_LIMIT),
        };
        prop_assert!(view.settled.count + view.reserved.count <= limit, "{:?}", view);
        prop_assert_eq!(view.settled.count, model.settled(&key), "{}", &key);
        prop_assert_eq!(view.reserved.count, model.reserved(&key), "{}", &key);
        seen.insert(key, ());
    }
    // Nothing that is still in force is missing: every run, today's accounts, and whatever is reserved.
    for (keys, amount) in &model.open {
        prop_assert!(*amount == 0 || keys.iter().all(|key| seen.contains_key(key)));
    }
    for (key, settled) in &model.settled {
        prop_assert!(
            key.contains(' ') || *settled == 0 || seen.contains_key(key),
            "{}",
            key
        );
    }
    Ok(())
}

/// Each case writes files and crashes a few times; `PROPTEST_CASES` asks for more of them.
fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(96))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_interleavings_agree_with_a_plain_model(steps in prop::collection::vec(step(), 1..80)) {
        run_steps(steps)?;
    }
}
