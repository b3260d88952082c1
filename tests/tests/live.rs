//! Gemini's Live, from Google's own unmodified SDK, through the kernel and the daemon to a provider and back: each turn of the
//! model's is a call of its own, decided and reserved before the input that could lead to it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{GEMINI_KEY, Lab};
use guard_tests::patience::patient;
use guard_tests::process::Spawn;
use guard_tests::provider::{Reply, Tokens};
use serde_json::{Value, json};

const MODEL: &str = "gemini-3.8-live";

/// An agent with this much for the day.
fn agent(usd: &str, lines: &str) -> String {
    format!(
        "providers = [\"gemini\"]\nmodels = [\"gemini-3.8-live\"]\nbudget = [{{ window = \"day\", usd = {usd} }}]\n{lines}\n"
    )
}

fn talk(lab: &Lab, model: &str, config: &Value, steps: &Value) -> Result<Spawn> {
    let python = lab
        .coder()
        .client(clients::formats()?)?
        .arg(clients::script("live.py"));
    Ok(python.arg(model).arg(config.to_string()).arg(steps.to_string()))
}

fn said(lab: &Lab, config: &Value, steps: &Value) -> Result<Vec<Value>> {
    talk(lab, MODEL, config, steps)?.run()?.ok()?.json_lines()
}

fn texts() -> Value {
    json!({"response_modalities": ["TEXT"], "max_output_tokens": 500})
}

fn failure(said: &[Value]) -> Result<String> {
    let failed = said.iter().find(|line| line["failed"].is_array());
    Ok(failed.with_context(|| format!("no failure: {said:?}"))?["failed"].to_string())
}

fn calls(lab: &Lab, count: usize) -> Result<Vec<Value>> {
    let records = lab.calls(count)?;
    ensure!(records.len() == count, "{records:#?}");
    Ok(records)
}

#[test]
fn each_turn_of_the_model_is_a_call_of_its_own_metered_to_the_pico_dollar() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    lab.gemini().require_key(GEMINI_KEY);
    // The setup is a request of the lab's, too.
    lab.gemini().next(Reply::default());
    lab.gemini().next(Reply::billed(Tokens::new(1000, 100)));
    lab.gemini().next(Reply::billed(Tokens::new(2000, 200)));
    let steps = json!([{"say": "hi"}, {"hear": true}, {"say": "again"}, {"hear": true}]);
    let told = said(&lab, &texts(), &steps)?;
    let words: String = told.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(words, "Hello from the provider.".repeat(2), "{told:?}");
    assert_eq!(lab.gemini().seen()[0].credential(), Some(GEMINI_KEY));
    // $0.75 and $4.50 a million of text
    for (record, cost) in calls(&lab, 2)?.iter().zip([1_200_000_000_u64, 2_400_000_000]) {
        assert_eq!(record["decision"], "allowed", "{record}");
        assert_eq!(record["dialect"], "gemini-live");
        assert_eq!(record["usage"]["known"], true, "{record}");
        assert_eq!(record["cost_pico_usd"], cost, "{record}");
    }
    Ok(())
}

#[test]
fn a_turn_that_the_model_takes_after_speech_was_reserved_before_the_speech_went_on() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    lab.gemini().next(Reply::default());
    lab.gemini().next(Reply::billed(Tokens::new(50, 40)));
    lab.gemini().next(Reply::billed(Tokens::new(150, 60)));
    let config = json!({"response_modalities": ["AUDIO"]});
    let turn = [json!({"speak": 5}), json!({"silence": 1}), json!({"hear": true})];
    let told = said(&lab, &config, &json!([turn.clone(), turn].concat()))?;
    assert_eq!(
        told.iter().filter(|line| line["sound"] == 300).count(),
        8,
        "{told:?}"
    );
    // $3 and $12 a million of sound
    for (record, cost) in calls(&lab, 2)?.iter().zip([630_000_000_u64, 1_170_000_000]) {
        assert_eq!(record["cost_pico_usd"], cost, "{record}");
        assert!(
            record["reserved_pico_usd"].as_u64() > record["cost_pico_usd"].as_u64(),
            "{record}"
        );
    }
    let log = serde_json::to_string(&lab.audit()?)?;
    assert!(!log.contains("BwcHBwcH"), "nothing that was said is recorded");
    Ok(())
}

