//! Power loss: a disk that remembers what was written and what was brought to it, cut at every point of random
//! schedules. Of what was not brought to it any part may be there: all, nothing, some writes and not others, torn ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::ledger::files::Files;
use crate::ledger::opening::Ground;

/// Segments by number.
type Image = BTreeMap<u64, Vec<u8>>;

#[derive(Debug, Clone)]
enum Op {
    Create(u64),
    Write(u64, usize, Vec<u8>),
    SetLen(u64, usize),
    Sync(u64),
    SyncDirectory,
    Remove(u64),
    /// A call was sent to its provider.
    Sent(usize),
}

#[derive(Default)]
struct Platters {
    /// What was on disk when the machine was started.
    base: Image,
    /// What the running system sees.
    live: Image,
    log: Vec<(Timestamp, Op)>,
    /// Of processes: what a killed one still does does not happen.
    generation: u64,
    /// No fsync succeeds.
    broken: bool,
    /// How long an fsync takes.
    slow: std::time::Duration,
}

struct Disk {
    platters: Arc<Mutex<Platters>>,
    clock: Arc<TestClock>,
    generation: u64,
}

impl Disk {
    fn with<T: Default>(&self, step: impl FnOnce(&mut Platters) -> (T, Option<Op>)) -> T {
        let mut platters = self.platters.lock().unwrap();
        if platters.generation != self.generation {
            return T::default();
        }
        let (result, op) = step(&mut platters);
        platters.log.extend(op.map(|op| (self.clock.now(), op)));
        result
    }

    fn handle(&self, segment: u64) -> Arc<dyn Storage> {
        let disk = Self {
            platters: Arc::clone(&self.platters),
            clock: Arc::clone(&self.clock),
            generation: self.generation,
        };
        Arc::new(Handle { disk, segment })
    }

    fn sync_of(&self, op: Op) -> io::Result<()> {
        let slow = self.platters.lock().unwrap().slow;
        std::thread::sleep(slow);
        let broken = self.with(|platters| {
            let broken = platters.broken;
            (broken, (!broken).then_some(op))
        });
        if broken {
            Err(io::ErrorKind::Other.into())
        } else {
            Ok(())
        }
    }
}

struct Handle {
    disk: Disk,
    segment: u64,
}

impl Files for Disk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.with(|platters| (platters.live.keys().copied().collect(), None)))
    }

    fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        Ok(self.with(|platters| (platters.live[&segment].clone(), None)))
    }

    fn create(&self, segment: u64) -> io::Result<Arc<dyn Storage>> {
        self.with(|platters| {
            platters.live.insert(segment, Vec::new());
            ((), Some(Op::Create(segment)))
        });
        Ok(self.handle(segment))
    }

    fn resume(&self, segment: u64) -> io::Result<Arc<dyn Storage>> {
        Ok(self.handle(segment))
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        self.with(|platters| {
            platters.live.remove(&segment);
            ((), Some(Op::Remove(segment)))
        });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.sync_of(Op::SyncDirectory)
    }

    fn keep(&self, _name: &str, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, segment: u64) -> PathBuf {
        segment_path(Path::new("/disk"), segment)
    }
}

