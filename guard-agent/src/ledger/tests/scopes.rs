//! Every scope, every window and every unit, at once: rolling windows, sessions, time zones, and a random schedule against a plain
//! list of what was spent when.

use super::*;

const HOUR: i64 = 60 * MINUTE;

fn charge(kind: ScopeKind, name: &str, window: Window, limit: u64) -> Charge {
    Charge {
        scope: scope(kind, name),
        window,
        limit: Pico(limit).into(),
    }
}

fn in_zone(dir: &Path, clock: &Arc<TestClock>, zone: &str) -> Arc<Ledger> {
    let settings = LedgerSettings {
        timezone: TimeZone::get(zone).unwrap(),
        ..settings(dir, clock)
    };
    Ledger::without_threads(settings).unwrap()
}

#[test]
fn a_rolling_window_frees_what_is_older_than_its_length_and_not_a_moment_earlier() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [charge(ScopeKind::Agent, "a", Window::Rolling(60), 10)];
    ledger.reserve(call(), &charges, Pico(6)).unwrap().settle(Pico(6));
    clock.advance(30 * MINUTE);
    ledger.reserve(call(), &charges, Pico(4)).unwrap().settle(Pico(4));
    let refused = exhausted(ledger.reserve(call(), &charges, Pico(5)));
    assert!(!refused.transient);
    // A bucket is a minute long, so it is free again 61 minutes after the bucket's begin.
    assert_eq!(refused.resets_at, Some("2026-11-23T10:01:00Z".parse().unwrap()));
    clock.advance(30 * MINUTE);
    exhausted(ledger.reserve(call(), &charges, Pico(5)));
    // A new start knows the buckets too.
    drop(ledger);
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    exhausted(ledger.reserve(call(), &charges, Pico(5)));
    assert_eq!(balance(&ledger, &charges[0]), (10, 0));
    clock.advance(MINUTE);
    ledger.reserve(call(), &charges, Pico(6)).unwrap().settle(Pico(6));
    assert_eq!(balance(&ledger, &charges[0]), (10, 0));
    // A clock that steps back frees nothing.
    clock.advance(-5 * DAY);
    exhausted(ledger.reserve(call(), &charges, Pico(1)));
}

#[test]
fn a_call_in_flight_counts_in_a_rolling_window_until_it_ends() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let charges = [charge(ScopeKind::Host, "host", Window::Rolling(1), 10)];
    let long = ledger.reserve(call(), &charges, Pico(10)).unwrap();
    clock.advance(10 * MINUTE);
    let refused = exhausted(ledger.reserve(call(), &charges, Pico(1)));
    assert!(refused.transient);
    long.settle(Pico(10));
    ledger.reserve(call(), &charges, Pico(10)).unwrap().release();
}

#[test]
fn a_change_of_the_time_zone_opens_no_window_early() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let charges = [day("a", 10)];
    let spend = |ledger: &Ledger| {
        ledger
            .reserve(call(), &charges, Pico(10))
            .unwrap()
            .settle(Pico(10))
    };
    let ledger = in_zone(dir.path(), &clock, "Europe/Berlin");
    spend(&ledger);
    drop(ledger);
    // New York's day began at 05:00Z, later than Berlin's, which lasts until 23:00Z.
    let ledger = in_zone(dir.path(), &clock, "America/New_York");
    exhausted(ledger.reserve(call(), &charges, Pico(1)));
    // At Berlin's midnight it is still the same day in New York: the window lasts until that one ends.
    clock.advance(15 * HOUR);
    let refused = exhausted(ledger.reserve(call(), &charges, Pico(1)));
    assert_eq!(refused.resets_at, Some("2026-11-24T05:00:00Z".parse().unwrap()));
    clock.advance(5 * HOUR);
    spend(&ledger);
    exhausted(ledger.reserve(call(), &charges, Pico(1)));
}

