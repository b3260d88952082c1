//! systemd units as agents, known by where systemd puts their cgroups; a booted systemd is another suite's.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::lab::Lab;
use guard_tests::process::Spawn;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// An agent for each way to name a unit.
const AGENTS: &str = r#"
[[agent]]
name = "service"
owner = "unit-team"
match = [{ unit = "worker@*.service" }]
providers = ["openai"]

[[agent]]
name = "slice"
owner = "unit-team"
match = [{ unit = "agents.slice" }]
providers = ["openai"]
"#;

#[test]
fn a_service_is_its_agents_by_its_own_name_or_by_its_slice_and_the_record_names_the_unit() -> Result<()> {
    let lab = Lab::builder().further(AGENTS).start()?;
    for (count, (agent, path, unit)) in [
        (
            "service",
            "system.slice/system-worker.slice/worker@7.service",
            "worker@7.service",
        ),
        ("slice", "agents.slice/anything.service", "anything.service"),
    ]
    .into_iter()
    .enumerate()
    {
        let cgroup = lab.cgroup_root().child(path)?;
        let said = lab.place(agent, &cgroup).call("openai --model gpt-5")?;
        assert_eq!(said["ok"], true, "{said}");
        let record = lab.calls(count + 1)?.pop().context("no record")?;
        assert_eq!(record["agent"], agent, "{record}");
        assert_eq!(record["unit"], unit, "{record}");
        assert_eq!(record["cgroup"], format!("/{path}"), "{record}");
    }
    let neighbour = lab.cgroup_root().child("system.slice/sshd.service")?;
    let direct = lab.outside().spawn("curl").cgroup(&neighbour);
    let done = direct
        .args(["-sk", "-m", "5", "https://www.example.org/"])
        .run()?
        .ok()?;
    assert!(!done.stdout.is_empty());
    assert_eq!(
        lab.audit()?
            .iter()
            .filter(|record| record["kind"] == "connection")
            .count(),
        0
    );
    Ok(())
}

/// Somebody outside trusts the provider's own root alone, so a call of theirs succeeds only if it went direct.
fn direct(lab: &Lab, unit: &str) -> Result<Spawn> {
    let cgroup = lab.cgroup_root().child(unit)?;
    let curl = lab.outside().client("curl")?.cgroup(&cgroup);
    // The directory must outlive the process; what the lab's cgroup holds goes with the lab.
    std::mem::forget(cgroup);
    let address = "https://api.openai.com/v1/models";
    Ok(curl.args([
        "--silent",
        "--show-error",
        "--output",
        "/dev/null",
        "--max-time",
        "5",
        address,
    ]))
}

#[test]
fn the_first_call_of_a_unit_in_a_slice_of_others_does_not_get_out_before_its_cgroup_is_seen() -> Result<()> {
    let lab = Lab::builder().further(AGENTS).start()?;
    assert!(direct(&lab, "system.slice/stranger.service")?.run()?.success());
    for number in 0..20 {
        let unit = format!("system.slice/system-worker.slice/worker@{number}.service");
        let done = direct(&lab, &unit)?.run()?;
        assert!(!done.success(), "{unit}: {done:?}");
    }
    // The keeper sees nothing at all: what is in force holds the unit back.
    let keeper = Pid::from_raw(i32::try_from(lab.keeper()?)?);
    kill(keeper, Signal::SIGSTOP)?;
    let blind = direct(&lab, "system.slice/worker@blind.service").and_then(Spawn::run);
    let stranger = direct(&lab, "system.slice/stranger@blind.service").and_then(Spawn::run);
    kill(keeper, Signal::SIGCONT)?;
    let (blind, stranger) = (blind?, stranger?);
    assert!(!blind.success(), "{blind:?}");
    assert!(stranger.success(), "nobody else is held back: {stranger:?}");
    // The same with no daemon at all.
    lab.kill_daemon()?;
    let orphan = direct(&lab, "system.slice/worker@orphan.service")?.run()?;
    assert!(!orphan.success(), "{orphan:?}");
    lab.start_daemon()?;
    let cgroup = lab.cgroup_root().child("system.slice/worker@orphan.service")?;
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let said = lab.place("service", &cgroup).call("openai --model gpt-5")?;
        if said["ok"] == true {
            break;
        }
        ensure!(Instant::now() < deadline, "it is never governed: {said}");
        thread::sleep(Duration::from_millis(200));
    }
    let record = lab.calls(1)?.pop().context("no record")?;
    assert_eq!(record["unit"], "worker@orphan.service", "{record}");
    Ok(())
}
