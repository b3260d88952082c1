//! Realtime sockets, from the vendors' own unmodified SDKs, through the kernel and the daemon to a provider and back: each
//! response is a call of its own, those that the provider begins by itself among them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{Lab, OPENAI_KEY};
use guard_tests::patience::patient;
use guard_tests::process::Spawn;
use guard_tests::provider::{Gate, Pace, Reply, Tokens};
use serde_json::{Value, json};

const MODEL: &str = "gpt-realtime";

/// An agent with this much for the day.
fn agent(usd: &str, lines: &str) -> String {
    format!(
        "providers = [\"openai\"]\nmodels = [\"gpt-realtime\", \"gpt-4o-transcribe\", \"gpt-5\"]\n\
         budget = [{{ window = \"day\", usd = {usd} }}]\n{lines}\n"
    )
}

/// What the SDK does, step by step.
fn talk(lab: &Lab, model: &str, steps: &Value) -> Result<Spawn> {
    let python = lab
        .coder()
        .client(clients::sockets()?)?
        .arg(clients::script("realtime.py"));
    Ok(python.arg(model).arg(steps.to_string()))
}

fn said(lab: &Lab, steps: &Value) -> Result<Vec<Value>> {
    talk(lab, MODEL, steps)?.run()?.ok()?.json_lines()
}

fn events<'a>(said: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    said.iter()
        .map(|line| &line["event"])
        .filter(move |event| event["type"] == kind)
}

const END: [&str; 2] = ["response.done", "error"];

fn texts() -> Value {
    json!({"update": {"output_modalities": ["text"], "max_output_tokens": 500, "audio": {"input": {"turn_detection": null}}}})
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "name": name, "description": "", "parameters": {"type": "object", "properties": {}}})
}

