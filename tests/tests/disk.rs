//! A disk that is full, or read-only, in a mount namespace of the test's own: admission stops, says why, and resumes;
//! calls in flight end, and nothing that was recorded is lost.

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
use guard_tests::lab::Lab;
use guard_tests::mounts::Mounts;
use guard_tests::patience::eventually;
use guard_tests::process::{Running, Spawn};
use guard_tests::provider::{Gate, Pace, Reply};
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

// --- the whole daemon on such a disk ----------------------------------------------------------------------------------

const CALL: &str = "openai --model gpt-5 --max-tokens 1000 --retries 0";
const BUDGET: [(&str, &str); 2] = [("scope", "agent"), ("name", "coder")];

/// A lab whose daemon keeps its state on a small ext4 of its own.
struct OnDisk {
    lab: Lab,
    steps: Gate,
}

impl OnDisk {
    fn start() -> Result<Self> {
        let lab = Lab::builder().start_without_daemon()?;
        let image = lab.directory().join("disk");
        File::create(&image)?.set_len(64 << 20)?;
        fs::create_dir(lab.state_dir())?;
        Spawn::new("mkfs.ext4").arg("-q").arg(&image).run()?.ok()?;
        let this = Self {
            lab,
            steps: Gate::closed(),
        };
        this.mount()?;
        this.lab.start_daemon()?;
        Ok(this)
    }

    /// Runs the test where the disk can be seen.
    fn run(&self, test: impl FnOnce(&Self) -> Result<()> + Send) -> Result<()> {
        self.lab.mounts().run(|| test(self))
    }

    fn mount(&self) -> Result<()> {
        let spawn = Spawn::new("mount").args(["-o", "loop"]);
        self.inside(
            spawn
                .arg(self.lab.directory().join("disk"))
                .arg(self.lab.state_dir()),
        )
    }

    fn inside(&self, spawn: Spawn) -> Result<()> {
        spawn.mounts(self.lab.mounts()).run()?.ok()?;
        Ok(())
    }

    /// What a call is settled with, once the first one is.
    fn first_call(&self) -> Result<Pico> {
        ensure!(self.lab.coder().call(CALL)?["ok"] == true);
        eventually("it is settled", || {
            let settled = self.settled()?;
            ensure!(settled != Pico::ZERO);
            Ok(settled)
        })
    }

    /// A stream of which the first event has been delivered.
    fn stream(&self) -> Result<Running> {
        let openai = self.lab.openai();
        openai.next(Reply::default().paced(Pace::Stepped(self.steps.clone())));
        let mut stream = self.lab.coder().sdk(&format!("{CALL} --stream"))?.start()?;
        for _ in 0..2 {
            self.steps.let_each_pass(1)?;
        }
        ensure!(stream.line()?.contains("delta"), "it has begun to speak");
        Ok(stream)
    }

    fn settled(&self) -> Result<Pico> {
        self.lab.metrics()?.usd("guard_budget_settled_usd", &BUDGET)
    }

    /// Calls until one is refused because it cannot be recorded; how many went through before.
    fn refused(&self) -> Result<u64> {
        for call in 0..200 {
            let said = self.lab.coder().call(CALL)?;
            if said["ok"] == true {
                continue;
            }
            ensure!(said["code"] == "guard_not_recordable", "{said}");
            return Ok(call);
        }
        bail!("a disk that takes nothing took everything")
    }
}

#[test]
fn on_a_full_disk_the_daemon_refuses_with_the_reason_ends_what_is_open_and_goes_on_when_there_is_room()
-> Result<()> {
    OnDisk::start()?.run(full)
}

fn full(on: &OnDisk) -> Result<()> {
    let lab = &on.lab;
    let each = on.first_call()?;
    let stream = on.stream()?;
    let filler = lab.state_dir().join("filler");
    fill(&filler)?;
    let before = lab.openai().seen().len();
    let passed = on.refused()?;
    ensure!(
        lab.openai().seen().len() as u64 == before as u64 + passed,
        "what is refused is not sent"
    );
    ensure!(!lab.is_ready(), "/readyz follows");
    let said = lab.guard(["status"])?;
    ensure!(
        said.stdout.contains("journal-"),
        "`status` names the file: {}",
        said.stdout
    );
    on.steps.open();
    let said = stream.wait(Duration::from_secs(30))?.ok()?.json_lines()?;
    ensure!(said.last().is_some_and(|last| last["ok"] == true), "{said:?}");

    fs::remove_file(&filler)?;
    eventually("it is ready again", || {
        ensure!(lab.is_ready());
        Ok(())
    })?;
    ensure!(lab.coder().call(CALL)?["ok"] == true, "it goes on by itself");
    let calls = 1 + passed + 1 + 1;
    let all = Pico(each.0 * calls);
    eventually("every call is settled", || {
        ensure!(on.settled()? == all);
        Ok(())
    })?;
    lab.kill_daemon()?;
    lab.start_daemon()?;
    ensure!(on.settled()? == all, "{} after kill -9", on.settled()?);
    let verified = lab.guard(["audit", "verify"])?;
    ensure!(verified.code() == 0, "{}{}", verified.stdout, verified.stderr);
    Ok(())
}

#[test]
fn on_a_disk_that_became_read_only_the_daemon_refuses_and_after_its_repair_no_bill_is_missing() -> Result<()>
{
    OnDisk::start()?.run(read_only)
}

fn read_only(on: &OnDisk) -> Result<()> {
    let lab = &on.lab;
    let each = on.first_call()?;
    let stream = on.stream()?;
    // what the kernel does by itself when the device reports errors
    on.inside(
        Spawn::new("mount")
            .args(["-o", "remount,abort"])
            .arg(lab.state_dir()),
    )?;
    let passed = on.refused()?;
    ensure!(!lab.is_ready(), "/readyz follows");
    on.steps.open();
    let said = stream.wait(Duration::from_secs(30))?.ok()?.json_lines()?;
    ensure!(
        said.last().is_some_and(|last| last["ok"] == true),
        "a call in flight ends: {said:?}"
    );

    lab.kill_daemon()?;
    on.inside(Spawn::new("umount").arg(lab.state_dir()))?;
    Spawn::new("e2fsck")
        .arg("-fy")
        .arg(lab.directory().join("disk"))
        .run()?;
    on.mount()?;
    lab.start_daemon()?;
    let billed = Pico(each.0 * (2 + passed));
    ensure!(
        on.settled()? >= billed,
        "{} of {billed} billed are on record",
        on.settled()?
    );
    ensure!(lab.coder().call(CALL)?["ok"] == true);
    Ok(())
}
