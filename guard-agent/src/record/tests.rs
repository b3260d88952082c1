//! Settling and recording: what each way for a call to end costs, says and counts.

use http::StatusCode;
use serde_json::{Value, json};

use crate::ledger::Window;
use crate::llm::{ReplyFacts, Unit, Usage};
use crate::policy::Outcome;
use crate::policy::fixture::{Asked, MICRO, REAL_KEY, USUAL, World, answered, settle, worst};

const ASKED: &str = r#"{"model":"m","messages":[],"max_tokens":100,"tools":[{"type":"function","function":{"name":"Read"}}]}"#;

/// One call that ends so.
fn ended(outcome: Outcome) -> World {
    let world = World::new(USUAL);
    settle(world.chat(ASKED).unwrap(), outcome);
    assert_eq!(world.policy.in_flight("coder"), 0);
    assert_eq!(world.account(Window::Day).1, 0, "nothing stays reserved");
    world
}

fn calls(world: &World, outcome: &str) -> String {
    world.metric(&format!(
        "guard_calls_total{{agent=\"coder\",model=\"m\",outcome=\"{outcome}\",provider=\"openai\"}}"
    ))
}

fn unknown(world: &World) -> u64 {
    world.total("guard_usage_unknown_total")
}

#[test]
fn what_never_left_is_released() {
    let world = ended(Outcome {
        upstream_error: Some("connection refused".to_owned()),
        ..Outcome::default()
    });
    assert_eq!(world.account(Window::Day), (0, 0));
    let record = world.record();
    assert_eq!(record["decision"], "failed");
    assert_eq!(record["reason"], "upstream");
    assert_eq!(record["cost_pico_usd"], 0);
    assert_eq!(record["usage"], Value::Null);
    assert_eq!(record["status"], 502);
    assert_eq!(record["reserved_pico_usd"], worst(ASKED, 100));
    assert_eq!(calls(&world, "upstream_failed"), "1");
    assert_eq!(unknown(&world), 0);
}

#[test]
fn what_was_held_for_a_response_that_did_not_come_is_given_back_and_is_no_call() {
    let world = World::new(USUAL);
    world.chat(ASKED).unwrap().redeem().settlement.withdraw();
    assert_eq!(world.policy.in_flight("coder"), 0);
    assert_eq!(world.account(Window::Day), (0, 0));
    assert_eq!(calls(&world, "ok"), "0");
    // The next record is the first one, and none is said to be lost.
    settle(world.chat(ASKED).unwrap(), answered(10, 5));
    let record = world.record();
    assert_eq!(record["decision"], "allowed", "{record}");
}

#[test]
fn what_may_have_left_and_was_not_answered_is_charged_in_full() {
    let world = ended(Outcome {
        forwarded: true,
        upstream_error: Some("connection reset".to_owned()),
        ..Outcome::default()
    });
    assert_eq!(world.account(Window::Day).0, worst(ASKED, 100));
    let record = world.record();
    assert_eq!(record["decision"], "failed");
    assert_eq!(record["usage"]["known"], false);
    assert_eq!(record["usage"]["input"], Value::Null);
    assert_eq!(record["cost_pico_usd"], worst(ASKED, 100));
    assert_eq!(unknown(&world), 1);
}

#[test]
fn a_providers_error_without_usage_costs_nothing() {
    for status in [400, 401, 429, 500, 529] {
        let world = ended(Outcome {
            status: StatusCode::from_u16(status).ok(),
            facts: ReplyFacts {
                error: true,
                complete: true,
                ..ReplyFacts::default()
            },
            ..answered(0, 0)
        });
        assert_eq!(world.account(Window::Day), (0, 0), "{status}");
        let record = world.record();
        assert_eq!(record["decision"], "allowed");
        assert_eq!(record["cost_pico_usd"], 0);
        assert_eq!(record["status"], status);
        assert_eq!(calls(&world, "provider_error"), "1");
        assert_eq!(unknown(&world), 0);
    }
}

#[test]
fn a_providers_error_with_usage_costs_what_it_says() {
    let world = ended(Outcome {
        status: Some(StatusCode::INTERNAL_SERVER_ERROR),
        ..answered(100, 7)
    });
    assert_eq!(world.account(Window::Day).0, 170 * MICRO);
}

