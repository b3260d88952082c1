//! Steps of the wall clock, forwards and backwards: no budget opens by itself.

use std::time::Duration;

use super::*;

/// A wall clock that can be set, beside a boot clock that can't.
struct Steps {
    wall: AtomicI64,
    boot: AtomicI64,
    synchronised: AtomicBool,
}

impl Steps {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            wall: AtomicI64::new(TestClock::new().now().as_microsecond()),
            boot: AtomicI64::new(1000 * MINUTE),
            synchronised: AtomicBool::new(false),
        })
    }

    fn pass(&self, micros: i64) {
        self.wall.fetch_add(micros, Ordering::Relaxed);
        self.boot.fetch_add(micros, Ordering::Relaxed);
    }

    fn step(&self, micros: i64) {
        self.wall.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.wall.load(Ordering::Relaxed)).unwrap()
    }

    fn since_boot(&self) -> Option<Duration> {
        let micros = self.boot.load(Ordering::Relaxed);
        Some(Duration::from_micros(u64::try_from(micros).unwrap()))
    }

    fn is_synchronised(&self) -> bool {
        self.synchronised.load(Ordering::Relaxed)
    }
}

fn ledger(dir: &Path, clock: &Arc<Steps>) -> Arc<Ledger> {
    let clock: Arc<Steps> = Arc::clone(clock);
    Ledger::without_threads(LedgerSettings {
        dir: dir.to_owned(),
        timezone: TimeZone::UTC,
        clock,
    })
    .unwrap()
}

fn charges() -> [Charge; 2] {
    let rolling = Charge {
        window: Window::Rolling(60),
        ..day("a", 10)
    };
    [day("a", 10), rolling]
}

fn spend(ledger: &Ledger) {
    ledger
        .reserve(call(), &charges(), Pico(10))
        .unwrap()
        .settle(Pico(10));
}

fn is_closed(ledger: &Ledger) {
    assert!(!exhausted(ledger.reserve(call(), &charges(), Pico(1))).transient);
}

#[test]
fn a_clock_that_jumps_ahead_opens_no_window_until_the_time_has_passed() {
    let dir = TempDir::new().unwrap();
    let clock = Steps::new();
    let open = ledger(dir.path(), &clock);
    spend(&open);
    clock.step(20 * 60 * MINUTE);
    is_closed(&open);
    assert_eq!(open.clock_held().unwrap().as_hours(), 20);
    // Nor does a restart of the daemon help it.
    drop(open);
    let open = ledger(dir.path(), &clock);
    is_closed(&open);
    assert!(open.clock_held().is_some());
    // Small jumps, one after the other, are seen too.
    clock.step(-20 * 60 * MINUTE);
    assert_eq!(open.clock_held(), None);
    for _ in 0..3600 {
        clock.step(1_000_000);
        clock.pass(1_000_000);
        is_closed(&open);
    }
    assert!(open.clock_held().is_some());
    // After as much real time as the window had left it opens, and the other one at its own time.
    clock.pass(14 * 60 * MINUTE);
    spend(&open);
}

#[test]
fn a_jump_is_believed_when_the_clock_is_synchronised_or_the_operator_says_so() {
    for by_the_operator in [false, true] {
        let dir = TempDir::new().unwrap();
        let clock = Steps::new();
        let open = ledger(dir.path(), &clock);
        spend(&open);
        clock.step(20 * 60 * MINUTE);
        is_closed(&open);
        if by_the_operator {
            open.believe_clock();
        } else {
            clock.synchronised.store(true, Ordering::Relaxed);
        }
        spend(&open);
        assert_eq!(open.clock_held(), None);
        is_closed(&open);
    }
}

#[test]
fn a_clock_that_steps_back_and_forth_opens_nothing() {
    let dir = TempDir::new().unwrap();
    let clock = Steps::new();
    let open = ledger(dir.path(), &clock);
    spend(&open);
    for step in [-3 * DAY, 3 * DAY, -40 * DAY, 80 * DAY, -40 * DAY] {
        clock.step(step);
        is_closed(&open);
    }
    clock.pass(15 * 60 * MINUTE);
    spend(&open);
}

#[test]
fn a_clock_that_is_adjusted_slowly_is_followed() {
    let dir = TempDir::new().unwrap();
    let clock = Steps::new();
    let open = ledger(dir.path(), &clock);
    // 500 ppm, as fast as NTP slews, for a day.
    for _ in 0..24 * 60 {
        clock.pass(MINUTE);
        clock.step(MINUTE / 2000);
        assert_eq!(open.clock_held(), None);
    }
}

#[test]
fn this_machine_says_how_long_it_has_been_running() {
    let clock = crate::clock::SystemClock;
    let first = clock.since_boot().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert!(clock.since_boot().unwrap() >= first + Duration::from_millis(5));
    // Whether it is synchronised is the machine's affair; that it can be asked is ours.
    let _answer: bool = clock.is_synchronised();
}