#[test]
fn a_turn_goes_on_when_its_tools_have_answered_and_a_tool_that_is_not_allowed_is_out_of_it() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "tools = { allow = [\"Read\"] }"))
        .start()?;
    lab.gemini().next(Reply::default());
    lab.gemini()
        .next(Reply::billed(Tokens::new(1000, 10)).calling("Read", r#"{"path":"a"}"#));
    lab.gemini().next(Reply::billed(Tokens::new(1100, 100)));
    lab.gemini()
        .next(Reply::billed(Tokens::new(1200, 10)).calling("Bash", r#"{"command":"id"}"#));
    lab.gemini().next(Reply::billed(Tokens::new(1300, 100)));
    let function = |name: &str| json!({"name": name, "description": "d"});
    let mut config = texts();
    config["tools"] = json!([{"function_declarations": [function("Read"), function("Bash")]}]);
    let steps = json!([
        {"say": "hi"}, {"hear": true}, {"answer": {"ok": true}}, {"hear": true}, {"say": "more"}, {"hear": true},
    ]);
    let told = said(&lab, &config, &steps)?;
    assert!(
        told.contains(&json!({"call": "Read"})) && told.contains(&json!({"turn": true})),
        "{told:?}"
    );
    let setup = lab.gemini().seen()[1].json();
    let text = setup.to_string();
    ensure!(text.contains("\"Read\"") && !text.contains("\"Bash\""), "{text}");
    assert_eq!(
        told.iter().filter(|line| line["turn"] == true).count(),
        2,
        "{told:?}"
    );
    let words = serde_json::to_string(&told)?;
    ensure!(
        !words.contains("Bash\"}") && words.contains("Guard stopped a call of the tool"),
        "{words}"
    );
    // The model was told so in the place of the result.
    let answer = lab.gemini().last()?.json().to_string();
    ensure!(
        answer.contains("functionResponses") && answer.contains("Guard stopped"),
        "{answer}"
    );
    let records = calls(&lab, 2)?;
    assert_eq!(records[1]["tools_denied"], json!(["Bash"]), "{records:#?}");
    assert_eq!(records[1]["usage"]["input"], 2_500, "{records:#?}");
    // Both halves of the turn: 2,100 read and 110 made.
    assert_eq!(records[0]["cost_pico_usd"], 2_070_000_000_u64, "{records:#?}");
    assert_eq!(records[0]["tools_called"], json!(["Read"]), "{records:#?}");
    Ok(())
}

#[test]
fn what_may_not_be_is_refused_with_the_reason() -> Result<()> {
    let lab = Lab::builder().coder(&agent("0.0001", "")).start()?;
    let told = said(&lab, &texts(), &json!([{"hear": true}]))?;
    let why = failure(&told)?;
    ensure!(
        why.contains("1008") && why.contains("guard_call_too_large"),
        "{why}"
    );
    assert_eq!(lab.gemini().seen().len(), 1, "the handshake alone");

    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let told = talk(
        &lab,
        "gemini-2.5-flash-native-audio-latest",
        &texts(),
        &json!([{"hear": true}]),
    )?
    .run()?
    .ok()?
    .json_lines()?;
    let why = failure(&told)?;
    ensure!(
        why.contains("1008") && why.contains("guard_model_denied"),
        "{why}"
    );
    Ok(())
}

#[test]
fn a_budget_that_is_used_up_refuses_the_next_turn_and_the_socket_stays_open() -> Result<()> {
    let lab = Lab::builder().coder(&agent("0.02", "")).start()?;
    lab.gemini().next(Reply::default());
    lab.gemini().next(Reply::billed(Tokens::new(26_000, 100)));
    let steps = json!([{"say": "hi"}, {"hear": true}, {"say": "again"}, {"hear": true}, {"say": "again"}, {"hear": true}]);
    let told = said(&lab, &texts(), &steps)?;
    let failures: Vec<&Value> = told.iter().filter(|line| line["failed"].is_array()).collect();
    assert_eq!(failures.len(), 2, "{told:?}");
    for failure in failures {
        assert_eq!(failure["failed"][0], 403, "{failure}");
        let why = failure.to_string();
        ensure!(why.contains("guard") && why.contains("budget"), "{why}");
    }
    assert_eq!(lab.gemini().seen().len(), 3, "a handshake, a setup and one turn");
    Ok(())
}

#[test]
fn a_freeze_ends_a_live_socket_with_a_message_that_says_so() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let (spoken, frozen) = (lab.directory().join("spoken"), lab.directory().join("frozen"));
    let steps = json!([
        {"say": "hi"}, {"hear": true}, {"touch": spoken}, {"wait": frozen}, {"hear": true}, {"hear": true},
    ]);
    let waiting = talk(&lab, MODEL, &texts(), &steps)?.start()?;
    let began = Instant::now();
    while !spoken.exists() && began.elapsed() < patient(Duration::from_secs(20)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    lab.guard(["freeze", "coder", "--why", "a drill"])?.ok()?;
    fs::write(&frozen, "")?;
    let told = waiting
        .wait(patient(Duration::from_secs(20)))?
        .ok()?
        .json_lines()?;
    let why = failure(&told)?;
    ensure!(why.contains("403") && why.contains("a drill"), "{why}");
    let last = told.last().context("nothing was said")?;
    assert_eq!(last["failed"][0], 1008, "{told:?}");
    Ok(())
}
