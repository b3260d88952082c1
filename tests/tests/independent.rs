//! Every dialect that an independent fake provider speaks, served through Guard: npm `@copilotkit/aimock`, which nobody
//! here wrote, behind TLS.
//!
//! It needs npm, so it runs with `cargo xtask test --clients` and not by itself.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use guard_tests::clients;
use guard_tests::lab::Lab;
use guard_tests::process::{Running, Spawn};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// The providers that it plays beside the usual ones, at a host of each.
const FURTHER: [(&str, &str); 5] = [
    ("vertex", "us-central1-aiplatform.googleapis.com"),
    ("azure", "lab.openai.azure.com"),
    ("groq", "api.groq.com"),
    ("openrouter", "openrouter.ai"),
    ("ollama", "ollama.com"),
];

const AGENT: &str = r#"
providers = ["openai", "anthropic", "gemini", "bedrock", "cohere", "mistral", "vertex", "azure", "groq", "openrouter", "ollama"]
models = ["*"]
budget = [{ window = "day", usd = 100.0 }]
"#;

/// Prices for two models that Guard's table does not have: without one a call is refused.
const PRICES: &str = r#"
date = "2026-11-23"
[[model]]
provider = "openrouter"
model = "openai/gpt-5"
context_window = 400000
max_output = 128000
source = "https://openrouter.ai/openai/gpt-5"
rates = { input = "1.25", output = "10.0" }
[[model]]
provider = "ollama"
model = "gpt-oss:20b"
context_window = 131072
max_output = 131072
source = "https://ollama.com/cloud"
rates = { input = "0.1", output = "0.5" }
"#;

/// What it answers, and what it says that the answer costs.
fn fixtures() -> Value {
    let usage = json!({"prompt_tokens": 1234, "completion_tokens": 56, "total_tokens": 1290});
    let call = json!([{"name": "get_weather", "arguments": {"city": "Paris"}}]);
    let heard = json!({"type": "tokens", "input_tokens": 14, "output_tokens": 9, "total_tokens": 23,
        "input_token_details": {"text_tokens": 4, "audio_tokens": 10}});
    json!({"fixtures": [
        {"match": {"endpoint": "image"}, "response": {"image": {"b64Json": "iVBORw0KGgo="}}},
        {"match": {"endpoint": "speech"}, "response": {"audio": "BwcHBwcH", "format": "mp3"}},
        {"match": {"endpoint": "transcription"}, "response": {"transcription": {"text": "Hi there.", "usage": heard}}},
        {"match": {"userMessage": "Say something."}, "response": {"content": "It is sunny in Paris.", "usage": usage}},
        {"match": {"userMessage": "Use the tool."}, "response": {"toolCalls": call, "usage": usage}},
    ]})
}