#[test]
fn usage_that_is_not_known_is_charged_at_the_reservation_and_marked() {
    let mut outcome = answered(0, 0);
    outcome.facts.usage = None;
    let world = ended(outcome);
    assert_eq!(world.account(Window::Day).0, worst(ASKED, 100));
    let record = world.record();
    assert_eq!(record["usage"]["known"], false);
    assert_eq!(record["usage"]["output"], Value::Null);
    assert_eq!(record["cost_pico_usd"], worst(ASKED, 100));
    assert_eq!(unknown(&world), 1);
    assert_eq!(world.total("guard_tokens_total"), 0);
}

#[test]
fn what_is_billed_by_number_has_a_cost_and_says_that_its_tokens_are_not_known() {
    let mut outcome = answered(0, 0);
    outcome.facts.model = Some("ranker".to_owned());
    outcome.facts.usage = Some(Usage::of_units(Unit::SearchUnit, 3));
    let world = ended(outcome);
    assert_eq!(world.account(Window::Day).0, 3 * 2_000 * MICRO);
    let record = world.record();
    let usage = &record["usage"];
    assert_eq!(
        (
            &usage["known"],
            &usage["input"],
            &usage["output"],
            &usage["search_unit"]
        ),
        (&json!(false), &Value::Null, &Value::Null, &json!(3)),
        "{record}"
    );
    assert_eq!(record["cost_pico_usd"], 3 * 2_000 * MICRO);
    assert_eq!(world.total("guard_tokens_total"), 0);
}

#[test]
fn the_model_that_served_sets_the_price_and_an_overrun_is_a_finding() {
    let mut outcome = answered(1000, 100);
    outcome.facts.model = Some("dear".to_owned());
    let world = ended(outcome);
    let cost = (1000 * 100 + 100 * 1000) * MICRO;
    assert_eq!(
        world.account(Window::Day).0,
        cost,
        "booked in full, above the reservation"
    );
    let record = world.record();
    assert_eq!(record["model_requested"], "m");
    assert_eq!(record["model"], "dear");
    assert_eq!(record["cost_pico_usd"], cost);
    assert_eq!(record["findings"], json!(["cost_above_reservation"]));
    assert_eq!(world.total("guard_findings_total"), 1);
}

#[test]
fn a_model_that_served_and_has_no_price_costs_what_the_one_asked_for_does() {
    let mut outcome = answered(10, 1);
    outcome.facts.model = Some("something-new".to_owned());
    assert_eq!(ended(outcome).account(Window::Day).0, 20 * MICRO);
}

#[test]
fn the_tier_that_served_sets_the_price_and_one_without_a_price_costs_the_reservation() {
    let tier = |name: &str| {
        let mut outcome = answered(10, 1);
        outcome.facts.service_tier = Some(name.to_owned());
        ended(outcome)
    };
    assert_eq!(tier("priority").account(Window::Day).0, 40 * MICRO);
    assert_eq!(tier("default").account(Window::Day).0, 20 * MICRO);
    let world = tier("unheard-of");
    assert_eq!(world.account(Window::Day).0, worst(ASKED, 100));
    assert_eq!(world.record()["usage"]["known"], true);
}

#[test]
fn usage_beyond_integers_costs_the_reservation() {
    let world = ended(answered(u64::MAX, u64::MAX));
    assert_eq!(world.account(Window::Day).0, worst(ASKED, 100));
}

#[test]
fn a_client_that_left_is_named_as_the_cause() {
    let world = ended(Outcome {
        client_gone: true,
        ..answered(10, 1)
    });
    assert_eq!(calls(&world, "client_gone"), "1");
    assert_eq!(world.account(Window::Day).0, 20 * MICRO);
}

#[test]
fn a_reply_that_broke_off_is_the_providers_failure_even_after_its_head() {
    let mut outcome = answered(0, 0);
    outcome.facts = ReplyFacts::default();
    outcome.upstream_error = Some("reset".to_owned());
    let world = ended(outcome);
    assert_eq!(calls(&world, "upstream_failed"), "1");
    assert_eq!(world.record()["status"], 200);
}