#[test]
fn each_response_on_a_realtime_socket_is_a_call_of_its_own_metered_to_the_pico_dollar() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    lab.openai().require_key(OPENAI_KEY);
    lab.openai().next(Reply::billed(Tokens::new(1000, 100)));
    lab.openai().next(Reply::billed(Tokens {
        cached: 500,
        ..Tokens::new(2000, 200)
    }));
    let told = said(
        &lab,
        &json!([
            texts(), {"until": ["session.updated"]},
            {"say": "hi"}, {"respond": {}}, {"until": END},
            {"say": "again"}, {"respond": {"output_modalities": ["text"]}}, {"until": END},
        ]),
    )?;
    let words: String = events(&told, "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(words, "Hello from the provider.".repeat(2), "{told:#?}");
    let seen = lab.openai().seen();
    assert_eq!(seen[0].credential(), Some(OPENAI_KEY));
    let records = lab.calls(2)?;
    ensure!(records.len() == 2, "{records:#?}");
    // $4 and $16 a million of text, $0.40 from the cache
    for (record, cost) in records.iter().zip([5_600_000_000_u64, 11_400_000_000]) {
        assert_eq!(record["decision"], "allowed", "{record}");
        assert_eq!(record["dialect"], "openai-realtime");
        assert_eq!(record["usage"]["known"], true, "{record}");
        assert_eq!(record["cost_pico_usd"], cost, "{record}");
    }
    assert_eq!(lab.openai().billed().len(), 2);
    let metrics = lab.metrics()?;
    let labels = [("agent", "coder"), ("outcome", "ok")];
    assert_eq!(metrics.count("guard_calls_total", &labels)?, 2);
    Ok(())
}

#[test]
fn a_response_that_turn_detection_begins_was_reserved_before_the_speech_went_on() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    lab.openai().next(Reply::billed(Tokens::new(50, 40)));
    lab.openai().next(Reply::billed(Tokens::new(150, 60)));
    let turn = json!({"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}});
    let told = said(
        &lab,
        &json!([
            {"update": turn}, {"until": ["session.updated"]},
            {"speak": 5}, {"silence": 1}, {"until": ["response.done"]},
            {"speak": 5}, {"silence": 1}, {"until": ["response.done"]},
        ]),
    )?;
    assert_eq!(events(&told, "error").count(), 0, "{told:#?}");
    assert_eq!(events(&told, "response.output_audio.delta").count(), 8);
    let mut records = lab.calls(4)?;
    let heard: Vec<Value> = records
        .extract_if(.., |record| record["model_requested"] == "gpt-4o-transcribe")
        .collect();
    ensure!(records.len() == 2 && heard.len() == 2, "{records:#?} {heard:#?}");
    // $32 and $64 a million of sound
    for (record, cost) in records.iter().zip([4_160_000_000_u64, 8_640_000_000]) {
        assert_eq!(record["cost_pico_usd"], cost, "{record}");
        assert_eq!(record["usage"]["known"], true, "{record}");
        assert!(
            record["reserved_pico_usd"].as_u64() > record["cost_pico_usd"].as_u64(),
            "{record}"
        );
    }
    for record in &heard {
        // 13 of sound at $2.50 ($6 before), 9 of text at $10
        assert_eq!(record["usage"]["output"], 9, "{record}");
        assert!(record["cost_pico_usd"].as_u64() > Some(0), "{record}");
    }
    let log = serde_json::to_string(&lab.audit()?)?;
    assert!(
        !log.contains("Hi there") && !log.contains("BwcHBwcH"),
        "nothing that was said is recorded"
    );
    Ok(())
}

#[test]
fn sound_that_cannot_be_paid_for_does_not_go_on_and_the_socket_stays_open() -> Result<()> {
    let lab = Lab::builder().coder(&agent("0.01", "")).start()?;
    let told = said(
        &lab,
        &json!([
            {"until": ["session.created"]},
            {"speak": 1}, {"until": ["error"]},
            {"silence": 1}, {"until": ["error"]},
            {"respond": {}}, {"until": ["error"]},
        ]),
    )?;
    for error in events(&told, "error") {
        let code = error["error"]["code"].as_str().unwrap_or_default();
        ensure!(
            code == "guard_call_too_large" || code == "guard_budget_exceeded",
            "{error}"
        );
    }
    assert_eq!(events(&told, "error").count(), 3, "{told:#?}");
    assert_eq!(lab.openai().seen().len(), 1, "the handshake alone");
    let records = lab.calls(2)?;
    ensure!(
        records.iter().all(|record| record["decision"] == "refused"),
        "{records:#?}"
    );
    Ok(())
}

#[test]
fn a_tool_is_stripped_from_the_session_and_a_call_of_it_never_reaches_the_agent() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "tools = { allow = [\"Read\"] }"))
        .start()?;
    lab.openai()
        .next(Reply::default().calling("Read", r#"{"path":"a"}"#));
    lab.openai()
        .next(Reply::default().calling("Bash", r#"{"command":"id"}"#));
    let told = said(
        &lab,
        &json!([
            {"update": {"output_modalities": ["text"], "tools": [tool("Read"), tool("Bash")]}},
            {"until": ["session.updated"]},
            {"say": "hi"}, {"respond": {}}, {"until": END},
            {"answer": {"ok": true}}, {"respond": {}}, {"until": END},
        ]),
    )?;
    let updated = events(&told, "session.updated").next().context("no session")?;
    assert_eq!(updated["session"]["tools"], json!([tool("Read")]), "{updated}");
    let calls = events(&told, "response.function_call_arguments.done").count();
    assert_eq!(calls, 1, "{told:#?}");
    let text = serde_json::to_string(&told)?;
    assert!(!text.contains("command"), "{text}");
    assert!(text.contains("Guard stopped a call of the tool"), "{text}");
    let records = lab.calls(2)?;
    assert_eq!(records[0]["tools_called"], json!(["Read"]), "{records:#?}");
    assert_eq!(records[1]["tools_denied"], json!(["Bash"]), "{records:#?}");
    assert_eq!(records[1]["usage"]["output"], 100, "{records:#?}");
    Ok(())
}

#[test]
fn a_model_that_the_agent_may_not_use_is_refused_in_the_provider_s_own_words() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let steps = json!([
        {"until": ["session.created"]},
        {"update": {"output_modalities": ["text"]}}, {"until": ["error"]},
        {"respond": {}}, {"until": ["error"]},
        {"speak": 1}, {"until": ["error"]},
    ]);
    let told = talk(&lab, "gpt-realtime-mini", &steps)?
        .run()?
        .ok()?
        .json_lines()?;
    let errors: Vec<&Value> = events(&told, "error").collect();
    assert_eq!(errors.len(), 3, "{told:#?}");
    for error in errors {
        assert_eq!(error["error"]["code"], "guard_model_denied", "{error}");
    }
    // Nor one whose sound has no price.
    let steps = json!([{"respond": {}}, {"until": ["error"]}, {"speak": 1}, {"until": ["error"]}]);
    let told = talk(&lab, "gpt-5", &steps)?.run()?.ok()?.json_lines()?;
    for error in events(&told, "error") {
        assert_eq!(error["error"]["code"], "guard_unpriced", "{error}");
    }
    assert_eq!(events(&told, "error").count(), 2, "{told:#?}");
    // Nor one that only writes down what is heard.
    let steps = json!([
        {"until": ["session.created"]},
        {"update": {"audio": {"input": {"transcription": {"model": "whisper-1"}}}}}, {"until": ["error"]},
    ]);
    let told = said(&lab, &steps)?;
    let error = events(&told, "error").next().context("no word of it")?;
    assert_eq!(error["error"]["code"], "guard_model_denied", "{error}");
    Ok(())
}

#[test]
fn a_response_that_is_ended_by_its_client_costs_what_it_had_used_and_the_next_one_follows_at_once()
-> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let gate = Gate::closed();
    lab.openai()
        .next(Reply::billed(Tokens::new(1000, 500)).paced(Pace::Stepped(gate.clone())));
    gate.let_pass(4);
    let told = said(
        &lab,
        &json!([
            texts(), {"until": ["session.updated"]},
            {"respond": {}}, {"until": ["response.output_text.delta"]},
            {"respond": {}}, {"until": ["error"]},
            {"cancel": true}, {"respond": {}}, {"until": ["response.done"]}, {"until": ["response.done"]},
        ]),
    )?;
    let error = events(&told, "error").next().context("no word of it")?;
    ensure!(
        error["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("under way")),
        "{error}"
    );
    let ended: Vec<&Value> = events(&told, "response.done").collect();
    assert_eq!(ended[0]["response"]["status"], "cancelled", "{told:#?}");
    assert_eq!(ended[1]["response"]["status"], "completed", "{told:#?}");
    let records = lab.calls(3)?;
    let allowed: Vec<&Value> = records
        .iter()
        .filter(|record| record["decision"] == "allowed")
        .collect();
    assert_eq!(allowed.len(), 2, "{records:#?}");
    let outputs: Vec<&Value> = allowed.iter().map(|record| &record["usage"]["output"]).collect();
    assert_eq!(outputs, [&json!(4), &json!(100)], "{records:#?}");
    Ok(())
}

#[test]
fn a_freeze_ends_a_realtime_socket_with_an_event_that_says_so() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let (spoken, frozen) = (lab.directory().join("spoken"), lab.directory().join("frozen"));
    let steps = json!([
        {"speak": 3}, {"silence": 1}, {"until": ["response.done"]}, {"speak": 1},
        {"touch": spoken}, {"wait": frozen}, {"until": ["error"]}, {"until": []},
    ]);
    let waiting = talk(&lab, MODEL, &steps)?.start()?;
    lab.openai().wait_for(2, patient(Duration::from_secs(20)))?;
    let began = std::time::Instant::now();
    while !spoken.exists() && began.elapsed() < patient(Duration::from_secs(20)) {
        std::thread::sleep(Duration::from_millis(20));
    }
    lab.guard(["freeze", "coder", "--why", "a drill"])?.ok()?;
    fs::write(&frozen, "")?;
    let told = waiting
        .wait(patient(Duration::from_secs(20)))?
        .ok()?
        .json_lines()?;
    let error = events(&told, "error").next().context("no word of it")?;
    assert_eq!(error["error"]["code"], "guard_frozen", "{error}");
    let closed = &told.last().context("nothing was said")?["closed"];
    assert_eq!(closed[0], 1008, "{told:#?}");
    // What was reserved for a response that did not come is free again, and no call.
    let records = lab.calls(2)?;
    let decisions: Vec<&Value> = records.iter().map(|record| &record["decision"]).collect();
    assert_eq!(decisions, ["allowed", "refused"], "{records:#?}");
    Ok(())
}

#[test]
fn an_agent_without_websockets_has_no_realtime_and_nobody_gets_a_secret_for_it() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "websockets = \"refuse\""))
        .start()?;
    let told = said(&lab, &json!([]))?;
    assert_eq!(told[0]["refused"], 426, "{told:?}");
    for path in ["client_secrets", "sessions", "calls", "transcription_sessions"] {
        let url = format!("https://api.openai.com/v1/realtime/{path}");
        let done = lab
            .coder()
            .curl(["--json", "{}", "--write-out", "%{http_code}", &url])?
            .run()?;
        ensure!(
            done.stdout.contains("guard_endpoint_denied"),
            "{path}: {}",
            done.stdout
        );
        ensure!(
            done.stdout.contains("a way around the budget"),
            "{path}: {}",
            done.stdout
        );
    }
    assert!(lab.openai().seen().is_empty());
    Ok(())
}
