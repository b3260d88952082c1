//! Calls over a WebSocket, from OpenAI's own unmodified SDK and from Codex, through the kernel and the daemon to a provider
//! and back: several paid responses on one socket, each decided, metered and recorded as a call of its own.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{Lab, OPENAI_KEY};
use guard_tests::patience::patient;
use guard_tests::process::Done;
use guard_tests::provider::{Fault, Gate, Pace, Reply, Tokens};
use serde_json::{Value, json};

const AGENT: &str = r#"
providers = ["openai"]
models = ["gpt-5*"]
"#;

/// An agent with this much for the day.
fn agent(usd: &str, lines: &str) -> String {
    format!("{AGENT}budget = [{{ window = \"day\", usd = {usd} }}]\n{lines}\n")
}

/// What the SDK does, step by step.
fn steps(lab: &Lab, steps: &Value) -> Result<Done> {
    let python = lab
        .coder()
        .client(clients::sockets()?)?
        .arg(clients::script("sockets.py"));
    python.arg(steps.to_string()).run()
}

fn said(lab: &Lab, wanted: &Value) -> Result<Vec<Value>> {
    steps(lab, wanted)?.ok()?.json_lines()
}

fn events<'a>(said: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    said.iter()
        .map(|line| &line["event"])
        .filter(move |event| event["type"] == kind)
}

fn ask(input: &str) -> Value {
    json!({"create": {"model": "gpt-5", "input": input, "max_output_tokens": 1000}})
}

const END: [&str; 3] = ["response.completed", "response.failed", "error"];

/// Audit records of this many calls, on one socket.
fn calls(lab: &Lab, count: usize) -> Result<Vec<Value>> {
    let records = lab.calls(count)?;
    ensure!(records.len() == count, "{records:#?}");
    let all = lab.audit()?;
    let openings: Vec<_> = all.iter().filter(|record| record["kind"] == "side").collect();
    ensure!(
        openings.len() == 1 && openings[0]["status"] == 101,
        "{openings:#?}"
    );
    Ok(records)
}

#[test]
fn each_response_on_a_socket_is_a_call_of_its_own_metered_to_the_pico_dollar() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    lab.openai().require_key(OPENAI_KEY);
    lab.openai().next(Reply::billed(Tokens::new(0, 0)));
    lab.openai().next(Reply::billed(Tokens::new(1000, 100)));
    lab.openai().next(Reply::billed(Tokens::new(2000, 200)));
    let tools =
        json!([{"type": "function", "name": "Read", "parameters": {"type": "object"}, "strict": false}]);
    let told = said(
        &lab,
        &json!([
            {"create": {"model": "gpt-5", "input": "hi", "tools": tools, "generate": false}},
            {"until": END},
            {"create": {"model": "gpt-5", "previous_response_id": "resp_lab000001", "input": "go", "max_output_tokens": 1000}},
            {"until": END},
            ask("again"),
            {"until": END},
            {"close": [1000, "done"]},
        ]),
    )?;
    assert_eq!(
        told[0],
        json!({"open": true, "extensions": []}),
        "no compression is agreed to"
    );
    assert_eq!(events(&told, "response.completed").count(), 3, "{told:#?}");
    let texts: String = events(&told, "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(texts, "Hello from the provider.".repeat(2));

    let seen = lab.openai().seen();
    assert_eq!(seen.len(), 4, "a handshake and three requests");
    assert_eq!(seen[0].credential(), Some(OPENAI_KEY));
    assert_eq!(seen[0].header("sec-websocket-extensions"), None);
    assert_eq!(seen[2].json()["previous_response_id"], "resp_lab000001");

    // $1.25 and $10 a million
    let records = calls(&lab, 3)?;
    for (record, (cost, tools)) in records.iter().zip([
        (0_u64, json!(["Read"])),
        (2_250_000_000, json!(["Read"])),
        (4_500_000_000, json!([])),
    ]) {
        assert_eq!(record["decision"], "allowed", "{record}");
        assert_eq!(record["dialect"], "openai-responses");
        assert_eq!(record["stream"], true);
        assert_eq!(record["usage"]["known"], true, "{record}");
        assert_eq!(record["cost_pico_usd"], cost, "{record}");
        assert_eq!(record["tools_declared"], tools, "{record}");
    }
    assert_eq!(lab.openai().billed().len(), 2, "what only prepares is not billed");
    // What is not in sight is reserved for: the context window of the model.
    let reserved = |at: usize| records[at]["reserved_pico_usd"].as_u64();
    assert!(reserved(1) > reserved(2).map(|plain| plain * 10), "{records:#?}");
    let metrics = lab.metrics()?;
    let labels = [("agent", "coder"), ("outcome", "ok")];
    assert_eq!(metrics.count("guard_calls_total", &labels)?, 3);
    Ok(())
}