impl Storage for Handle {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let segment = self.segment;
        self.disk.with(|platters| {
            let file = platters.live.entry(segment).or_default();
            let at = file.len();
            file.extend_from_slice(bytes);
            ((), Some(Op::Write(segment, at, bytes.to_vec())))
        });
        Ok(bytes.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (segment, len) = (self.segment, usize::try_from(len).unwrap());
        self.disk.with(|platters| {
            platters.live.entry(segment).or_default().truncate(len);
            ((), Some(Op::SetLen(segment, len)))
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_of(Op::Sync(self.segment))
    }
}

/// What becomes of what was not brought to the disk.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Lost,
    Kept,
    Some,
}

impl Fate {
    fn keeps(self, rng: &mut StdRng) -> bool {
        match self {
            Self::Lost => false,
            Self::Kept => true,
            Self::Some => rng.random_bool(0.5),
        }
    }
}

fn apply(file: &mut Vec<u8>, op: &Op, fate: Fate, rng: &mut StdRng) {
    if !fate.keeps(rng) {
        return;
    }
    match op {
        Op::Create(_) => file.clear(),
        Op::SetLen(_, len) => file.truncate(*len),
        Op::Write(_, at, bytes) => {
            // Torn at both ends, now and then.
            let torn = matches!(fate, Fate::Some) && rng.random_bool(0.3);
            let (from, to) = if torn {
                let from = rng.random_range(0..=bytes.len());
                (from, rng.random_range(from..=bytes.len()))
            } else {
                (0, bytes.len())
            };
            if file.len() < at + to {
                file.resize(at + to, 0);
            }
            file[at + from..at + to].copy_from_slice(&bytes[from..to]);
        }
        Op::Sync(_) | Op::SyncDirectory | Op::Remove(_) | Op::Sent(_) => {}
    }
}

/// What is on disk after the power was lost behind these operations.
fn survives(base: &Image, log: &[(Timestamp, Op)], fate: Fate, rng: &mut StdRng) -> Image {
    let mut files = base.clone();
    let mut pending: BTreeMap<u64, Vec<Op>> = BTreeMap::new();
    // Which names are there, and which may be or may be not.
    let mut named: BTreeSet<u64> = base.keys().copied().collect();
    let (mut made, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for (_, op) in log {
        match op {
            Op::Create(segment) => {
                if !named.contains(segment) {
                    made.insert(*segment);
                }
                pending.entry(*segment).or_default().push(op.clone());
            }
            Op::Write(segment, ..) | Op::SetLen(segment, _) => {
                pending.entry(*segment).or_default().push(op.clone());
            }
            Op::Sync(segment) => {
                let file = files.entry(*segment).or_default();
                for op in pending.remove(segment).unwrap_or_default() {
                    apply(file, &op, Fate::Kept, rng);
                }
            }
            Op::Remove(segment) => {
                removed.insert(*segment);
            }
            Op::SyncDirectory => {
                named.append(&mut made);
                for segment in std::mem::take(&mut removed) {
                    named.remove(&segment);
                }
            }
            Op::Sent(_) => {}
        }
    }
    for (segment, ops) in pending {
        let file = files.entry(segment).or_default();
        for op in ops {
            apply(file, &op, fate, rng);
        }
    }
    named.extend(made.into_iter().filter(|_| fate.keeps(rng)));
    for segment in removed {
        if !fate.keeps(rng) {
            continue;
        }
        named.remove(&segment);
    }
    files.retain(|segment, _| named.contains(segment));
    files
}

const LIMIT: u64 = 1000;
const WINDOWS: [Window; 3] = [Window::Day, Window::Run, Window::Rolling(60)];

fn charges(agent: u8) -> [Charge; 3] {
    WINDOWS.map(|window| Charge {
        scope: scope(
            if window == Window::Run {
                ScopeKind::Run
            } else {
                ScopeKind::Agent
            },
            &format!("a{agent}"),
        ),
        window,
        limit: Pico(LIMIT).into(),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { agent: u8, amount: u64, percent: u64 },
    Settle { which: usize },
    Abort { which: usize },
    Sync,
    Rotate,
    Lift,
    Pass { seconds: i64 },
    Kill,
    StopAndStart,
    Reboot { seed: u64 },
    Cut { seed: u64 },
    Break { broken: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..2_u8, 1..150_u64, 0..=100_u64)
            .prop_map(|(agent, amount, percent)| Step::Reserve { agent, amount, percent }),
        6 => any::<usize>().prop_map(|which| Step::Settle { which }),
        1 => any::<usize>().prop_map(|which| Step::Abort { which }),
        4 => Just(Step::Sync),
        1 => Just(Step::Rotate),
        1 => Just(Step::Lift),
        3 => (0..200_i64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (0..90_000_i64).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Kill),
        1 => Just(Step::StopAndStart),
        1 => any::<u64>().prop_map(|seed| Step::Reboot { seed }),
        1 => any::<u64>().prop_map(|seed| Step::Cut { seed }),
        1 => any::<bool>().prop_map(|broken| Step::Break { broken }),
    ]
}

struct Call {
    agent: u8,
    at: Timestamp,
    cost: u64,
    reservation: Option<Reservation>,
    sent: bool,
}

struct World {
    platters: Arc<Mutex<Platters>>,
    clock: Arc<TestClock>,
    boot: u128,
    ledger: Option<Ledger>,
    calls: Vec<Call>,
    /// Sent in earlier boots.
    before: Vec<usize>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            platters: Arc::default(),
            clock: TestClock::new(),
            boot: 1,
            ledger: None,
            calls: Vec::new(),
            before: Vec::new(),
        };
        world.start();
        world
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }

    /// A new process, on what is there.
    fn start(&mut self) {
        let generation = {
            let mut platters = self.platters.lock().unwrap();
            platters.generation += 1;
            platters.generation
        };
        for call in &mut self.calls {
            call.reservation = None;
        }
        self.ledger = Some(open(&self.platters, &self.clock, self.boot, generation));
    }

    /// Another boot, on what is left.
    fn reboot(&mut self, image: Image) {
        let mut platters = self.platters.lock().unwrap();
        let sent = platters.log.iter().filter_map(|(_, op)| match op {
            Op::Sent(call) => Some(*call),
            _ => None,
        });
        self.before.extend(sent);
        *platters = Platters {
            live: image.clone(),
            base: image,
            generation: platters.generation,
            ..Platters::default()
        };
        drop(platters);
        self.boot += 1;
        self.start();
    }

    fn log(&self, op: Op) {
        self.platters.lock().unwrap().log.push((self.clock.now(), op));
    }

    /// Calls are sent as soon as what they need is on disk.
    fn send(&mut self) {
        for at in 0..self.calls.len() {
            let call = &mut self.calls[at];
            let ready = call.reservation.as_ref().is_some_and(|r| r.on_disk().is_none());
            if ready && !call.sent {
                call.sent = true;
                self.log(Op::Sent(at));
            }
        }
    }

    /// One that was sent and has not ended.
    fn open_call(&mut self, which: usize) -> Option<&mut Call> {
        let mut open: Vec<_> = self
            .calls
            .iter_mut()
            .filter(|call| call.sent && call.reservation.is_some())
            .collect();
        if open.is_empty() {
            return None;
        }
        let which = which % open.len();
        Some(open.swap_remove(which))
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Reserve {
                agent,
                amount,
                percent,
            } => match self.ledger().reserve(call(), &charges(agent), Pico(amount)) {
                Ok(reservation) => self.calls.push(Call {
                    agent,
                    at: self.clock.now(),
                    cost: amount * percent / 100,
                    reservation: Some(reservation),
                    sent: false,
                }),
                Err(ReserveError::Exhausted(_) | ReserveError::Stopped(_)) => {}
            },
            Step::Settle { which } => {
                if let Some(call) = self.open_call(which) {
                    let cost = Pico(call.cost);
                    prop_assert!(!call.reservation.take().unwrap().settle(cost).overrun);
                }
            }
            Step::Abort { which } => {
                if let Some(call) = self.open_call(which) {
                    call.reservation = None;
                }
            }
            Step::Sync => self.ledger().inner.sync_or_stop(),
            Step::Rotate => self.ledger().inner.rotate_when_long(),
            Step::Lift => {
                self.ledger().inner.lock().lift(self.clock.now().as_microsecond());
            }
            Step::Pass { seconds } => self.clock.advance(seconds * 1_000_000),
            Step::Kill => self.start(),
            Step::StopAndStart => {
                self.ledger().inner.mark_complete();
                self.start();
            }
            Step::Reboot { seed } => {
                self.ledger().inner.mark_complete();
                let image = self.cut(seed);
                self.reboot(image);
            }
            Step::Cut { seed } => {
                self.every_cut(seed)?;
                let image = self.cut(seed);
                self.reboot(image);
            }
            Step::Break { broken } => self.platters.lock().unwrap().broken = broken,
        }
        self.send();
        Ok(())
    }

