//! Retries, loops, rate and what is frozen, through `decide`.

use serde_json::{Value, json};

use super::*;
use crate::policy::frozen::Freeze;

/// A conversation in which the same tool was called so often, with the same result.
fn circling(times: u32) -> String {
    let mut messages = vec![json!({"role": "user", "content": "find it"})];
    for time in 0..times {
        let id = format!("c{time}");
        messages.push(json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": id, "type": "function", "function": {"name": "search", "arguments": "{\"q\": \"x\"}"}}]}));
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "nothing found"}));
    }
    talk(&messages)
}

fn talk(messages: &[Value]) -> String {
    json!({"model": "m", "messages": messages, "max_completion_tokens": 10}).to_string()
}

fn failed(status: u16) -> Outcome {
    Outcome {
        forwarded: true,
        status: Some(http::StatusCode::from_u16(status).unwrap()),
        ..Outcome::default()
    }
}

fn alerts(records: &[Value]) -> Vec<&Value> {
    records
        .iter()
        .filter(|record| record["kind"] == "alert")
        .collect()
}

#[test]
fn a_loop_warns_then_trips_and_a_new_user_turn_gets_through() {
    let world = World::new(USUAL);
    let mut refusal = None;
    for times in 1..=12 {
        match world.chat(&circling(times)) {
            Ok(permit) => settle(permit, answered(10, 10)),
            Err(no) => {
                refusal.get_or_insert((times, no));
            }
        }
    }
    let (times, no) = refusal.unwrap();
    assert_eq!((times, no.reason), (10, Reason::Loop));
    let mut body: Value = serde_json::from_str(&circling(12)).unwrap();
    body["messages"]
        .as_array_mut()
        .unwrap()
        .push(json!({"role": "user", "content": "leave it"}));
    settle(world.chat(&body.to_string()).unwrap(), answered(10, 10));
    // Thirteen calls, an alert for the warning and one for the trip.
    let records = world.records(15);
    let said = alerts(&records);
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said.iter().all(|alert| alert["alert"] == "loop"));
    assert!(
        said[1]["message"].to_string().contains("loops.repeat"),
        "{said:#?}"
    );
    assert_eq!(
        world.metric("guard_refusals_total{agent=\"coder\",reason=\"loop\"}"),
        "3"
    );
    assert_eq!(
        world.metric("guard_findings_total{agent=\"coder\",kind=\"loop_repeat\"}"),
        "8"
    );
    // Five calls went on after the warning, each at 110 millionths of a dollar.
    assert_eq!(
        world.metric("guard_wasted_usd_total{agent=\"coder\",cause=\"looping\"}"),
        "0.00055"
    );
    let tripped = records.iter().find(|record| record["reason"] == "loop").unwrap();
    assert_eq!(tripped["findings"], json!(["loop_repeat"]));
    assert!(tripped["why"].to_string().contains("10 times"), "{tripped}");
    assert_eq!(records.last().unwrap()["cause"], "useful");
}

#[test]
fn a_loop_is_stopped_for_all_providers() {
    let world = World::new(USUAL);
    let no = refused(world.chat(&circling(10)));
    assert_eq!(no.reason, Reason::Loop);
    let mut messages = vec![json!({"role": "user", "content": "find it"})];
    for time in 0..10 {
        let id = format!("c{time}");
        messages.push(json!({"role": "assistant", "content":
            [{"type": "tool_use", "id": id, "name": "search", "input": {"q": "x"}}]}));
        messages.push(json!({"role": "user", "content":
            [{"type": "tool_result", "tool_use_id": id, "content": "nothing found"}]}));
    }
    let body = json!({"model": "big", "max_tokens": 10, "messages": messages}).to_string();
    let no = refused(world.ask(Asked::messages(&body)));
    assert_eq!(no.reason, Reason::Loop);
}