/// The provider as a process of its own on the loopback.
fn start(lab: &Lab) -> Result<(Running, SocketAddr)> {
    let file = lab.directory().join("fixtures.json");
    std::fs::write(&file, fixtures().to_string())?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let running = Spawn::new(clients::aimock()?)
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
            "--fixtures",
        ])
        .arg(&file)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .start()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    #[expect(clippy::disallowed_methods, reason = "this is a test, not Guard")]
    let listens = || TcpStream::connect(address).is_ok();
    while !listens() {
        ensure!(
            Instant::now() < deadline,
            "the provider does not listen: {:?}",
            running.said()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((running, address))
}

/// What Guard recorded, in the words of the client's reading.
fn recorded(record: &Value) -> Value {
    let usage = &record["usage"];
    let known = usage["known"] == true;
    let count = |names: [&str; 2]| match usage[names[0]].as_u64() {
        Some(text) if known => json!(text + usage[names[1]].as_u64().unwrap_or(0)),
        _ => Value::Null,
    };
    json!({
        "provider": record["provider"], "dialect": record["dialect"], "stream": record["stream"],
        "input": count(["input", "input_audio"]), "output": count(["output", "output_audio"]),
        "tools": record["tools_called"],
    })
}

/// What Guard must have recorded of a call, from what the client read in the answer.
fn wanted(line: &Value) -> Value {
    let mut wanted = line.clone();
    let path = line["path"].as_str().unwrap_or_default();
    if path.ends_with("/invoke-with-response-stream") {
        // Amazon wraps each event in `bytes` (InvokeModelWithResponseStream, PayloadPart); this provider does not, so no
        // client of Amazon's reads it either. What can't be read is not known, and charged as it was reserved.
        (wanted["input"], wanted["output"], wanted["tools"]) = (Value::Null, Value::Null, json!([]));
    } else if !wanted["input"].is_null() && wanted["output"].is_null() {
        // an embedding has no output
        wanted["output"] = json!(0);
    }
    if let Some(fields) = wanted.as_object_mut() {
        fields.retain(|name, _| !["status", "path"].contains(&name.as_str()));
    }
    wanted
}

/// The lab with every provider that it plays, and it.
fn played() -> Result<(Lab, Running, NamedTempFile)> {
    let prices = NamedTempFile::new()?;
    std::fs::write(prices.path(), PRICES)?;
    let overlay = format!("[prices]\noverlay = \"{}\"\n", prices.path().display());
    let builder = Lab::builder().coder(AGENT).further(&overlay);
    let lab = FURTHER
        .into_iter()
        .fold(builder, |lab, (provider, host)| lab.relayed(provider, host))
        .start()?;
    let (running, address) = start(&lab)?;
    lab.relay(address);
    Ok((lab, running, prices))
}

#[test]
#[ignore = "needs npm: cargo xtask test --clients runs it"]
fn an_independent_provider_is_served_in_every_dialect_and_metered_as_it_says() -> Result<()> {
    let (lab, _running, _prices) = played()?;
    let begun = Instant::now();
    let done = lab.coder().python("independent.py", "")?.run()?.ok()?;
    let said = done.json_lines()?;
    let (served, refused): (Vec<&Value>, Vec<&Value>) = said.iter().partition(|line| line["status"] == 200);
    // what Guard's prices have no unit for, or what it does not meter, is refused with the reason
    let paths: Vec<&str> = refused.iter().filter_map(|line| line["path"].as_str()).collect();
    assert_eq!(
        paths,
        ["/v1/images/variations", "/v1/videos", "/v1beta/interactions"],
        "{refused:#?}"
    );
    for line in refused {
        let text = line["said"].as_str().unwrap_or_default();
        ensure!(text.contains("Guard request"), "{line}");
    }
    // moderation is free, and not metered
    let metered: Vec<&&Value> = served
        .iter()
        .filter(|line| line["path"] != "/v1/moderations")
        .collect();
    let allowed = |mut records: Vec<Value>| {
        records.retain(|record| record["decision"] == "allowed" && record["endpoint"] != "/v1/moderations");
        records
    };
    let mut records = allowed(lab.calls(metered.len())?);
    let deadline = Instant::now() + Duration::from_secs(10);
    while records.len() < metered.len() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        records = allowed(lab.calls(metered.len())?);
    }
    let mut problems = Vec::new();
    for (line, record) in metered.iter().zip(&records) {
        if wanted(line) != recorded(record) {
            problems.push(format!("{line}: recorded {}", recorded(record)));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    ensure!(records.len() == metered.len(), "{} records", records.len());
    eprintln!("{} calls in {:.1?}", said.len(), begun.elapsed());
    Ok(())
}

/// Talks on a socket of this provider, step by step; the records say how it went.
fn talk(lab: &Lab, python: &Path, script: &str, arguments: &[Value]) -> Result<()> {
    let spawn = lab.coder().client(python)?.arg(clients::script(script));
    let arguments = arguments.iter().map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    spawn.args(arguments).run()?.ok()?;
    Ok(())
}

#[test]
#[ignore = "needs npm: cargo xtask test --clients runs it"]
fn its_sockets_are_served_to_the_vendors_sdks_and_metered_as_it_says() -> Result<()> {
    let (lab, _running, _prices) = played()?;
    let [words, call] = ["Say something.", "Use the tool."];
    let (name, schema) = ("get_weather", json!({"type": "object", "properties": {}}));
    let tools = json!([{"type": "function", "name": name, "description": "d", "parameters": schema}]);
    let (openai, google) = (clients::sockets()?, clients::formats()?);

    let end = json!({"until": ["response.completed", "response.done", "error"]});
    let create = |text: &str| json!({"create": {"model": "gpt-5", "input": text, "tools": tools}});
    let steps = json!([create(words), end, create(call), end]);
    talk(&lab, &openai, "sockets.py", &[steps])?;

    let session = json!({"update": {"output_modalities": ["text"], "tools": tools}});
    let [begun, respond] = [json!({"until": ["session.updated"]}), json!({"respond": {}})];
    let steps = json!([session, begun, {"say": words}, respond, end, {"say": call}, respond, end]);
    talk(&lab, &openai, "realtime.py", &[json!("gpt-realtime"), steps])?;

    talk(&lab, &google, "independent.py", &[json!("sockets")])?;

    // It says that realtime's responses took nothing, and nothing of what Live's turns took.
    let told = [
        ("openai-responses", json!(1234), json!(56)),
        ("openai-realtime", json!(0), json!(0)),
        ("openai-realtime", json!(0), json!(0)),
        ("gemini-live", Value::Null, Value::Null),
    ];
    let records = lab.calls(8)?;
    ensure!(records.len() == 8, "{records:#?}");
    for (records, (dialect, input, output)) in records.chunks(2).zip(told) {
        for (record, tools) in records.iter().zip([json!([]), json!([name])]) {
            let found = recorded(record);
            assert_eq!(found["dialect"], dialect, "{found}");
            assert_eq!((&found["input"], &found["output"]), (&input, &output), "{found}");
            assert_eq!(found["tools"], tools, "{found}");
            // What is not said is charged as it was reserved.
            let unsaid = input.is_null();
            assert!(
                !unsaid || record["cost_pico_usd"] == record["reserved_pico_usd"],
                "{record}"
            );
        }
    }
    Ok(())
}