#[test]
fn every_series_moves_by_exactly_what_happened() {
    let mut outcome = answered(12, 34);
    outcome.facts.usage = Some(Usage {
        input: 12,
        cache_read: 3,
        cache_write_5m: 4,
        cache_write_1h: 5,
        output: 34,
        reasoning: 6,
        ..Usage::default()
    });
    outcome.facts.tools_called = vec!["Read".to_owned()];
    let world = ended(outcome);
    assert_eq!(calls(&world, "ok"), "1");
    assert_eq!(world.total("guard_calls_total"), 1);
    for (kind, tokens) in [
        ("input", "12"),
        ("cache_read", "3"),
        ("cache_write", "9"),
        ("output", "34"),
        ("reasoning", "6"),
    ] {
        let series =
            format!("guard_tokens_total{{agent=\"coder\",kind=\"{kind}\",model=\"m\",provider=\"openai\"}}");
        assert_eq!(world.metric(&series), tokens, "{kind}");
    }
    // 24 tokens of input of some kind, all at the plain rate, and 34 of output.
    assert_eq!(world.account(Window::Day).0, 364 * MICRO);
    let cost = "guard_cost_usd_total{agent=\"coder\",model=\"m\",owner=\"team\",provider=\"openai\"}";
    assert_eq!(world.metric(cost), "0.000364");
    assert_eq!(unknown(&world), 0);
    assert_eq!(world.total("guard_refusals_total"), 0);
    let tally = world.recorder.tally().of("coder");
    assert_eq!((tally.calls, tally.refusals), (1, 0));
}

#[test]
fn the_record_has_every_field_of_the_format() {
    let world = World::new(USUAL);
    let key = world.placeholders.issue("coder", "openai");
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-session-id", "s-1"),
        ("x-stainless-retry-count", "2"),
    ];
    let permit = world
        .ask(Asked {
            headers: &headers,
            ..Asked::chat(ASKED)
        })
        .unwrap();
    let mut outcome = answered(12, 34);
    outcome.facts.tools_called = vec!["Read".to_owned()];
    settle(permit, outcome);
    let record = world.record();
    assert!(!record.to_string().contains(REAL_KEY) && !record.to_string().contains(&key));
    let mut found = record.as_object().unwrap().clone();
    for field in ["id", "time", "hash", "prev", "added_us"] {
        assert!(!found.remove(field).unwrap().is_null(), "{field}");
    }
    let expected = json!({
        "v": 1, "kind": "call", "agent": "coder", "owner": "team", "run": "run-1", "session": "s-1",
        "cgroup": "/guard.slice/coder/run-1", "container": null, "unit": null,
        "process": {"pid": 1234, "uid": 1000, "exe": "/usr/bin/python3", "comm": "python3"},
        "original_destination": "203.0.113.10:443", "sni": "api.openai.com",
        "provider": "openai", "dialect": "openai-chat", "endpoint": "/v1/chat/completions", "stream": false,
        "model_requested": "m", "model": "m-2026", "key": "prod-1",
        "decision": "allowed", "reason": null, "why": null, "would_refuse": [], "rewrites": ["key"],
        "usage": {"known": true, "input": 12, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0,
                  "output": 34, "reasoning": 0},
        "cost_pico_usd": 352 * MICRO, "cause": "useful", "reserved_pico_usd": worst(ASKED, 100), "finish": "stop",
        "tools_declared": ["Read"], "tools_called": ["Read"], "client_retries": 2,
        "status": 200, "request_bytes": ASKED.len(), "reply_bytes": 4096,
        "first_token_ms": 180.0, "duration_ms": 2310.0, "findings": [],
    });
    assert_eq!(Value::Object(found), expected);
}

#[test]
fn a_refused_call_has_the_same_fields() {
    let world = World::new(USUAL);
    settle(world.chat(ASKED).unwrap(), answered(1, 1));
    assert!(world.chat(r#"{"model":"x","messages":[]}"#).is_err());
    let records = world.records(2);
    let names = |at: usize| {
        records[at]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(names(0), names(1));
}

#[test]
fn what_a_caller_or_a_provider_wrote_cannot_flood_the_record_or_the_metrics() {
    let world = World::new(USUAL);
    let long = "x".repeat(200_000);
    let asked = format!(r#"{{"model":"{long}","messages":[]}}"#);
    assert!(world.chat(&asked).is_err());
    let mut outcome = answered(1, 1);
    outcome.facts.model = Some(long.clone());
    outcome.facts.finish = Some(long.clone());
    outcome.facts.tools_called = vec![long.clone(); 100];
    outcome.upstream_error = Some(long);
    settle(world.chat(ASKED).unwrap(), outcome);
    for record in world.records(2) {
        let length = record.to_string().len();
        assert!(length < 300_000, "{length}");
    }
    let text = String::from_utf8(world.metrics.text().unwrap()).unwrap();
    assert!(!text.contains("xxxxxxxxxx"));
}
