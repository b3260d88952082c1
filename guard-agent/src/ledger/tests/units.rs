//! Limits in tokens and in calls beside money, of one scope in one window.

use super::*;

fn limits(usd: u64, tokens: u64, calls: u64) -> [Charge; 3] {
    [(Unit::Usd, usd), (Unit::Tokens, tokens), (Unit::Calls, calls)].map(|(unit, count)| Charge {
        limit: Amount { unit, count },
        ..day("a", 0)
    })
}

fn amounts(usd: u64, tokens: u64) -> Amounts {
    Amounts {
        usd: Pico(usd),
        tokens,
        calls: 1,
    }
}

fn held(ledger: &Ledger) -> Vec<(Unit, u64, u64)> {
    let views = ledger.accounts().into_iter();
    views
        .map(|view| (view.settled.unit, view.settled.count, view.reserved.count))
        .collect()
}

#[test]
fn a_call_is_reserved_in_every_unit_or_in_none() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::without_threads(settings(dir.path(), &TestClock::new())).unwrap();
    let first = ledger
        .reserve(call(), &limits(10, 100, 2), amounts(4, 30))
        .unwrap();
    for (limits, unit) in [
        (limits(7, 100, 2), Unit::Usd),
        (limits(10, 59, 2), Unit::Tokens),
        (limits(10, 100, 1), Unit::Calls),
    ] {
        let refused = exhausted(ledger.reserve(call(), &limits, amounts(4, 30)));
        assert_eq!((refused.limit.unit, refused.requested.unit), (unit, unit));
        assert!(refused.transient);
    }
    assert_eq!(
        held(&ledger),
        [(Unit::Usd, 0, 4), (Unit::Tokens, 0, 30), (Unit::Calls, 0, 1)]
    );
    assert!(!first.settle(amounts(3, 30)).overrun);
    let second = ledger
        .reserve(call(), &limits(10, 100, 2), amounts(4, 30))
        .unwrap();
    assert!(
        second.settle(amounts(4, 31)).overrun,
        "more tokens than were reserved"
    );
    let refused = exhausted(ledger.reserve(call(), &limits(10, 100, 2), amounts(0, 0)));
    assert!(!refused.transient, "two of two calls are settled");
    assert_eq!(
        refused.to_string(),
        "agent a has 2 calls settled and 0 calls reserved of 2 calls this day; 1 call more does not fit"
    );
}

#[test]
fn a_call_that_never_left_counts_in_no_unit() {
    let dir = TempDir::new().unwrap();
    let ledger = Ledger::without_threads(settings(dir.path(), &TestClock::new())).unwrap();
    let charges = limits(10, 100, 1);
    ledger
        .reserve(call(), &charges, amounts(4, 30))
        .unwrap()
        .release();
    ledger
        .reserve(call(), &charges, amounts(4, 30))
        .unwrap()
        .release();
    assert!(
        held(&ledger)
            .iter()
            .all(|(_, settled, reserved)| settled + reserved == 0)
    );
}

#[test]
fn a_restart_knows_every_unit_and_the_database_has_them() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let charges = limits(10, 100, 5);
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    ledger
        .reserve(Ulid::new(), &charges, amounts(4, 30))
        .unwrap()
        .settle(amounts(1, 20));
    std::mem::forget(ledger.reserve(Ulid::new(), &charges, amounts(5, 40)).unwrap());
    drop(ledger);
    let expected = [(Unit::Usd, 6, 0), (Unit::Tokens, 60, 0), (Unit::Calls, 2, 0)];
    let left = crash(dir.path());
    drop(Ledger::open(settings(left.path(), &clock)).unwrap());
    let db = Connection::open(left.path().join("ledger.db")).unwrap();
    let rows = |query: &str| -> Vec<(String, i64, i64)> {
        let mut rows = db.prepare(query).unwrap();
        rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(
        rows("SELECT unit, settled, reserved FROM accounts ORDER BY unit"),
        [
            ("calls".into(), 2, 0),
            ("tokens".into(), 60, 0),
            ("usd".into(), 6, 0)
        ]
    );
    assert_eq!(
        rows("SELECT outcome, booked_tokens, booked_calls FROM calls ORDER BY id"),
        [("settled".into(), 20, 1), ("recovered".into(), 40, 1)]
    );
    drop(db);
    // From the journal, and without it from the database.
    let from_journal = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
    assert_eq!(held(&from_journal), expected);
    drop(from_journal);
    std::fs::remove_file(journal_file(left.path())).unwrap();
    let from_database = Ledger::without_threads(settings(left.path(), &clock)).unwrap();
    assert_eq!(held(&from_database), expected);
}