    fn cut(&self, seed: u64) -> Image {
        let mut rng = StdRng::seed_from_u64(seed);
        let fate = [Fate::Lost, Fate::Kept, Fate::Some][usize::try_from(seed % 3).unwrap()];
        let platters = self.platters.lock().unwrap();
        survives(&platters.base, &platters.log, fate, &mut rng)
    }

    /// The power is lost at every point since the machine was started; and again at every point of the start after that,
    /// for some of them.
    fn every_cut(&self, seed: u64) -> Result<(), TestCaseError> {
        let platters = self.platters.lock().unwrap();
        let (base, log) = (platters.base.clone(), platters.log.clone());
        drop(platters);
        let mut rng = StdRng::seed_from_u64(seed);
        for cut in 0..=log.len() {
            let log = &log[..cut];
            for fate in [Fate::Lost, Fate::Kept, Fate::Some] {
                let image = survives(&base, log, fate, &mut rng);
                self.recovers(log, &image, &mut rng, self.boot + 1, cut % 16 == 0)?;
            }
        }
        Ok(())
    }

    /// After a start on this image every account that is in force has at least what its calls can have cost by then, and no
    /// more than its limit.
    fn recovers(
        &self,
        log: &[(Timestamp, Op)],
        image: &Image,
        rng: &mut StdRng,
        boot: u128,
        again: bool,
    ) -> Result<(), TestCaseError> {
        let now = log.last().map_or_else(|| self.clock.now(), |(at, _)| *at);
        let clock = Arc::new(TestClock(AtomicI64::new(now.as_microsecond())));
        let platters = Arc::new(Mutex::new(Platters {
            base: image.clone(),
            live: image.clone(),
            ..Platters::default()
        }));
        let ledger = open(&platters, &clock, boot, 0);
        let known = log.iter().filter_map(|(_, op)| match op {
            Op::Sent(call) => Some(*call),
            _ => None,
        });
        let sent: BTreeSet<usize> = known.chain(self.before.iter().copied()).collect();
        for charge in (0..2).flat_map(charges) {
            let billed: u64 = sent
                .iter()
                .map(|call| &self.calls[*call])
                .filter(|call| charge.scope.name.as_ref() == format!("a{}", call.agent))
                .filter(|call| counts(charge.window, call.at, now))
                .map(|call| call.cost)
                .sum();
            let (settled, reserved) = balance_now(&ledger, &charge, now);
            prop_assert!(
                settled >= billed,
                "{:?}: {} billed, {} on record",
                charge,
                billed,
                settled
            );
            prop_assert_eq!(reserved, 0);
            prop_assert!(
                settled <= LIMIT || charge.window.rolling().is_some(),
                "{:?}: {} on record",
                charge,
                settled
            );
        }
        if again {
            let log = platters.lock().unwrap().log.clone();
            drop(ledger);
            for cut in 0..=log.len() {
                let left = survives(image, &log[..cut], Fate::Some, rng);
                let known: Vec<_> = sent.iter().map(|call| (now, Op::Sent(*call))).collect();
                self.recovers(&known, &left, rng, boot + 1, false)?;
            }
        }
        Ok(())
    }
}

