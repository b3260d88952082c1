//! What a reservation costs: `bench ledger`, run by `cargo xtask bench --ledger`. Writes its table into
//! `docs/performance.md`.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_agent::clock;
use guard_agent::ledger::{Charge, Ledger, LedgerSettings, Scope, ScopeKind, Window};
use guard_agent::money::Pico;
use guard_tests::measured;
use jiff::tz::TimeZone;
use ulid::Ulid;

const SCOPES: [usize; 5] = [1, 10, 100, 1000, 10_000];
const THREADS: [usize; 4] = [1, 4, 16, 64];
/// How long each cell is measured.
const LASTS: Duration = Duration::from_millis(1500);
/// One step in this many has its time taken.
const SAMPLED: u64 = 16;
/// What the ledger promises on two processors, at every number of scopes and threads.
const ENOUGH: u64 = 100_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let what = std::env::args().nth(1);
    ensure!(what.as_deref() == Some("ledger"), "usage: bench ledger");
    let mut table = String::from(
        "| scopes | threads | reserve and settle, per second | reserve p50 | p99 |\n|---|---|---|---|---|\n",
    );
    let mut slowest = u64::MAX;
    for scopes in SCOPES {
        for threads in THREADS {
            let cell = measure(scopes, threads)?;
            let rate = cell.calls * 1_000_000 / u64::try_from(cell.lasted.as_micros())?.max(1);
            eprintln!("{scopes} scopes, {threads} threads: {rate} a second");
            slowest = slowest.min(rate);
            writeln!(
                table,
                "| {scopes} | {threads} | {rate} | {} | {} |",
                nanos(&cell.reserves, 50),
                nanos(&cell.reserves, 99)
            )?;
        }
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = thread::available_parallelism()?;
    let machine = format!("Linux {}, {processors} processors.\n\n", kernel.trim());
    measured::write("ledger", &format!("{machine}{table}"))?;
    ensure!(
        slowest >= ENOUGH,
        "the slowest cell has {slowest} a second, fewer than {ENOUGH}"
    );
    Ok(())
}

struct Cell {
    calls: u64,
    lasted: Duration,
    /// Times of single reservations in nanoseconds, sorted.
    reserves: Vec<u64>,
}

fn measure(scopes: usize, threads: usize) -> Result<Cell> {
    let dir = tempfile::tempdir()?;
    let ledger = Ledger::open(LedgerSettings {
        dir: dir.path().to_owned(),
        timezone: TimeZone::UTC,
        clock: clock::system(),
    })?;
    let stop = AtomicBool::new(false);
    let barrier = Barrier::new(threads + 1);
    let (lasted, done) = thread::scope(|scope| -> Result<_> {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (ledger, stop, barrier) = (Arc::clone(&ledger), &stop, &barrier);
                scope.spawn(move || work(&ledger, scopes, worker, stop, barrier))
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        thread::sleep(LASTS);
        stop.store(true, Ordering::Relaxed);
        let done = workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .map_err(|_panic| anyhow::anyhow!("a worker panicked"))?
            })
            .collect::<Result<Vec<_>>>()?;
        Ok((started.elapsed(), done))
    })?;
    let mut reserves: Vec<u64> = done.iter().flat_map(|(_, times)| times).copied().collect();
    reserves.sort_unstable();
    let calls = done.iter().map(|(calls, _)| calls).sum();
    Ok(Cell {
        calls,
        lasted,
        reserves,
    })
}

/// One worker's calls: each against a day's budget of one of the scopes and the budget of its run.
fn work(
    ledger: &Ledger,
    scopes: usize,
    worker: usize,
    stop: &AtomicBool,
    barrier: &Barrier,
) -> Result<(u64, Vec<u64>)> {
    let charges: Vec<[Charge; 2]> = (0..scopes)
        .map(|n| {
            [
                charge(ScopeKind::Agent, format!("agent-{n}"), Window::Day),
                charge(ScopeKind::Run, format!("01K{n:023}"), Window::Run),
            ]
        })
        .collect();
    let (mut calls, mut times) = (0, Vec::new());
    barrier.wait();
    let mut at = worker * scopes / 64;
    while !stop.load(Ordering::Relaxed) {
        at = (at + 1) % scopes;
        let id = Ulid::from_parts(u64::try_from(worker)?, u128::from(calls));
        let begun = Instant::now();
        let held = ledger.reserve(id, charges.get(at).context("a scope")?, Pico(3_000_000))?;
        if calls % SAMPLED == 0 {
            times.push(u64::try_from(begun.elapsed().as_nanos())?);
        }
        let settled = held.settle(Pico(1_000_000));
        ensure!(!settled.overrun, "settled above the reservation");
        calls += 1;
    }
    Ok((calls, times))
}

fn charge(kind: ScopeKind, name: String, window: Window) -> Charge {
    Charge {
        scope: Scope {
            kind,
            name: name.into(),
        },
        window,
        limit: Pico(u64::MAX).into(),
    }
}

fn nanos(sorted: &[u64], percent: usize) -> String {
    let at = sorted.len() * percent / 100;
    let value = sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0);
    format!("{}.{} µs", value / 1000, value % 1000 / 100)
}
