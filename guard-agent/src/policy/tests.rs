//! `decide` as a whole: order, what a refusal leaves behind, what is given back.

use http::Method;

use super::fixture::*;
use super::*;
use crate::ledger::Window;
use crate::llm::Judgement;

/// A body of `m` with this output cap.
fn body(cap: u64) -> String {
    format!(r#"{{"model":"m","messages":[],"max_tokens":{cap}}}"#)
}

#[track_caller]
fn refused<T>(result: Result<T, Refusal>) -> Refusal {
    match result {
        Ok(_) => panic!("admitted"),
        Err(refusal) => refusal,
    }
}

/// Lines of `[[agent]]`, the request, and the reason for which it is refused.
fn every_refusal() -> Vec<(&'static str, Asked<'static>, Reason)> {
    let chat = Asked::chat;
    let plain = r#"{"model":"m","messages":[],"max_tokens":10}"#;
    let with = |headers| Asked {
        headers,
        ..Asked::chat(plain)
    };
    let at = |method, target| Asked {
        method,
        target,
        ..Asked::chat("{}")
    };
    vec![
        ("providers = [\"anthropic\"]", chat(plain), Reason::ProviderDenied),
        (USUAL, at(Method::POST, "/v1/batches"), Reason::EndpointDenied),
        (
            USUAL,
            at(Method::GET, "/v1/chat/completions"),
            Reason::EndpointDenied,
        ),
        (USUAL, at(Method::DELETE, "/v1/models/m"), Reason::EndpointDenied),
        (
            "providers = [\"openai\"]\nmodels = [\"x*\"]",
            chat(plain),
            Reason::ModelDenied,
        ),
        (
            USUAL,
            with(&[("authorization", "Bearer sk-proj-stolen")]),
            Reason::KeyDenied,
        ),
        (
            USUAL,
            chat(r#"{"model":"unheard-of","messages":[]}"#),
            Reason::Unpriced,
        ),
        (
            USUAL,
            chat(r#"{"model":"m","messages":[],"service_tier":"scale"}"#),
            Reason::Unpriced,
        ),
        (
            "providers = [\"openai\"]\ntools = { allow = [\"Read\"], on_violation = \"refuse\" }",
            chat(r#"{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"Bash"}}]}"#),
            Reason::ToolDenied,
        ),
        (
            USUAL,
            chat(r#"{"model":"m","messages":[],"web_search_options":{}}"#),
            Reason::ToolDenied,
        ),
        (
            "providers = [\"anthropic\"]\ncaps = { output_tokens = 100 }",
            Asked::messages(
                r#"{"model":"big","messages":[],"max_tokens":900,"thinking":{"type":"enabled","budget_tokens":500}}"#,
            ),
            Reason::OutputCap,
        ),
        (
            "providers = [\"anthropic\"]\ncaps = { output_tokens = 100 }",
            Asked::messages(
                r#"{"model":"big","messages":[],"max_tokens":900,"system":[{"type":"text","text":"x-anthropic-billing-header: cch=abc;"}]}"#,
            ),
            Reason::OutputCap,
        ),
        (
            "providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 0.001 }]",
            chat(plain),
            Reason::CallTooLarge,
        ),
    ]
}

#[test]
fn a_refusal_leaves_one_record_one_metric_and_nothing_reserved() {
    for (lines, asked, reason) in every_refusal() {
        let world = World::new(lines);
        let refusal = refused(world.ask(asked));
        assert_eq!(refusal.reason, reason, "{}", refusal.message);
        let record = world.record();
        assert_eq!(record["decision"], "refused");
        assert_eq!(record["reason"], reason.label());
        assert_eq!(record["usage"], serde_json::Value::Null);
        assert_eq!(record["reserved_pico_usd"], serde_json::Value::Null);
        let counted = format!(
            "guard_refusals_total{{agent=\"coder\",reason=\"{}\"}}",
            reason.label()
        );
        assert_eq!(world.metric(&counted), "1");
        assert_eq!(world.total("guard_refusals_total"), 1);
        assert_eq!(world.total("guard_calls_total"), 1);
        assert_eq!(world.account(Window::Day), (0, 0), "{reason:?}");
        assert_eq!(world.policy.in_flight("coder"), 0, "{reason:?}");
        assert_eq!(world.recorder.tally().of("coder").refusals, 1);
        assert_eq!(world.recorder.audit().stats().pending, 0);
    }
}

#[test]
fn observe_admits_the_same_calls_unchanged_and_says_what_it_would_have_done() {
    for (lines, asked, reason) in every_refusal() {
        let world = World::new(&format!("{lines}\n[host]\nmode = \"observe\""));
        let permit = world
            .ask(asked)
            .unwrap_or_else(|no| panic!("{reason:?}: {}", no.message));
        assert!(permit.edits.is_empty(), "{reason:?}");
        settle(permit, answered(10, 1));
        let record = world.record();
        assert_eq!(record["decision"], "allowed");
        let would: Vec<&str> = record["would_refuse"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| reason.as_str().unwrap())
            .collect();
        assert_eq!(would, [reason.label()]);
        let counted = format!(
            "guard_would_refuse_total{{agent=\"coder\",reason=\"{}\"}}",
            reason.label()
        );
        assert_eq!(world.metric(&counted), "1", "{reason:?}");
        assert_eq!(world.total("guard_refusals_total"), 0);
        assert_eq!(world.policy.in_flight("coder"), 0);
    }
}

#[test]
fn observe_changes_no_byte() {
    let lines = "providers = [\"openai\"]\ncaps = { output_tokens = 5 }\ntools = { allow = [] }\n[host]\nmode = \"observe\"";
    let world = World::new(lines);
    let asked = r#"{"model":"m","messages":[],"stream":true,"max_tokens":900,"tools":[{"type":"function","function":{"name":"Bash"}}]}"#;
    let permit = world.chat(asked).unwrap();
    assert!(permit.edits.is_empty());
    settle(permit, answered(10, 1));
    assert_eq!(world.record()["rewrites"], serde_json::json!(["key"]));
}

#[test]
fn what_observe_cannot_price_is_recorded_as_unknown_not_as_free() {
    let world = World::new(&format!("{USUAL}\n[host]\nmode = \"observe\""));
    let permit = world.chat(r#"{"model":"unheard-of","messages":[]}"#).unwrap();
    let mut outcome = answered(10, 1);
    outcome.facts.model = None;
    settle(permit, outcome);
    let record = world.record();
    assert_eq!(record["usage"]["input"], 10);
    assert_eq!(record["cost_pico_usd"], serde_json::Value::Null);
    assert_eq!(world.total("guard_unpriced_total"), 1);
}

#[test]
fn observe_books_what_calls_cost_beyond_the_limit() {
    let world = World::new(
        "providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 0.001 }]\n[host]\nmode = \"observe\"",
    );
    let permit = world.chat(&body(10)).unwrap();
    settle(permit, answered(2000, 10));
    assert_eq!(world.account(Window::Day), (2100 * MICRO, 0));
    assert_eq!(world.record()["cost_pico_usd"], 2100 * MICRO);
}

#[test]
fn the_earlier_check_speaks() {
    // Everything is wrong with this request; what is checked first is what is said.
    let bad = r#"{"model":"unheard-of","messages":[],"tools":[{"type":"function","function":{"name":"Bash"}}],"max_tokens":900}"#;
    let key: &[(&'static str, &str)] = &[("authorization", "Bearer sk-proj-stolen")];
    let strict =
        "tools = { allow = [], on_violation = \"refuse\" }\nbudget = [{ window = \"day\", usd = 0.000001 }]";
    for (lines, headers, reason) in [
        (
            format!("providers = [\"anthropic\"]\nmodels = [\"x\"]\n{strict}"),
            key,
            Reason::ProviderDenied,
        ),
        (
            format!("providers = [\"openai\"]\nmodels = [\"x\"]\n{strict}"),
            key,
            Reason::KeyDenied,
        ),
        (
            format!("providers = [\"openai\"]\nmodels = [\"x\"]\n{strict}"),
            &[],
            Reason::ModelDenied,
        ),
        (
            format!("providers = [\"openai\"]\n{strict}"),
            &[],
            Reason::Unpriced,
        ),
    ] {
        let world = World::new(&lines);
        let asked = Asked {
            headers,
            ..Asked::chat(bad)
        };
        assert_eq!(refused(world.ask(asked)).reason, reason, "{lines}");
    }
    // A tool is judged before money.
    let world = World::new(&format!("providers = [\"openai\"]\n{strict}"));
    let asked = bad.replace("unheard-of", "m");
    assert_eq!(refused(world.chat(&asked)).reason, Reason::ToolDenied);
}

#[test]
fn a_call_reserves_its_worst_case_and_settles_what_it_cost() {
    let world = World::new(USUAL);
    let asked = body(100);
    let permit = world.chat(&asked).unwrap();
    assert_eq!(world.account(Window::Day), (0, worst(&asked, 100)));
    assert_eq!(world.policy.in_flight("coder"), 1);
    settle(permit, answered(12, 34));
    assert_eq!(world.account(Window::Day), (352 * MICRO, 0));
    assert_eq!(world.policy.in_flight("coder"), 0);
}

#[test]
fn a_permit_that_is_dropped_is_charged_in_full_and_recorded_as_lost() {
    let world = World::new(USUAL);
    let asked = body(100);
    drop(world.chat(&asked).unwrap());
    assert_eq!(world.account(Window::Day), (worst(&asked, 100), 0));
    assert_eq!(world.policy.in_flight("coder"), 0);
    assert_eq!(world.record()["alert"], "audit.lost");
}

#[test]
fn money_that_only_calls_in_flight_hold_is_a_transient_refusal_and_spent_money_a_final_one() {
    // Room for one call and a half.
    let asked = body(100);
    let limit = worst(&asked, 100) * 3 / 2;
    let world = World::new(&format!(
        "providers = [\"openai\"]\nbudget = [{{ window = \"day\", usd = 0.{limit:012} }}]"
    ));
    let first = world.chat(&asked).unwrap();
    let busy = refused(world.chat(&asked));
    assert_eq!(busy.reason, Reason::BudgetReserved);
    assert!(busy.retry_after.is_some_and(|seconds| seconds <= 20));
    assert_eq!(busy.money.unwrap().reserved.count, worst(&asked, 100));
    // It costs all that was reserved: what is left can never hold a second one.
    settle(first, answered(asked.len() as u64 + 1024, 100));
    let over = refused(world.chat(&asked));
    assert_eq!(over.reason, Reason::BudgetExceeded);
    assert_eq!(over.retry_after, None);
    let money = over.money.unwrap();
    assert_eq!(
        (money.spent.count, money.limit.count),
        (worst(&asked, 100), limit)
    );
    assert_eq!(world.policy.in_flight("coder"), 0);
}

#[test]
fn a_full_agent_waits_and_a_place_is_given_back() {
    let world = World::new("providers = [\"openai\"]\ncaps = { in_flight = 1 }");
    let first = world.chat(&body(10)).unwrap();
    let busy = refused(world.chat(&body(10)));
    assert_eq!((busy.reason, busy.retry_after), (Reason::InFlight, Some(5)));
    // A call that fails after it took its place gives it back too.
    settle(first, Outcome::default());
    assert_eq!(
        refused(world.chat(r#"{"model":"none","messages":[]}"#)).reason,
        Reason::Unpriced
    );
    assert!(world.chat(&body(10)).is_ok());
}

#[test]
fn two_budgets_are_charged_together_or_not_at_all() {
    let asked = body(100);
    let small = worst(&asked, 100) * 3 / 2;
    let world = World::new(&format!(
        "providers = [\"openai\"]\nbudget = [{{ window = \"day\", usd = 10.0 }}, {{ window = \"run\", usd = 0.{small:012} }}]"
    ));
    let first = world.chat(&asked).unwrap();
    assert_eq!(world.account(Window::Run).1, worst(&asked, 100));
    assert_eq!(world.account(Window::Day).1, worst(&asked, 100));
    let no = refused(world.chat(&asked));
    let money = no.money.unwrap();
    assert_eq!(
        (money.scope, &*money.window, money.resets_at),
        ("run", "run", None)
    );
    assert_eq!(
        world.account(Window::Day).1,
        worst(&asked, 100),
        "the other budget holds nothing more"
    );
    // Another run has a budget of its own.
    let other = Asked {
        run: "run-2",
        ..Asked::chat(&asked)
    };
    let second = world.ask(other).unwrap();
    settle(first, answered(1, 1));
    settle(second, answered(1, 1));
    assert_eq!(world.account(Window::Day), (22 * MICRO, 0));
}

#[test]
fn a_stripped_tool_of_the_providers_costs_nothing_and_one_that_stays_is_refused() {
    let asked = r#"{"model":"m","messages":[],"max_tokens":10,"web_search_options":{}}"#;
    let world = World::new("providers = [\"openai\"]\ntools = { allow = [\"Read\"] }");
    let permit = world.chat(asked).unwrap();
    assert_eq!(permit.edits.strip_tools, ["web_search"]);
    settle(permit, answered(1, 1));
    assert_eq!(world.record()["rewrites"], serde_json::json!(["key", "tools"]));
    let world = World::new("providers = [\"openai\"]\ntools = { allow = [\"web_search\"] }");
    assert_eq!(refused(world.chat(asked)).reason, Reason::ToolDenied);
}

#[test]
fn the_edits_are_what_the_rules_ask_for() {
    let world = World::new("providers = [\"openai\"]\ncaps = { output_tokens = 50 }");
    let asked = r#"{"model":"m","messages":[],"max_tokens":900,"stream":true}"#;
    let permit = world.chat(asked).unwrap();
    assert_eq!(permit.edits.output_cap, Some(50));
    assert!(permit.edits.include_usage);
    assert_eq!(world.account(Window::Day).1, worst(asked, 50));
    assert!(matches!(&permit.credential, Credential::Inject { secret, .. } if secret.expose() == REAL_KEY));
    settle(permit, answered(1, 1));
    let record = world.record();
    assert_eq!(
        record["rewrites"],
        serde_json::json!(["key", "output_cap", "include_usage"])
    );
    assert_eq!(record["key"], "prod-1");
    assert!(!record.to_string().contains(REAL_KEY));
}

#[test]
fn a_body_with_a_checksum_is_admitted_as_it_is_within_the_rules() {
    let asked = r#"{"model":"big","messages":[],"max_tokens":90,"stream":true,"system":[{"type":"text","text":"x-anthropic-billing-header: cch=abc;"}]}"#;
    let world = World::new("providers = [\"anthropic\"]\ncaps = { output_tokens = 100 }");
    let permit = world.ask(Asked::messages(asked)).unwrap();
    assert!(permit.edits.is_empty());
    assert_eq!(world.account(Window::Day).1, worst(asked, 90));
}

#[test]
fn free_endpoints_reserve_nothing_and_are_recorded() {
    let world = World::new("providers = [\"openai\", \"anthropic\"]\nendpoints = [\"/v1/files*\"]");
    let asked = [
        Asked {
            method: Method::GET,
            target: "/v1/models",
            ..Asked::chat("")
        },
        Asked {
            target: "/v1/messages/count_tokens",
            ..Asked::messages(r#"{"model":"big","messages":[]}"#)
        },
        Asked {
            method: Method::GET,
            target: "/v1/files/a",
            ..Asked::chat("")
        },
    ];
    let count = asked.len();
    for asked in asked {
        let permit = world.ask(asked).unwrap();
        assert!(matches!(permit.credential, Credential::Inject { .. }));
        assert_eq!(world.account(Window::Day), (0, 0));
        settle(permit, answered(0, 0));
    }
    for record in world.records(count) {
        assert_eq!(record["decision"], "allowed");
        assert_eq!(record["cost_pico_usd"], serde_json::Value::Null);
        assert_eq!(record["reserved_pico_usd"], serde_json::Value::Null);
        assert_eq!(record["status"], 200);
    }
}

#[test]
fn inference_that_nobody_read_is_refused() {
    // The path reads every inference body; should it ever not, nothing would bound the call.
    let world = World::new(USUAL);
    let provider = world.provider("openai");
    let asked = body(10);
    let mut call = Asked::chat(&asked).call(&provider);
    call.facts = None;
    let said = refused(world.policy.decide(&who("run-1"), &provider, &call));
    assert_eq!(said.reason, Reason::Internal);
}

#[test]
fn placeholders_are_judged_by_holder_and_findings_are_raised() {
    let world = World::new(USUAL);
    let with = |value: &str| {
        let bearer = format!("Bearer {value}");
        let headers = [("authorization", bearer.as_str())];
        world
            .ask(Asked {
                headers: &headers,
                ..Asked::chat(&body(10))
            })
            .map(|permit| settle(permit, Outcome::default()))
            .map_err(|no| no.reason)
    };
    assert_eq!(with(&world.placeholders.issue("coder", "openai")), Ok(()));
    assert_eq!(
        with(&world.placeholders.issue("spy", "openai")),
        Err(Reason::KeyDenied)
    );
    assert_eq!(
        with(&world.placeholders.issue("coder", "anthropic")),
        Err(Reason::KeyDenied)
    );
    assert_eq!(with("sk-proj-real"), Err(Reason::KeyDenied));
    let findings: Vec<_> = world
        .records(4)
        .iter()
        .map(|record| record["findings"].clone())
        .collect();
    assert_eq!(findings[0], serde_json::json!([]));
    assert_eq!(findings[1], serde_json::json!(["foreign_placeholder"]));
    assert_eq!(findings[3], serde_json::json!(["real_key"]));
    assert_eq!(world.total("guard_findings_total"), 3);
}

#[test]
fn an_agent_that_a_reload_removed_is_unidentified() {
    let world = World::new(USUAL);
    assert!(world.chat(&body(10)).is_ok());
    let mut config = super::tests_support::config(USUAL);
    config.agents.clear();
    world.replace(&config);
    assert_eq!(refused(world.chat(&body(10))).reason, Reason::Unidentified);
}

#[test]
fn a_reload_changes_the_limit_and_keeps_what_was_spent() {
    let mut world = World::new(USUAL);
    settle(world.chat(&body(10)).unwrap(), answered(5000, 0));
    world.reload("providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 0.004 }]");
    assert_eq!(refused(world.chat(&body(10))).reason, Reason::BudgetExceeded);
    world.reload(USUAL);
    assert!(world.chat(&body(10)).is_ok());
}

#[test]
fn without_room_in_the_record_nothing_happens() {
    let world = World::new(USUAL);
    let mut slots = Vec::new();
    while let Ok(slot) = world.recorder.slot() {
        slots.push(slot);
    }
    let no = refused(world.chat(&body(10)));
    assert_eq!(no.reason, Reason::NotRecordable);
    assert_eq!(world.account(Window::Day), (0, 0));
    assert_eq!(world.policy.in_flight("coder"), 0);
}

#[test]
fn requests_that_try_to_cost_more_than_they_show() {
    let world = World::new(USUAL);
    let reserved = |asked: &str| {
        let permit = world.chat(asked).unwrap();
        let held = world.account(Window::Day).1;
        settle(permit, Outcome::default());
        held
    };
    for (asked, output) in [
        // The larger of two caps counts, each choice counts, and none at all is what the model can do.
        (
            r#"{"model":"m","messages":[],"max_tokens":1,"max_completion_tokens":500}"#,
            500,
        ),
        (r#"{"model":"m","messages":[],"max_tokens":10,"n":8}"#, 80),
        (r#"{"model":"m","messages":[],"n":0,"max_tokens":10}"#, 10),
        (r#"{"model":"m","messages":[],"max_tokens":null}"#, 1000),
        (r#"{"model":"m","messages":[],"max_tokens":0}"#, 0),
        (r#"{"model":"m-2026","messages":[],"max_tokens":10}"#, 10),
    ] {
        assert_eq!(reserved(asked), worst(asked, output), "{asked}");
    }
    let no = refused(world.chat(r#"{"model":"m","messages":[],"max_tokens":18446744073709551615,"n":9}"#));
    assert_eq!(no.reason, Reason::CallTooLarge);
}

mod multipliers;
mod soft;
mod units;

/// A chat completion that declares `Read` and `Bash`.
const WITH_TOOLS: &str = r#"{"model":"m","max_tokens":10,"messages":[],"tools":[{"type":"function","function":{"name":"Read"}},{"type":"function","function":{"name":"Bash"}}]}"#;

fn called(tools: &[&str], denied: &[&str]) -> Outcome {
    let mut outcome = answered(1, 1);
    outcome.facts.tools_called = tools.iter().map(|tool| (*tool).to_owned()).collect();
    outcome.facts.tools_denied = denied.iter().map(|tool| (*tool).to_owned()).collect();
    outcome
}

#[test]
fn a_permit_carries_a_gate_where_there_are_tool_rules() {
    let world = World::new(&format!("{USUAL}\ntools = {{ allow = [\"Read\"] }}"));
    let permit = world.chat(WITH_TOOLS).unwrap().redeem();
    let gate = permit.gate.unwrap();
    assert!(matches!(gate.by_name("Read"), Judgement::Pass));
    assert!(matches!(gate.by_name("Bash"), Judgement::Deny(_)));
    permit.settlement.settle(called(&["Read", "Bash"], &["Bash"]));
    let record = world.record();
    assert_eq!(record["tools_denied"], serde_json::json!(["Bash"]));
    assert_eq!(record["findings"], serde_json::json!(["tool_call_denied"]));
    let series = "guard_tool_calls_total{agent=\"coder\",tool=\"other\",verdict=\"denied\"}";
    assert_eq!(world.metric(series), "1");
    let free = World::new(USUAL);
    assert!(free.chat(WITH_TOOLS).unwrap().redeem().gate.is_none());
}

#[test]
fn observe_mode_holds_no_call_back_and_says_what_would_have_been() {
    let rules = format!("{USUAL}\ntools = {{ allow = [\"Read\"] }}\n[host]\nmode = \"observe\"");
    let world = World::new(&rules);
    let permit = world.chat(&WITH_TOOLS.replace("Bash", "Read")).unwrap().redeem();
    assert!(permit.gate.is_none());
    permit.settlement.settle(called(&["Bash"], &[]));
    assert_eq!(world.record()["would_refuse"], serde_json::json!(["tool_denied"]));
}

#[test]
fn one_call_counts_in_every_scope_and_the_fullest_one_refuses_over_all_providers() {
    let asked = body(100);
    let most = worst(&asked, 100) * 3 / 2;
    for (whose, kind) in [
        ("owner = \"team\"", "owner"),
        ("key = \"openai/prod-1\"", "key"),
        ("model = \"m*\"", "model"),
        ("scope = \"host\"", "host"),
    ] {
        let world = World::new(&format!(
            "{USUAL}\n[[budget]]\n{whose}\nwindow = \"rolling:5h\"\nusd = 0.{most:012}\n"
        ));
        let first = world.chat(&asked).unwrap();
        let money = refused(world.chat(&asked)).money.unwrap();
        assert_eq!((money.scope, &*money.window), (kind, "rolling:5h"), "{whose}");
        settle(first, answered(12, 34));
        assert_eq!(world.account(Window::Rolling(300)), (352 * MICRO, 0), "{whose}");
        assert_eq!(world.account(Window::Day), (352 * MICRO, 0), "{whose}");
    }
    // The agent's own budget is one for all its providers, and each session has its own inside the run.
    let world = World::new(&format!(
        "providers = [\"openai\"]\nbudget = [{{ window = \"run\", scope = \"session\", usd = 0.{most:012} }}]"
    ));
    let ask = |session| {
        world.ask(Asked {
            headers: &[("x-session-id", session)],
            ..Asked::chat(&asked)
        })
    };
    let first = ask("one").unwrap();
    assert_eq!(refused(ask("one")).money.unwrap().scope, "session");
    let second = ask("two").unwrap();
    settle(first, Outcome::default());
    settle(second, Outcome::default());
}