fn counts(window: Window, at: Timestamp, now: Timestamp) -> bool {
    match window.rolling() {
        Some((length, _)) => now.as_microsecond() - at.as_microsecond() < length,
        None => {
            let period = |at| window::bounds(window, at, &TimeZone::UTC).unwrap();
            period(at) == period(now)
        }
    }
}

/// The account of the window that is in force.
fn balance_now(ledger: &Ledger, charge: &Charge, now: Timestamp) -> (u64, u64) {
    ledger
        .accounts()
        .into_iter()
        .filter(|view| view.scope == charge.scope && view.window == charge.window)
        .filter(|view| view.resets_at.is_none_or(|ends| now < ends))
        .map(|view| (view.settled.count, view.reserved.count))
        .fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
}

fn open(platters: &Arc<Mutex<Platters>>, clock: &Arc<TestClock>, boot: u128, generation: u64) -> Ledger {
    let dir = TempDir::new().unwrap();
    let ground = Ground {
        files: Arc::new(Disk {
            platters: Arc::clone(platters),
            clock: Arc::clone(clock),
            generation,
        }),
        boot,
        segment_bytes: 2 << 10,
    };
    Ledger {
        inner: Arc::new(Inner::open(settings(dir.path(), clock), ground).unwrap()),
        syncer: None,
        projector: None,
    }
}

fn schedule(steps: Vec<Step>, seed: u64) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for step in steps {
        world.take(step)?;
    }
    world.every_cut(seed)
}

/// A case opens the ledger some thousand times.
fn few() -> ProptestConfig {
    let all = cases().cases;
    ProptestConfig {
        cases: if all > 96 { all } else { 24 },
        ..cases()
    }
}

