//! A file system that is full, in a mount namespace of the test's own: admission stops, says why, and resumes; nothing
//! that was recorded is lost.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guard_agent::clock;
use guard_agent::ledger::{
    Charge, Ledger, LedgerSettings, Reservation, ReserveError, Scope, ScopeKind, Window,
};
use guard_agent::money::Pico;
use guard_tests::mounts::Mounts;
use jiff::tz::TimeZone;
use nix::mount::{MsFlags, mount};
use ulid::Ulid;

const EACH: u64 = 10;

fn open(dir: &Path) -> Result<Arc<Ledger>> {
    Ok(Ledger::open(LedgerSettings {
        dir: dir.to_owned(),
        timezone: TimeZone::UTC,
        clock: clock::system(),
    })?)
}

fn reserve(ledger: &Ledger) -> Result<Reservation, ReserveError> {
    let charge = Charge {
        scope: Scope {
            kind: ScopeKind::Run,
            name: "r".into(),
        },
        window: Window::Run,
        limit: Pico(u64::MAX).into(),
    };
    ledger.reserve(Ulid::new(), &[charge], Pico(EACH))
}

fn settled(ledger: &Ledger) -> u64 {
    ledger.accounts().iter().map(|view| view.settled.count).sum()
}

/// Takes all the room there is.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let bytes = vec![1; 4096];
    while file.write_all(&bytes).is_ok() {}
    Ok(())
}

#[test]
fn a_full_file_system_stops_admission_with_a_reason_and_room_resumes_it_with_nothing_lost() -> Result<()> {
    let place = tempfile::tempdir()?;
    let mounts = Mounts::new(&[])?;
    mounts.run(|| {
        let dir = place.path();
        mount(
            Some("tmpfs"),
            dir,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=2m"),
        )
        .context("mounting a small file system")?;
        let ledger = open(dir)?;
        let mut calls = 0;
        for _ in 0..100 {
            reserve(&ledger)?.settle(Pico(EACH));
            calls += 1;
        }
        let in_flight = reserve(&ledger)?;
        fill(&dir.join("filler"))?;
        // What is left of the last page still takes some.
        let why = loop {
            match reserve(&ledger) {
                Ok(held) => drop(held.settle(Pico(EACH))),
                Err(ReserveError::Stopped(why)) => break why,
                Err(other) => bail!(other),
            }
            calls += 1;
            ensure!(calls < 10_000, "a full file system took everything");
        };
        ensure!(
            why.contains("journal-") && (why.contains("No space left") || why.contains("no storage space")),
            "the reason: {why}"
        );
        ensure!(ledger.stopped().is_some(), "and `status` has it");
        // A call in flight ends all the same.
        in_flight.settle(Pico(EACH));
        calls += 1;
        ensure!(settled(&ledger) == calls * EACH, "{} settled", settled(&ledger));

        fs::remove_file(dir.join("filler"))?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while ledger.stopped().is_some() {
            ensure!(Instant::now() < deadline, "it does not resume by itself");
            std::thread::sleep(Duration::from_millis(50));
        }
        reserve(&ledger)?.settle(Pico(EACH));
        calls += 1;
        drop(ledger);
        let again = open(dir)?;
        ensure!(again.recovery().charged_in_full == 0, "{:?}", again.recovery());
        ensure!(settled(&again) == calls * EACH, "{} settled", settled(&again));
        Ok(())
    })
}
