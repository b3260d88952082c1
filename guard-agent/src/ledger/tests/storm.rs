//! The storm: calls of random size from two hundred threads against a hundred tight budgets, and kill -9 at random points
//! of a running load. A part of it always runs; `cargo xtask test --storm` runs all of it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const THREADS: usize = 200;
const BUDGETS: usize = 100;
const LIMIT: u64 = 50_000;
const LARGEST: u64 = 4000;
/// Days that pass during the storm.
const DAYS: usize = 8;

/// All of it, or the part that always runs.
fn all() -> bool {
    std::env::var_os("GUARD_STORM").is_some()
}

/// The plain reference: what each budget's calls cost on each day.
#[derive(Default)]
struct Day {
    /// Costs of calls that ended. Added before they are settled, so it is never less than the ledger's.
    cost: AtomicU64,
    /// The same and what is reserved. Added after a reservation and taken away before it ends, so it is never more than
    /// the ledger's.
    most: AtomicU64,
}

struct Storm {
    ledger: Arc<Ledger>,
    clock: Arc<TestClock>,
    /// Read while a call is reserved, so that its day is known.
    day: RwLock<usize>,
    days: Vec<Vec<Day>>,
    calls: u64,
    started: AtomicU64,
    admitted: AtomicU64,
}

struct Open {
    budget: usize,
    day: usize,
    amount: u64,
    held: Reservation,
}

fn budget_of(number: usize) -> [Charge; 2] {
    let name = format!("agent-{number}");
    let rolling = Charge {
        scope: scope(ScopeKind::Agent, &name),
        window: Window::Rolling(60),
        limit: Pico(LIMIT).into(),
    };
    [day(&name, LIMIT), rolling]
}

impl Storm {
    fn thread(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let budgets: Vec<_> = (0..BUDGETS).map(budget_of).collect();
        let mut open: Vec<Open> = Vec::new();
        loop {
            let number = self.started.fetch_add(1, Ordering::Relaxed);
            if number >= self.calls {
                break;
            }
            self.pass_days(number);
            let budget = rng.random_range(0..BUDGETS);
            let amount = rng.random_range(0..LARGEST) + 1;
            open.extend(self.reserve(&budgets[budget], budget, amount));
            while open.len() > 3 {
                let which = rng.random_range(0..open.len());
                self.end(open.swap_remove(which), &mut rng);
            }
        }
        for call in open {
            self.end(call, &mut rng);
        }
    }

    /// One thread moves the clock over midnight now and then.
    fn pass_days(&self, number: u64) {
        let each = self.calls / u64::try_from(DAYS).unwrap();
        if number > 0 && number.is_multiple_of(each) {
            let mut day = self.day.write().unwrap();
            if *day + 1 < DAYS {
                *day += 1;
                self.clock.advance(DAY);
            }
        }
    }