#[test]
fn an_extension_is_reserved_everywhere_or_nowhere_and_survives_a_crash() {
    let dir = TempDir::new().unwrap();
    let clock = TestClock::new();
    let ledger = Ledger::open(settings(dir.path(), &clock)).unwrap();
    let charges = limits(10, 100, 5);
    let mut first = ledger.reserve(Ulid::new(), &charges, amounts(4, 30)).unwrap();
    let other = ledger.reserve(Ulid::new(), &charges, amounts(2, 10)).unwrap();
    let more = |usd, tokens| Amounts {
        calls: 0,
        ..amounts(usd, tokens)
    };
    // What the other call holds may come back; what the call itself holds does not.
    let Err(ReserveError::Exhausted(no)) = first.extend(more(7, 1), &charges) else {
        panic!("admitted");
    };
    assert_eq!((no.settled.count, no.reserved.count, no.transient), (4, 2, false));
    for (too_much, unit) in [(more(5, 1), Unit::Usd), (more(1, 61), Unit::Tokens)] {
        let Err(ReserveError::Exhausted(no)) = first.extend(too_much, &charges) else {
            panic!("admitted");
        };
        assert_eq!((no.limit.unit, no.transient), (unit, true));
    }
    first.extend(more(4, 60), &charges).unwrap();
    assert_eq!(first.amount(), amounts(8, 90));
    assert_eq!(
        held(&ledger),
        [(Unit::Usd, 0, 10), (Unit::Tokens, 0, 100), (Unit::Calls, 0, 2)]
    );
    // The limits in force now count: one that is gone limits no more, a lower one does.
    assert!(first.extend(more(1, 0), &limits(9, 1000, 5)).is_err());
    first.extend(more(1, 0), &limits(0, 1000, 5)[1..]).unwrap();
    drop(other);
    let left = crash(dir.path());
    let after = Ledger::open(settings(left.path(), &clock)).unwrap();
    assert_eq!(after.recovery().charged_amount, Pico(9));
    assert_eq!(
        held(&after),
        [(Unit::Usd, 11, 0), (Unit::Tokens, 100, 0), (Unit::Calls, 2, 0)]
    );
    drop(after);
    assert_eq!(
        database(left.path()),
        [
            ("agent a".into(), 11, 0),
            ("agent a".into(), 100, 0),
            ("agent a".into(), 2, 0)
        ]
    );
    // The end of a call whose extension is damaged frees what it held, and books what it cost.
    assert!(!first.settle(amounts(7, 80)).overrun);
    drop(ledger);
    let path = journal_file(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let extensions = payloads_of(&bytes, codec::EXTEND);
    assert_eq!(extensions.len(), 2);
    for at in extensions {
        bytes[at] ^= 0x40;
    }
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(dir.path().join("ledger.db")).unwrap();
    let after = Ledger::open(settings(dir.path(), &clock)).unwrap();
    let expected = [(Unit::Usd, 9, 0), (Unit::Tokens, 90, 0), (Unit::Calls, 2, 0)];
    assert_eq!(held(&after), expected);
    drop(after);
    assert_eq!(
        database(dir.path()),
        [
            ("agent a".into(), 9, 0),
            ("agent a".into(), 90, 0),
            ("agent a".into(), 2, 0)
        ]
    );
}

/// `ledger.db` as its first version made it, with one call and one account.
const FIRST: &str = "
    CREATE TABLE calls (id INTEGER PRIMARY KEY, call TEXT NOT NULL, reserved_at TEXT NOT NULL,
      reserved_pico_usd INTEGER NOT NULL, ended_at TEXT, cost_pico_usd INTEGER, outcome TEXT) STRICT;
    CREATE TABLE accounts (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, time_window TEXT NOT NULL,
      starts_us INTEGER NOT NULL, ends_us INTEGER NOT NULL, starts_at TEXT, ends_at TEXT,
      settled_pico_usd INTEGER NOT NULL, reserved_pico_usd INTEGER NOT NULL,
      UNIQUE (kind, name, time_window, starts_us)) STRICT;
    CREATE TABLE charges (call_id INTEGER NOT NULL REFERENCES calls (id),
      account_id INTEGER NOT NULL REFERENCES accounts (id), PRIMARY KEY (call_id, account_id)) STRICT, WITHOUT ROWID;
    CREATE TABLE journal_position (id INTEGER PRIMARY KEY CHECK (id = 1), segment INTEGER NOT NULL,
      byte_offset INTEGER NOT NULL, next_seq INTEGER NOT NULL) STRICT;
    CREATE VIEW calls_usd AS SELECT id, cost_pico_usd / 1e12 AS cost_usd FROM calls;
    CREATE VIEW accounts_usd AS SELECT kind, name, settled_pico_usd / 1e12 AS settled_usd FROM accounts;
    INSERT INTO calls VALUES (2, 'c', '2026-11-23T09:00:00Z', 9, '2026-11-23T09:00:01Z', 7, 'settled');
    INSERT INTO accounts VALUES (1, 'agent', 'a', 'day', 1795392000000000, 1795478400000000, 's', 'e', 7, 0);
    INSERT INTO charges VALUES (2, 1);
    INSERT INTO journal_position VALUES (1, 3, 10, 4);
    PRAGMA user_version = 1;";

#[test]
fn a_database_of_the_first_version_is_taken_over_with_its_history() {
    let dir = TempDir::new().unwrap();
    let db = Connection::open(dir.path().join("ledger.db")).unwrap();
    db.execute_batch(FIRST).unwrap();
    drop(db);
    let ledger = Ledger::open(settings(dir.path(), &TestClock::new())).unwrap();
    assert!(ledger.recovery().from_database);
    let charges = limits(10, 100, 5);
    exhausted(ledger.reserve(call(), &charges, amounts(4, 30)));
    ledger
        .reserve(Ulid::new(), &charges, amounts(3, 30))
        .unwrap()
        .settle(amounts(3, 30));
    drop(ledger);
    let db = Connection::open(dir.path().join("ledger.db")).unwrap();
    let found: (i64, i64, i64) = db
        .query_row(
            "SELECT (SELECT settled FROM accounts WHERE unit = 'usd'), (SELECT settled FROM accounts WHERE unit = 'tokens'),
                    (SELECT count(*) FROM charges JOIN accounts ON accounts.id = account_id JOIN calls ON calls.id = call_id)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(found, (10, 30, 4));
}
