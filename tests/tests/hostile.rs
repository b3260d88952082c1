//! Clients that misbehave: each ends as documented, in bounded time and memory, and the daemon goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::lab::{Lab, OPENAI_KEY};
use serde_json::Value;

/// What the daemon may grow by while it is attacked: far below what any of the attacks declares.
const GROWTH: u64 = 96 << 20;
const GOOD: &str = "openai --model gpt-5 --max-tokens 100 --retries 0";

/// Misbehaves in one way, several times at once.
fn attack(lab: &Lab, way: &str, times: usize) -> Result<Vec<Value>> {
    let start = |_| {
        let raw = lab.coder().python("raw.py", &format!("{way} --patience 110"))?;
        raw.patience(Duration::from_secs(130)).start()
    };
    let running = (0..times).map(start).collect::<Result<Vec<_>>>()?;
    let end = |client: guard_tests::process::Running| {
        let done = client.wait(Duration::from_secs(130))?.ok()?;
        done.json_lines()?.pop().context("the client said nothing")
    };
    running.into_iter().map(end).collect()
}

fn client_errors(lab: &Lab, kind: &str) -> Result<u64> {
    lab.metrics()?
        .count("guard_client_errors_total", &[("kind", kind)])
}

/// Every attack ends by itself, within so many seconds.
fn ended(way: &str, results: &[Value], within: u64) -> Result<()> {
    for result in results {
        ensure!(
            result["end"] != "patience",
            "{way}: the daemon did not end it: {result}"
        );
        let seconds = result["seconds"].as_f64().context("seconds")?;
        ensure!(
            Duration::from_secs_f64(seconds) < Duration::from_secs(within),
            "{way} took too long: {result}"
        );
    }
    Ok(())
}

#[test]
fn broken_requests_are_answered_in_the_providers_own_shape() -> Result<()> {
    let lab = Lab::builder().start()?;
    for (way, status, code) in [
        ("json-broken", 400, "guard_malformed"),
        ("json-deep", 400, "guard_malformed"),
        ("http-body-declared", 413, "guard_body_too_large"),
        ("authority", 421, "guard_authority_mismatch"),
    ] {
        let results = attack(&lab, way, 1)?;
        ended(way, &results, 20)?;
        assert_eq!(results[0]["status"], status, "{way}: {}", results[0]);
        let body: Value = serde_json::from_str(results[0]["body"].as_str().unwrap_or_default())
            .with_context(|| results[0].to_string())?;
        assert_eq!(body["error"]["code"], code, "{way}: {body}");
    }
    let refused = |reason| {
        lab.metrics()?
            .count("guard_refusals_total", &[("agent", "coder"), ("reason", reason)])
    };
    assert_eq!(
        (
            refused("malformed")?,
            refused("body_too_large")?,
            refused("authority_mismatch")?
        ),
        (2, 1, 1)
    );
    assert!(lab.openai().seen().is_empty());
    assert_eq!(lab.coder().call(GOOD)?["ok"], true);
    Ok(())
}

#[test]
fn what_is_not_tls_or_not_http_ends_at_once() -> Result<()> {
    let lab = Lab::builder().start()?;
    let mut counted = BTreeMap::from([("malformed_tls", 0), ("malformed_http", 0)]);
    for (way, kind) in [
        ("tls-garbage", "malformed_tls"),
        ("tls-oversized", "malformed_tls"),
        ("http-garbage", "malformed_http"),
        ("http-header", "malformed_http"),
    ] {
        let results = attack(&lab, way, 4)?;
        *counted.entry(kind).or_default() += 4;
        assert_eq!(client_errors(&lab, kind)?, counted[kind], "{way}");
        ended(way, &results, 20)?;
        for result in &results {
            let status = result["status"].as_u64();
            assert!([None, Some(400), Some(431)].contains(&status), "{way}: {result}");
        }
    }
    assert!(lab.openai().seen().is_empty());
    assert_eq!(lab.coder().call(GOOD)?["ok"], true);
    Ok(())
}

#[test]
fn slow_clients_end_in_bounded_time_beside_quick_ones() -> Result<()> {
    let lab = Lab::builder().start()?;
    let before = lab.daemon_memory()?;
    std::thread::scope(|scope| -> Result<()> {
        let ways = ["tls-slow", "http-slow", "http-body-stalled"];
        let lab = &lab;
        let slow: Vec<_> = ways
            .map(|way| (way, scope.spawn(move || attack(lab, way, 3))))
            .into();
        for _ in 0..3 {
            assert_eq!(
                lab.coder().call(GOOD)?["ok"],
                true,
                "quick clients are not held up"
            );
        }
        for (way, results) in slow {
            let results = results
                .join()
                .map_err(|_panic| anyhow::anyhow!("{way} panicked"))??;
            ended(way, &results, 90)?;
        }
        Ok(())
    })?;
    // A slow hello and a stalled body are cut; a head that comes within its 75 seconds is answered.
    assert_eq!(client_errors(&lab, "slow")?, 3);
    let refused = [("agent", "coder"), ("reason", "malformed")];
    assert_eq!(lab.metrics()?.count("guard_refusals_total", &refused)?, 6);
    let grown = lab.daemon_memory()?.saturating_sub(before);
    assert!(grown < GROWTH, "the daemon grew by {grown} bytes");
    assert!(lab.daemon_runs()?);
    Ok(())
}

#[test]
fn a_declared_gigabyte_is_never_held() -> Result<()> {
    let lab = Lab::builder().start()?;
    assert_eq!(lab.coder().call(GOOD)?["ok"], true);
    let before = lab.daemon_memory()?;
    let results = attack(&lab, "http-body-huge", 10)?;
    ended("http-body-huge", &results, 30)?;
    let grown = lab.daemon_memory()?.saturating_sub(before);
    assert!(grown < GROWTH, "the daemon grew by {grown} bytes");
    assert_eq!(lab.coder().call(GOOD)?["ok"], true);
    Ok(())
}

/// A client that is silent may be waiting for its server to speak, so the server is dialled; when the client speaks
/// first after all, it is treated like any other.
#[test]
fn a_client_that_is_slow_to_speak_is_held_to_the_rules_all_the_same() -> Result<()> {
    let lab = Lab::builder().start()?;
    let results = attack(&lab, "http-late", 2)?;
    ended("http-late", &results, 10)?;
    for result in &results {
        assert_eq!(result["status"], 200, "{result}");
    }
    for seen in lab.openai().seen() {
        assert_eq!(seen.credential(), Some(OPENAI_KEY));
    }
    assert_eq!(lab.calls(2)?.len(), 2);
    Ok(())
}