#[test]
fn a_budget_that_is_used_up_between_two_responses_refuses_the_second_and_the_socket_stays_open() -> Result<()>
{
    let lab = Lab::builder().coder(&agent("1.0", "")).start()?;
    lab.openai().next(Reply::billed(Tokens::new(900_000, 100)));
    let told = said(
        &lab,
        &json!([ask("one"), {"until": END}, ask("two"), {"until": END}, ask("three"), {"until": END}]),
    )?;
    let errors: Vec<&Value> = events(&told, "error").collect();
    assert_eq!(errors.len(), 2, "{told:#?}");
    for error in errors {
        assert_eq!(error["status"], 400);
        assert_eq!(error["error"]["code"], "guard_budget_exceeded");
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }
    assert_eq!(lab.openai().seen().len(), 2, "a handshake and one request");
    let records = calls(&lab, 3)?;
    let decisions: Vec<_> = records.iter().map(|record| record["decision"].clone()).collect();
    assert_eq!(decisions, ["allowed", "refused", "refused"]);
    Ok(())
}

#[test]
fn a_tool_is_stripped_and_a_call_of_it_never_reaches_the_agent() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "tools = { allow = [\"Read\"] }"))
        .start()?;
    lab.openai()
        .next(Reply::default().calling("Bash", r#"{"command":"id"}"#));
    let tool = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": false});
    let told = said(
        &lab,
        &json!([
            {"create": {"model": "gpt-5", "input": "hi", "tools": [tool("Read"), tool("Bash")]}},
            {"until": END},
        ]),
    )?;
    assert_eq!(lab.openai().last()?.tools(), ["Read"]);
    let text = format!("{told:?}");
    assert!(
        !text.contains("function_call") && !text.contains("\"id\\\"}"),
        "{text}"
    );
    assert!(text.contains("Guard stopped a call of the tool"), "{text}");
    let record = calls(&lab, 1)?.remove(0);
    assert_eq!(record["tools_denied"], json!(["Bash"]));
    assert_eq!(record["usage"]["output"], 100, "{record}");
    Ok(())
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_response_is_charged_for_all_of_it() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let gate = Gate::closed();
    lab.openai()
        .next(Reply::default().paced(Pace::Stepped(gate.clone())));
    gate.let_pass(3);
    said(
        &lab,
        &json!([ask("hi"), {"until": ["response.content_part.added"]}, {"die": true}]),
    )?;
    gate.open();
    let record = calls(&lab, 1)?.remove(0);
    assert_eq!(record["cost_pico_usd"], 2_250_000_000_u64, "{record}");
    let metrics = lab.metrics()?;
    let labels = [("agent", "coder"), ("outcome", "client_gone")];
    assert_eq!(metrics.count("guard_calls_total", &labels)?, 1);
    Ok(())
}

#[test]
fn a_provider_that_breaks_off_leaves_the_cost_unknown_and_the_reservation_is_charged() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    lab.openai().next(Reply::faulty(Fault::CutAfter(3)));
    let told = said(&lab, &json!([ask("hi"), {"until": END}]))?;
    let closed = &told.last().context("nothing was said")?["closed"];
    assert_eq!(closed[0], 1011, "{told:#?}");
    let record = calls(&lab, 1)?.remove(0);
    assert_eq!(record["usage"]["known"], false, "{record}");
    assert_eq!(record["cost_pico_usd"], record["reserved_pico_usd"], "{record}");
    Ok(())
}

#[test]
fn an_agent_without_websockets_is_sent_to_https_at_the_handshake() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "websockets = \"refuse\""))
        .start()?;
    let told = said(&lab, &json!([]))?;
    assert_eq!(told[0]["refused"], 426, "{told:?}");
    assert!(
        told[0]["body"]
            .as_str()
            .is_some_and(|body| body.contains("guard_upgrade_required"))
    );
    assert!(lab.openai().seen().is_empty());
    Ok(())
}

#[test]
fn a_socket_that_guard_does_not_read_is_sent_to_https_whatever_the_agent_may() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "endpoints = [\"/v1/realtime*\"]"))
        .start()?;
    let upgrade = [
        "--http1.1",
        "--header",
        "connection: Upgrade",
        "--header",
        "upgrade: websocket",
        "--header",
        "sec-websocket-version: 13",
        "--header",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        "--write-out",
        "%{http_code}",
        "https://api.openai.com/v1/realtime/translations?model=gpt-realtime-translate",
    ];
    let done = lab.coder().curl(upgrade)?.run()?;
    ensure!(done.stdout.ends_with("426"), "{}", done.stdout);
    ensure!(done.stdout.contains("guard_upgrade_required"), "{}", done.stdout);
    assert!(lab.openai().seen().is_empty());
    Ok(())
}

