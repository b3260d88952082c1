//! Guard under a real systemd: its own unit, and agents that are units. On demand: `cargo xtask test --systemd`.

use std::time::Duration;

use anyhow::Result;
use guard_tests::provider::{Pace, Reply};
use guard_tests::systemd::{KEY, Machine};
use serde_json::Value;

fn records(machine: &Machine, kind: &str) -> Result<Vec<Value>> {
    let text = machine.shell("cat /var/lib/guard/audit/*.jsonl")?;
    let all = text.lines().map(serde_json::from_str::<Value>);
    let all = all.collect::<Result<Vec<_>, _>>()?.into_iter();
    Ok(all.filter(|record| record["kind"] == kind).collect())
}

fn property(machine: &Machine, name: &str) -> Result<String> {
    let said = machine.shell(&format!("systemctl show guard-agent -P {name}"))?;
    Ok(said.trim().to_owned())
}

#[test]
#[ignore = "on demand: cargo xtask test --systemd"]
fn the_unit_starts_a_service_is_governed_by_its_name_and_a_hung_daemon_is_restarted() -> Result<()> {
    let machine = Machine::boot()?;
    assert_eq!(property(&machine, "Type")?, "notify");
    assert_eq!(property(&machine, "ActiveState")?, "active");
    machine.until(
        "guard-agent status | grep -q 'enforcing: yes'",
        Duration::from_secs(20),
    )?;

    machine.shell("systemctl start --wait coder@once.service")?;
    assert!(machine.shell("cat /run/calls/once.1.body")?.contains("[DONE]"));
    assert_eq!(machine.provider().last()?.credential(), Some(KEY));
    machine.until(
        "grep -q '\"kind\":\"call\"' /var/lib/guard/audit/*.jsonl",
        Duration::from_secs(10),
    )?;
    let calls = records(&machine, "call")?;
    assert_eq!(calls[0]["agent"], "coder");
    assert_eq!(calls[0]["unit"], "coder@once.service", "{}", calls[0]);

    // A daemon that hangs says nothing to the watchdog; half a minute is shortened to three seconds here.
    machine.shell(
        "mkdir -p /run/systemd/system/guard-agent.service.d
         printf '[Service]\\nWatchdogSec=3s\\n' > /run/systemd/system/guard-agent.service.d/quick.conf
         systemctl daemon-reload && systemctl restart guard-agent",
    )?;
    let before = property(&machine, "MainPID")?;
    machine.shell(&format!("sleep 4; kill -0 {before}"))?;
    assert_eq!(
        property(&machine, "MainPID")?,
        before,
        "one that works is left alone"
    );
    machine.shell(&format!("kill -STOP {before}"))?;
    let alive_again = format!(
        "test \"$(systemctl show guard-agent -P MainPID)\" != {before} && systemctl is-active guard-agent && \
         test \"$(systemctl show guard-agent -P NRestarts)\" -ge 1"
    );
    machine.until(&alive_again, Duration::from_secs(60))?;
    machine.shell("systemctl start --wait coder@once.service")?;
    assert!(machine.shell("cat /run/calls/once.1.body")?.contains("[DONE]"));
    Ok(())
}

#[test]
#[ignore = "on demand: cargo xtask test --systemd"]
fn a_restart_under_load_cuts_no_stream_without_a_last_event_and_lets_none_out() -> Result<()> {
    let machine = Machine::boot()?;
    machine.provider().always(Reply {
        words: vec!["word ".to_owned(); 20],
        pace: Pace::Every(Duration::from_millis(100)),
        ..Reply::default()
    });
    machine.shell(
        "systemctl start coder@{1,2,3,4}.service || systemctl start coder@1 coder@2 coder@3 coder@4",
    )?;
    machine.until("ls /run/calls/4.2.head", Duration::from_secs(30))?;
    for _ in 0..3 {
        machine.shell("systemctl restart guard-agent; sleep 3")?;
    }
    machine.shell("touch /run/stop")?;
    machine.until(
        "! systemctl is-active 'coder@*.service' | grep -qx active",
        Duration::from_secs(90),
    )?;
    let cut = machine.shell(
        "cd /run/calls; for head in *.head; do body=${head%.head}.body
         if grep -q '^HTTP/[0-9.]* 200' $head && ! grep -q -e '\\[DONE\\]' -e '\"error\"' $body
         then echo $head; tail -c 300 $body; cat ${head%.head}.error; fi; done",
    )?;
    assert_eq!(cut, "", "streams that ended without a last event");
    let seen = machine.provider().seen();
    assert!(seen.len() > 12, "{} calls", seen.len());
    assert!(
        seen.iter().all(|call| call.credential() == Some(KEY)),
        "none reached the provider past Guard"
    );
    let status: Value = serde_json::from_str(&machine.shell("guard-agent status --json")?)?;
    for budget in status["agents"][0]["budgets"].as_array().into_iter().flatten() {
        let reserved = &budget["reserved_pico_usd"];
        assert!(
            *reserved == 0 || *reserved == "0",
            "settled, all of them: {budget}"
        );
    }
    Ok(())
}
