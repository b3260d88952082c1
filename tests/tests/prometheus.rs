//! What Guard shows to a real Prometheus, and the alert rules that come with it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use guard_tests::clients::repository;
use guard_tests::lab::Lab;
use guard_tests::patience::eventually;
use guard_tests::process::Spawn;
use serde_json::Value;

/// Where the test's own Prometheus answers, inside the lab's host.
const PROMETHEUS: &str = "127.0.0.1:9390";

fn rules(name: &str) -> PathBuf {
    repository().join("docs/prometheus").join(name)
}

#[test]
fn the_alert_rules_hold_what_their_unit_tests_say() -> Result<()> {
    for (action, file) in [
        (["check", "rules"], "guard.rules.yml"),
        (["check", "config"], "prometheus.yml"),
        (["test", "rules"], "guard.rules.test.yml"),
    ] {
        let done = Spawn::new("promtool").args(action).arg(rules(file)).run()?;
        ensure!(done.success(), "{done:?}");
    }
    Ok(())
}

#[test]
fn promtool_finds_nothing_to_blame_in_the_metrics_of_a_host_that_was_used() -> Result<()> {
    let lab = Lab::builder().start()?;
    lab.coder().call("openai --model gpt-5")?;
    lab.coder().call("anthropic --model claude-haiku-4-5 --stream")?;
    lab.coder().call("openai --model o3")?;
    lab.calls(3)?;
    let text = lab.metrics_text()?;
    ensure!(text.contains("guard_calls_total{"), "{text}");
    let done = Spawn::new("promtool")
        .args(["check", "metrics"])
        .input(text)
        .run()?;
    ensure!(done.success(), "{done:?}");
    Ok(())
}

#[test]
fn a_real_prometheus_scrapes_the_daemon_and_evaluates_the_rules() -> Result<()> {
    let lab = Lab::builder().start()?;
    lab.coder().call("openai --model gpt-5")?;
    lab.calls(1)?;
    let shipped = fs::read_to_string(rules("prometheus.yml"))?;
    let quick = shipped.replace("15s", "1s").replace(
        "- guard.rules.yml",
        &format!("- {}", rules("guard.rules.yml").display()),
    );
    ensure!(quick != shipped, "the example is not what this test expects");
    let config = lab.directory().join("prometheus.yml");
    fs::write(&config, quick)?;
    let _prometheus = lab
        .outside()
        .spawn("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            lab.directory().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .start()?;
    let spent = eventually("guard_cost_usd_total is scraped", || {
        let answer = ask(&lab, "/api/v1/query?query=sum(guard_cost_usd_total)")?;
        let value = answer["data"]["result"][0]["value"][1]
            .as_str()
            .map(str::to_owned);
        value.context("no value yet")
    })?;
    assert!(spent.parse::<f64>()? > 0.0, "{spent}");
    let enforcing = ask(&lab, "/api/v1/query?query=guard_enforcing")?;
    assert_eq!(enforcing["data"]["result"][0]["value"][1], "1", "{enforcing}");
    eventually("every rule is healthy", || {
        let answer = ask(&lab, "/api/v1/rules")?;
        let groups = answer["data"]["groups"].as_array().context("groups")?;
        let rules: Vec<&Value> = groups
            .iter()
            .filter_map(|group| group["rules"].as_array())
            .flatten()
            .collect();
        ensure!(rules.len() > 20, "{answer}");
        ensure!(rules.iter().all(|rule| rule["health"] == "ok"), "{answer}");
        ensure!(
            rules.iter().filter(|rule| rule["state"] == "firing").count() == 0,
            "an alert without a reason: {answer}"
        );
        Ok(())
    })
}

/// Asks the test's Prometheus.
fn ask(lab: &Lab, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&lab.get(PROMETHEUS, path)?)?)
}
