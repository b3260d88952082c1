//! systemd units as agents, known by where systemd puts their cgroups; a booted systemd is another suite's.

use anyhow::{Context, Result};
use guard_tests::lab::Lab;

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