    fn reserve(&self, charges: &[Charge], budget: usize, amount: u64) -> Option<Open> {
        let day = self.day.read().unwrap();
        let result = self.ledger.reserve(Ulid::new(), charges, Pico(amount));
        let account = &self.days[*day][budget];
        match result {
            Ok(held) => {
                let most = account.most.fetch_add(amount, Ordering::SeqCst) + amount;
                assert!(most <= LIMIT, "budget {budget}: {most} of {LIMIT}");
                self.admitted.fetch_add(1, Ordering::Relaxed);
                Some(Open {
                    budget,
                    day: *day,
                    amount,
                    held,
                })
            }
            Err(ReserveError::Exhausted(refused)) => {
                let cost = account.cost.load(Ordering::SeqCst);
                assert!(
                    refused.transient || cost + amount > LIMIT,
                    "a final refusal of {amount} with {cost} of {LIMIT} spent: {refused:?}"
                );
                None
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// As calls end: settled for less, refused by the provider, aborted, cut in the middle, without a word of usage.
    fn end(&self, call: Open, rng: &mut StdRng) {
        let kind = rng.random_range(0..10);
        let cost = match kind {
            0 => 0,
            1 | 2 => call.amount,
            _ => rng.random_range(0..=call.amount),
        };
        let account = &self.days[call.day][call.budget];
        account.cost.fetch_add(cost, Ordering::SeqCst);
        account.most.fetch_sub(call.amount - cost, Ordering::SeqCst);
        match kind {
            0 => call.held.release(),
            // Dropped: charged in full.
            1 => drop(call.held),
            _ => assert!(!call.held.settle(Pico(cost)).overrun),
        }
    }
}

#[test]
fn two_hundred_threads_against_a_hundred_tight_budgets_overspend_nothing() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let calls = if all() { 1_000_000 } else { 100_000 };
    let storm = Storm {
        ledger: Ledger::open(settings(dir.path(), &clock)).unwrap(),
        clock,
        day: RwLock::new(0),
        days: (0..DAYS)
            .map(|_| (0..BUDGETS).map(|_| Day::default()).collect())
            .collect(),
        calls,
        started: AtomicU64::new(0),
        admitted: AtomicU64::new(0),
    };
    let began = Instant::now();
    std::thread::scope(|threads| {
        for seed in 0..THREADS {
            let storm = &storm;
            threads.spawn(move || storm.thread(u64::try_from(seed).unwrap()));
        }
    });
    let admitted = storm.admitted.load(Ordering::Relaxed);
    eprintln!("{calls} calls, {admitted} admitted, {:?}", began.elapsed());
    assert!(admitted > 10_000, "the storm had something to admit: {admitted}");
    for budget in 0..BUDGETS {
        let (settled, reserved) = balance(&storm.ledger, &budget_of(budget)[0]);
        let today = &storm.days[DAYS - 1][budget];
        assert_eq!(settled, today.cost.load(Ordering::SeqCst));
        assert_eq!(reserved, 0);
    }
    let Storm { ledger, days, .. } = storm;
    drop(ledger);
    for (number, day) in days.iter().enumerate() {
        for (budget, account) in day.iter().enumerate() {
            let cost = account.cost.load(Ordering::SeqCst);
            assert!(cost <= LIMIT, "budget {budget}, day {number}: {cost} of {LIMIT}");
        }
    }
    // `ledger.db` says the same of every day, and its calls add up to it.
    let db = Connection::open(dir.path().join("ledger.db")).unwrap();
    let sum = |query: &str| -> u64 { db.query_row(query, [], |row| row.get(0)).unwrap() };
    let booked = sum("SELECT sum(settled) FROM accounts WHERE time_window = 'day'");
    let expected: u64 = days
        .iter()
        .flatten()
        .map(|day| day.cost.load(Ordering::SeqCst))
        .sum();
    assert_eq!(booked, expected);
    assert_eq!(sum("SELECT sum(cost_pico_usd) FROM calls"), expected);
    assert_eq!(sum("SELECT count(*) FROM calls"), admitted);
    assert_eq!(sum("SELECT count(*) FROM calls WHERE outcome IS NULL"), 0);
}

// --- kill -9 --------------------------------------------------------------------------------------------------------

const CHILD: &str = "GUARD_TEST_STORM_CHILD";
/// Threads of the process that is killed.
const WORKERS: u64 = 4;
const HELD: u64 = 1000;

/// The process that is killed: its threads call for ever. Each line on its standard output is heard by the provider:
/// `S WORKER COST` bills a call, `E WORKER` says that its end is on record.
#[test]
fn child_that_calls_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let ledger = Ledger::open(settings(&dir, &TestClock::new())).unwrap();
    std::thread::scope(|threads| {
        for worker in 0..WORKERS {
            let ledger = &ledger;
            threads.spawn(move || {
                let mut rng = StdRng::from_os_rng();
                let say = |line: String| {
                    // One write(2) each, so that a line is there or is not.
                    let mut out = std::io::stderr();
                    out.write_all(line.as_bytes()).unwrap();
                };
                loop {
                    let amount = rng.random_range(1..=HELD);
                    let held = ledger
                        .reserve(Ulid::new(), &[day("a", u64::MAX)], Pico(amount))
                        .unwrap();
                    let cost = rng.random_range(0..=amount);
                    say(format!("S {worker} {cost} {amount}\n"));
                    held.settle(Pico(cost));
                    say(format!("E {worker}\n"));
                    std::thread::sleep(Duration::from_micros(rng.random_range(0..300)));
                }
            });
        }
    });
}

/// What the provider knows of one life of the process: what it billed, and the most that may be booked beyond that.
fn heard(lines: impl Iterator<Item = String>) -> (u64, u64) {
    let mut billed = 0;
    // A worker of which nothing was heard may have reserved.
    let mut beyond: HashMap<u64, u64> = (0..WORKERS).map(|worker| (worker, HELD)).collect();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "S" => {
                billed += number(2);
                // Its end may not be on record; then it is booked in full.
                beyond.insert(number(1), number(3) - number(2));
            }
            "E" => {
                beyond.insert(number(1), HELD);
            }
            _ => {}
        }
    }
    (billed, beyond.values().sum())
}

#[test]
fn after_kill_9_at_any_point_the_ledger_has_what_was_billed_or_more_by_what_was_in_flight() {
    let dir = TempDir::new().unwrap();
    let mut rng = StdRng::from_os_rng();
    let kills = if all() { 1000 } else { 20 };
    let (mut calls, mut most_beyond) = (0, 0);
    let mut before = 0;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "ledger::tests::storm::child_that_calls_until_it_is_killed",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        // It has begun; the provider hears all that was said before the end, also after it.
        let first = lines.find(|line| line.starts_with('S')).unwrap();
        let heard_all = std::thread::spawn(move || {
            let lines: Vec<String> = std::iter::once(first).chain(lines).collect();
            lines
        });
        std::thread::sleep(Duration::from_micros(rng.random_range(0..30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = heard_all.join().unwrap();
        calls += lines.iter().filter(|line| line.starts_with('S')).count();
        let (billed, beyond) = heard(lines.into_iter());
        let ledger = Ledger::without_threads(settings(dir.path(), &TestClock::new())).unwrap();
        let (booked, reserved) = balance(&ledger, &day("a", 0));
        assert_eq!(reserved, 0);
        let life = booked - before;
        assert!(
            (billed..=billed + beyond).contains(&life),
            "kill {kill}: {billed} billed, at most {beyond} in flight, {life} booked"
        );
        assert_eq!(
            ledger.recovery().charged_leases,
            0,
            "the machine did not lose power"
        );
        most_beyond = most_beyond.max(life - billed);
        before = booked;
    }
    eprintln!("{kills} kills in {calls} calls; at most {most_beyond} booked beyond the bill");
    drop(Ledger::open(settings(dir.path(), &TestClock::new())).unwrap());
    let booked = i64::try_from(before).unwrap();
    assert_eq!(database(dir.path()), [("agent a".into(), booked, 0)]);
}