proptest! {
    #![proptest_config(few())]

    /// Nor is one booked above its limit: what a power loss takes is no more than a lease.
    #[test]
    fn power_lost_at_any_point_no_budget_is_overspent(
        steps in prop::collection::vec(step(), 1..60), seed in any::<u64>(),
    ) {
        schedule(steps, seed)?;
    }
}

/// Threads bring it to the disk, which takes its time: nobody who does not need the disk waits for it.
#[test]
fn on_a_slow_disk_only_a_call_that_needs_a_larger_lease_waits() {
    use std::time::{Duration, Instant};
    let platters = Arc::new(Mutex::new(Platters::default()));
    let ledger = open(&platters, &TestClock::new(), 1, 0);
    let slow = Duration::from_millis(300);
    platters.lock().unwrap().slow = slow;
    let syncer = syncer::Syncer::start(&ledger.inner).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let began = Instant::now();
    let first = ledger.reserve(call(), &charges(0), Pico(10)).unwrap();
    runtime.block_on(first.on_disk().expect("nothing is on disk").wait());
    assert!(began.elapsed() >= slow);
    assert!(first.on_disk().is_none());
    for _ in 0..3 {
        let began = Instant::now();
        let next = ledger.reserve(call(), &charges(0), Pico(1)).unwrap();
        assert!(next.on_disk().is_none(), "the lease has room");
        next.settle(Pico(1));
        assert!(began.elapsed() < slow, "{:?}", began.elapsed());
    }
    first.settle(Pico(10));
    syncer.stop();
}

#[test]
fn a_call_waits_for_its_lease_and_the_next_ones_do_not() {
    let mut world = World::new();
    let reserve = |world: &mut World| {
        let step = Step::Reserve {
            agent: 0,
            amount: 10,
            percent: 100,
        };
        world.take(step).unwrap();
        world.calls.last().unwrap().sent
    };
    assert!(!reserve(&mut world), "nothing is on disk yet");
    world.take(Step::Sync).unwrap();
    assert!(world.calls[0].sent);
    assert!(reserve(&mut world), "the lease is for more than one call");
}

#[test]
fn what_was_written_after_the_last_fsync_is_charged_once_and_a_clean_stop_charges_nothing() {
    for (clean, expected) in [(false, 50), (true, 10)] {
        let mut world = World::new();
        let reserve = Step::Reserve {
            agent: 0,
            amount: 10,
            percent: 100,
        };
        world.take(reserve).unwrap();
        world.take(Step::Sync).unwrap();
        world.take(Step::Settle { which: 0 }).unwrap();
        if clean {
            world.ledger().inner.mark_complete();
        }
        for _ in 0..3 {
            let image = world.cut(0);
            world.reboot(image);
            let recovery = world.ledger().recovery();
            let (booked, _) = balance(world.ledger(), &charges(0)[0]);
            // 10 were reserved; a first lease is for four more of them.
            assert_eq!(booked, expected, "{recovery:?}");
        }
    }
}

#[test]
fn a_disk_that_fails_to_sync_stops_admission_until_everything_is_on_it_in_a_new_segment() {
    let mut world = World::new();
    let reserve = Step::Reserve {
        agent: 0,
        amount: 10,
        percent: 100,
    };
    world.take(reserve.clone()).unwrap();
    world.take(Step::Sync).unwrap();
    world.take(Step::Break { broken: true }).unwrap();
    for _ in 0..5 {
        world.take(Step::Sync).unwrap();
    }
    let refused = world.ledger().reserve(call(), &charges(0), Pico(1));
    assert!(
        matches!(&refused, Err(ReserveError::Stopped(why)) if why.contains("cannot be brought to the disk")),
        "{refused:?}"
    );
    assert!(world.ledger().stopped().is_some());
    // Meanwhile a call ends.
    world.take(Step::Settle { which: 0 }).unwrap();
    let segments = world.platters.lock().unwrap().live.len();
    assert!(
        segments <= 2,
        "a disk that fails for long is not filled: {segments}"
    );
    world.take(Step::Break { broken: false }).unwrap();
    world.take(Step::Sync).unwrap();
    assert_eq!(world.ledger().stopped(), None);
    world.take(reserve).unwrap();
    world.every_cut(1).unwrap();
}