#[test]
fn a_trip_freezes_the_run_if_the_agent_says_so() {
    let lines = format!("{USUAL}\nloops = {{ on_trip = \"freeze\" }}");
    let world = World::new(&lines);
    assert_eq!(refused(world.chat(&circling(10))).reason, Reason::Loop);
    let no = refused(world.chat(&body(10)));
    assert_eq!(no.reason, Reason::Frozen);
    assert!(
        no.message.contains("loops.repeat") && no.message.contains("--run run-1"),
        "{}",
        no.message
    );
    let other = Asked {
        run: "run-2",
        ..Asked::chat(r#"{"model":"m","messages":[],"max_tokens":10}"#)
    };
    settle(world.ask(other).unwrap(), answered(1, 1));
}

#[test]
fn observe_mode_notes_a_loop_and_lets_it_go_on_but_what_is_frozen_stays_so() {
    let lines = format!("{USUAL}\nloops = {{ on_trip = \"freeze\" }}\n[host]\nmode = \"observe\"");
    let world = World::new(&lines);
    settle(world.chat(&circling(10)).unwrap(), answered(10, 10));
    let freeze = Freeze {
        why: "enough".to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        by_uid: Some(0),
    };
    world.policy.frozen().freeze("coder", None, freeze).unwrap();
    let no = refused(world.chat(&body(10)));
    assert!(
        no.reason == Reason::Frozen && no.message.contains("enough"),
        "{no:?}"
    );
    let records = world.records(3);
    let call = records
        .iter()
        .find(|record| record["decision"] == "allowed")
        .unwrap();
    assert_eq!(call["would_refuse"], json!(["loop"]));
}

#[test]
fn a_request_that_keeps_failing_is_refused_for_good() {
    let lines = format!("{USUAL}\nretries = {{ per_body = 2 }}");
    let world = World::new(&lines);
    for _ in 0..3 {
        settle(world.chat(&body(10)).unwrap(), failed(503));
    }
    let no = refused(world.chat(&body(10)));
    assert_eq!(
        (no.reason, no.reason.class()),
        (Reason::RetryBody, crate::refusal::Class::Policy)
    );
    settle(world.chat(&body(11)).unwrap(), answered(1, 1));
    assert_eq!(world.metric("guard_client_retries_total{agent=\"coder\"}"), "3");
}

#[test]
fn an_sdk_that_says_it_retries_is_counted_whatever_its_body() {
    let lines = format!("{USUAL}\nretries = {{ per_minute = 2 }}");
    let world = World::new(&lines);
    let say = |name, value, body: &str| {
        let headers = [(name, value)];
        world.ask(Asked {
            headers: &headers,
            ..Asked::chat(body)
        })
    };
    settle(
        say("x-stainless-retry-count", "1", &body(1)).unwrap(),
        answered(1, 1),
    );
    settle(
        say("amz-sdk-request", "attempt=2; max=3", &body(2)).unwrap(),
        answered(1, 1),
    );
    settle(
        say("amz-sdk-request", "attempt=1; max=3", &body(3)).unwrap(),
        answered(1, 1),
    );
    let no = refused(say("x-stainless-retry-count", "1", &body(4)));
    assert_eq!(no.reason, Reason::RetryRate);
    assert!(no.retry_after.is_some());
    settle(world.chat(&body(5)).unwrap(), answered(1, 1));
}

#[test]
fn caps_on_size_time_and_rate_refuse_and_say_which_line_to_change() {
    for (caps, run, reason, key) in [
        ("input_bytes = 40", "run-1", Reason::InputCap, "caps.input_bytes"),
        (
            "requests_per_minute = 1",
            "run-1",
            Reason::RateRequests,
            "caps.requests_per_minute",
        ),
        (
            "tokens_per_minute = 20",
            "run-1",
            Reason::RateTokens,
            "caps.tokens_per_minute",
        ),
        // Made in 2016, as its first part says.
        (
            "run_timeout = \"1d\"",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            Reason::RunTimeout,
            "caps.run_timeout",
        ),
    ] {
        let world = World::new(&format!("{USUAL}\ncaps = {{ {caps} }}"));
        let asked = body(10);
        let mut held = Vec::new();
        let no = loop {
            let said = world.ask(Asked {
                run,
                ..Asked::chat(&asked)
            });
            match said {
                Ok(permit) => held.push(permit),
                Err(no) => break no,
            }
            assert!(held.len() < 3, "{caps}");
        };
        assert_eq!(no.reason, reason, "{caps}");
        assert!(no.message.contains(key), "{}", no.message);
    }
}

#[test]
fn a_refused_call_takes_nothing_from_the_minute() {
    let lines = "providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 0.000001 }]\n\
                 caps = { tokens_per_minute = 40 }";
    let world = World::new(lines);
    for _ in 0..5 {
        assert_eq!(refused(world.chat(&body(10))).reason, Reason::CallTooLarge);
    }
}