#[test]
fn sessions_end_with_their_run_and_are_bounded() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::without_threads(settings(dir.path(), &TestClock::new())).unwrap();
    let session = |name: &str| [charge(ScopeKind::Session, name, Window::Run, 10)];
    for label in 0..2000 {
        let charges = session(&format!("r/{label}"));
        match ledger.reserve(call(), &charges, Pico(10)) {
            Ok(held) => drop(held.settle(Pico(10))),
            Err(ReserveError::Exhausted(e)) => {
                assert_eq!(
                    &*e.scope.name, "r/-",
                    "one more than are told apart shares an account"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(ledger.accounts().len(), 1025);
    ledger.forget(&scope(ScopeKind::Run, "r"));
    assert_eq!(ledger.accounts(), []);
    // A run whose name only begins like it keeps its sessions.
    drop(ledger.reserve(call(), &session("r2/x"), Pico(1)).unwrap());
    ledger.forget(&scope(ScopeKind::Run, "r"));
    assert_eq!(ledger.accounts().len(), 1);
}

#[test]
fn a_ledger_of_the_first_version_opens_with_every_balance() {
    let dir = TempDir::new().unwrap();
    let line = |json: &str| {
        format!(
            "{:08x} {:08x} {json}\n",
            json.len(),
            crc32fast::hash(json.as_bytes())
        )
    };
    let (starts, ends) = (1_795_392_000_000_000_i64, 1_795_478_400_000_000_i64);
    let account = format!(
        r#"{{"scope":{{"kind":"agent","name":"a"}},"window":"day","starts":{starts},"ends":{ends}}}"#
    );
    let run = r#"{"scope":{"kind":"run","name":"r"},"window":"run","starts":0,"ends":0}"#;
    let posting = |amount: u64| {
        format!(r#"{{"call":"01JDFZ0000000000000000000A","amount":{amount},"accounts":[{account},{run}]}}"#)
    };
    let text = [
        line(&format!(
            r#"{{"seq":1,"t":"checkpoint","at":{starts},"accounts":[{{"account":{account},"settled":7}}],"held":[],"floors":[["day",{starts},{ends}]]}}"#
        )),
        line(&format!(
            r#"{{"seq":2,"t":"reserve","at":{starts},"posting":{}}}"#,
            posting(5)
        )),
        line(&format!(
            r#"{{"seq":3,"t":"close","at":{starts},"id":2,"cost":4,"outcome":"settled","posting":{}}}"#,
            posting(5)
        )),
        line(&format!(
            r#"{{"seq":4,"t":"reserve","at":{starts},"posting":{}}}"#,
            posting(6)
        )),
    ];
    std::fs::write(segment_path(dir.path(), 1), text.concat()).unwrap();
    let clock = TestClock(AtomicI64::new(starts + HOUR));
    let ledger = Ledger::open(settings(dir.path(), &Arc::new(clock))).unwrap();
    let recovery = ledger.recovery();
    assert_eq!(
        (recovery.replayed, recovery.damaged, recovery.charged_in_full),
        (4, 0, 1)
    );
    assert_eq!(balance(&ledger, &day("a", 0)), (17, 0));
    assert_eq!(
        balance(&ledger, &charge(ScopeKind::Run, "r", Window::Run, 0)),
        (10, 0)
    );
    drop(ledger);
    assert_eq!(
        database(dir.path()),
        [("agent a".into(), 17, 0), ("run r".into(), 10, 0)]
    );
    // It goes on in a segment of the new format, and the next start reads that one.
    assert!(segments(dir.path()).contains(&2));
    let clock = TestClock(AtomicI64::new(starts + HOUR));
    let ledger = Ledger::open(settings(dir.path(), &Arc::new(clock))).unwrap();
    assert_eq!(ledger.recovery().charged_in_full, 0);
    assert_eq!(balance(&ledger, &day("a", 0)), (17, 0));
}

// --- a random schedule over all scopes and windows ----------------------------------------------------------------

const WINDOWS: [Window; 6] = [
    Window::Run,
    Window::Hour,
    Window::Day,
    Window::Week,
    Window::Month,
    Window::Rolling(180),
];

/// One call of the reference: when it was reserved, in which accounts, what it holds or has cost.
struct Spent {
    at: Timestamp,
    accounts: Vec<(Scope, Window, Unit)>,
    amounts: Amounts,
    open: bool,
}

/// What must count in a window at an instant, and what may count.
fn counts(window: Window, spent: &Spent, now: Timestamp) -> (bool, bool) {
    let age = now.as_microsecond() - spent.at.as_microsecond();
    match window.rolling() {
        Some((length, bucket)) => (spent.open || age < length, spent.open || age <= length + bucket),
        None => {
            let period = |at| window::bounds(window, at, &TimeZone::UTC).unwrap();
            let same = period(spent.at) == period(now);
            (same, same)
        }
    }
}

fn total(all: &[Spent], charge: &Charge, now: Timestamp) -> (u64, u64) {
    let mut sums = (0, 0);
    let account = (charge.scope.clone(), charge.window, charge.limit.unit);
    for spent in all.iter().filter(|spent| spent.accounts.contains(&account)) {
        let (must, may) = counts(charge.window, spent, now);
        let amount = spent.amounts.of(charge.limit.unit);
        sums.0 += if must { amount } else { 0 };
        sums.1 += if may { amount } else { 0 };
    }
    sums
}

#[derive(Debug, Clone)]
enum Act {
    Reserve {
        pick: [u8; 7],
        windows: u8,
        amount: u64,
        limit: u64,
    },
    Extend {
        which: usize,
        more: u64,
    },
    End {
        which: usize,
        percent: u64,
    },
    Pass {
        minutes: i64,
    },
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (any::<[u8; 7]>(), any::<u8>(), 0..40_u64, 20..200_u64)
            .prop_map(|(pick, windows, amount, limit)| Act::Reserve { pick, windows, amount, limit }),
        2 => (any::<usize>(), 0..30_u64).prop_map(|(which, more)| Act::Extend { which, more }),
        6 => (any::<usize>(), 0..=100_u64).prop_map(|(which, percent)| Act::End { which, percent }),
        3 => (0..4000_i64).prop_map(|minutes| Act::Pass { minutes }),
        1 => Just(Act::Crash),
    ]
}

fn charges_of(pick: [u8; 7], windows: u8, limit: u64) -> Vec<Charge> {
    let mut charges = Vec::new();
    for (kind, pick) in ScopeKind::ALL.into_iter().zip(pick) {
        // A scope of its own for the window kinds, two names a kind; some kinds are left out.
        if pick % 3 == 0 {
            continue;
        }
        let window = WINDOWS[usize::from(pick.wrapping_add(windows)) % WINDOWS.len()];
        let name = format!("{}/{}", kind.label(), pick % 2);
        let unit = Unit::ALL[usize::from(pick / 6) % Unit::ALL.len()];
        let count = match unit {
            Unit::Usd => limit + u64::from(pick),
            Unit::Tokens => limit * 3,
            Unit::Calls => limit / 20,
        };
        charges.push(Charge {
            limit: Amount { unit, count },
            ..charge(kind, &name, window, 0)
        });
    }
    charges
}

fn run_schedule(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let clock = TestClock::new();
    let mut dir = TempDir::new().unwrap();
    let mut ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
    let mut held: Vec<(usize, Reservation, Vec<Charge>)> = Vec::new();
    let mut all: Vec<Spent> = Vec::new();
    for act in acts {
        match act {
            Act::Reserve {
                pick,
                windows,
                amount,
                limit,
            } => {
                let charges = charges_of(pick, windows, limit);
                let now = clock.now();
                let amounts = Amounts {
                    usd: Pico(amount),
                    tokens: amount * 5,
                    calls: 1,
                };
                let over =
                    |sum: u64, charge: &Charge| sum + amounts.of(charge.limit.unit) > charge.limit.count;
                let must = charges
                    .iter()
                    .any(|charge| over(total(&all, charge, now).0, charge));
                let may = charges
                    .iter()
                    .any(|charge| over(total(&all, charge, now).1, charge));
                match ledger.reserve(call(), &charges, amounts) {
                    Ok(reservation) => {
                        prop_assert!(!must, "admitted above a limit");
                        let accounts = charges
                            .iter()
                            .map(|charge| (charge.scope.clone(), charge.window, charge.limit.unit))
                            .collect();
                        held.push((all.len(), reservation, charges));
                        all.push(Spent {
                            at: now,
                            accounts,
                            amounts,
                            open: true,
                        });
                    }
                    Err(ReserveError::Exhausted(_)) => prop_assert!(may, "refused with room in every scope"),
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                }
            }
            Act::End { which, percent } if !held.is_empty() => {
                let (index, reservation, _) = held.swap_remove(which % held.len());
                let reserved = all[index].amounts;
                let used = Amounts {
                    usd: Pico(reserved.usd.0 * percent / 100),
                    tokens: reserved.tokens * (100 - percent) / 100,
                    calls: u64::from(percent > 0),
                };
                if percent == 0 {
                    reservation.release();
                } else {
                    prop_assert_eq!(reservation.settle(used).cost, used);
                }
                all[index].amounts = if percent == 0 { Amounts::ZERO } else { used };
                all[index].open = false;
            }
            Act::Extend { which, more } if !held.is_empty() => {
                let which = which % held.len();
                extend(&mut held[which], &mut all, clock.now(), more)?;
            }
            Act::End { .. } | Act::Extend { .. } => {}
            Act::Pass { minutes } => clock.advance(minutes * MINUTE),
            Act::Crash => {
                let left = crash(dir.path());
                held.drain(..)
                    .for_each(|(_, reservation, _)| std::mem::forget(reservation));
                all.iter_mut().for_each(|spent| spent.open = false);
                dir = left;
                ledger = Ledger::without_threads(settings(dir.path(), &clock)).unwrap();
            }
        }
    }
    add_up(&ledger, &all, clock.now())
}

/// More for a call, in the windows in which it was reserved.
fn extend(
    (index, reservation, charges): &mut (usize, Reservation, Vec<Charge>),
    all: &mut [Spent],
    now: Timestamp,
    more: u64,
) -> Result<(), TestCaseError> {
    let more = Amounts {
        usd: Pico(more),
        tokens: more * 2,
        calls: 0,
    };
    let at = all[*index].at;
    let over = |sum: u64, charge: &Charge| sum + more.of(charge.limit.unit) > charge.limit.count;
    // What has left a rolling window since the call was reserved may count or not.
    let must = charges.iter().any(|charge| {
        let seen_at = if charge.window.rolling().is_some() {
            now
        } else {
            at
        };
        over(total(all, charge, seen_at).0, charge)
    });
    let may = charges
        .iter()
        .any(|charge| over(total(all, charge, at).1, charge));
    match reservation.extend(more, charges) {
        Ok(()) => {
            prop_assert!(!must, "extended above a limit");
            all[*index].amounts = all[*index].amounts.plus(&more);
        }
        Err(ReserveError::Exhausted(_)) => prop_assert!(may, "not extended with room in every scope"),
        Err(other) => return Err(TestCaseError::fail(other.to_string())),
    }
    Ok(())
}

/// Every account in memory is the sum of the calls that count in it.
fn add_up(ledger: &Ledger, all: &[Spent], now: Timestamp) -> Result<(), TestCaseError> {
    for view in ledger.accounts() {
        let found = Charge {
            scope: view.scope,
            window: view.window,
            limit: view.settled,
        };
        let now = view
            .starts
            .filter(|_| view.window.rolling().is_none())
            .unwrap_or(now);
        let (must, may) = total(all, &found, now);
        let stands = view.settled.count + view.reserved.count;
        prop_assert!(
            stands >= must && (stands <= may || view.reserved.count != 0),
            "{:?}: {} {} {}",
            found,
            stands,
            must,
            may
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_scope_and_no_window_is_ever_passed(acts in prop::collection::vec(act(), 1..120)) {
        run_schedule(acts)?;
    }
}