#[test]
fn a_freeze_ends_the_socket_with_an_event_that_says_so() -> Result<()> {
    let lab = Lab::builder().coder(&agent("100.0", "")).start()?;
    let ready = lab.directory().join("frozen");
    let waiting = lab
        .coder()
        .client(clients::sockets()?)?
        .arg(clients::script("sockets.py"))
        .arg(
            json!([ask("hi"), {"until": END}, {"wait": ready}, {"until": ["error"]}, {"until": []}])
                .to_string(),
        )
        .start()?;
    lab.openai().wait_for(2, patient(Duration::from_secs(20)))?;
    lab.guard(["freeze", "coder", "--why", "a drill"])?.ok()?;
    fs::write(&ready, "")?;
    let told = waiting
        .wait(patient(Duration::from_secs(20)))?
        .ok()?
        .json_lines()?;
    let error = events(&told, "error").next().context("no word of it")?;
    assert_eq!(
        (&error["status"], &error["error"]["code"]),
        (&json!(400), &json!("guard_frozen"))
    );
    assert!(
        error["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("a drill")),
        "{error}"
    );
    let closed = &told.last().context("nothing was said")?["closed"];
    assert_eq!(closed[0], 1008, "{told:#?}");
    Ok(())
}

/// Codex with one question, in a home of its own; it prefers a WebSocket.
fn codex(lab: &Lab) -> Result<Done> {
    let home = tempfile::Builder::new()
        .prefix("home-")
        .tempdir_in(lab.directory())?;
    let key = lab.coder().variable("OPENAI_API_KEY")?;
    let words = ["exec", "--skip-git-repo-check", "Say hello."];
    lab.coder()
        .client("sh")?
        .args(["-c", "cd \"$HOME\" && exec \"$@\" </dev/null", "sh"])
        .arg(clients::codex()?)
        .args(words)
        .env("HOME", home.path())
        .env("CODEX_API_KEY", key)
        .patience(patient(Duration::from_secs(60)))
        .run()
}

#[test]
fn codex_prefers_a_socket_and_each_of_its_responses_is_metered() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "").replace("gpt-5*", "*"))
        .start()?;
    lab.openai().require_key(OPENAI_KEY);
    let done = codex(&lab)?;
    ensure!(done.stdout.contains("Hello from the provider."), "{done:?}");
    let seen = lab.openai().seen();
    let over_https = seen.iter().filter(|seen| seen.path.contains("/responses"));
    let over_https = over_https.filter(|seen| seen.header("upgrade").is_none());
    assert_eq!(over_https.count(), 0, "{done:?}");
    let records = lab.calls(2)?;
    let paid: Vec<&Value> = records
        .iter()
        .filter(|record| record["usage"]["input"] == 1000)
        .collect();
    assert_eq!(paid.len(), lab.openai().billed().len(), "{records:#?}");
    ensure!(!paid.is_empty(), "{records:#?}");
    for record in records.iter().filter(|record| record["usage"].is_object()) {
        assert_eq!(record["decision"], "allowed", "{record}");
        assert_eq!(record["usage"]["known"], true, "{record}");
    }
    Ok(())
}

#[test]
fn codex_that_is_refused_on_a_socket_stops_at_once_and_shows_why() -> Result<()> {
    let lab = Lab::builder()
        .coder(&agent("100.0", "").replace("gpt-5*", "none"))
        .start()?;
    let done = codex(&lab)?;
    let said = format!("{}{}", done.stdout, done.stderr);
    ensure!(!done.success(), "{said}");
    ensure!(said.contains("Guard request"), "{said}");
    // It prepares first, without tools; then it asks, once.
    let records = lab.calls(2)?;
    let asks = |record: &&Value| {
        record["tools_declared"]
            .as_array()
            .is_some_and(|tools| !tools.is_empty())
    };
    assert_eq!(records.iter().filter(asks).count(), 1, "{records:#?}");
    for record in &records {
        assert_eq!(record["reason"], "model_denied", "{record}");
    }
    let forwarded = lab.openai().seen();
    assert_eq!(forwarded.iter().filter(|seen| !seen.body.is_empty()).count(), 0);
    Ok(())
}
