//! One call in each further format, from the vendor's own unmodified SDK through the kernel and the daemon to a
//! provider and back: metered to the token, held to the agent's rules, refused in one attempt.

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{BEDROCK_KEY, Builder, COHERE_KEY, GEMINI_KEY, Lab, OLLAMA_KEY, Place, VERTEX_KEY};
use guard_tests::provider::{Provider, Reply, Tokens};
use serde_json::{Value, json};

/// An agent that may use all of them.
const AGENT: &str = r#"
providers = ["openai", "anthropic", "gemini", "bedrock", "cohere", "vertex", "ollama"]
models = ["gpt-*", "text-embedding-*", "gemini-*", "*claude-*", "command-*"]
budget = [{ window = "day", usd = 100.0 }]
"#;

/// A format: how it is called, whether it streams, and what 1,000 tokens in and 100 out cost in pico-dollars.
struct Case {
    name: &'static str,
    arguments: &'static str,
    dialect: &'static str,
    streams: bool,
    tools: bool,
    cost: u64,
}

const CASES: [Case; 9] = [
    // $1.25 and $10 a million
    Case {
        name: "openai",
        arguments: "responses --model gpt-5",
        dialect: "openai-responses",
        streams: true,
        tools: true,
        cost: 2_250_000_000,
    },
    // $0.30 and $2.50
    Case {
        name: "gemini",
        arguments: "gemini --model gemini-2.5-flash",
        dialect: "gemini",
        streams: true,
        tools: true,
        cost: 550_000_000,
    },
    // $1.10 and $5.50
    Case {
        name: "bedrock",
        arguments: "converse --model us.anthropic.claude-haiku-4-5-20251001-v1:0",
        dialect: "bedrock-converse",
        streams: true,
        tools: true,
        cost: 1_650_000_000,
    },
    Case {
        name: "bedrock",
        arguments: "invoke --model us.anthropic.claude-haiku-4-5-20251001-v1:0",
        dialect: "bedrock-invoke",
        streams: false,
        tools: true,
        cost: 1_650_000_000,
    },
    // $2.50 and $10
    Case {
        name: "cohere",
        arguments: "cohere --model command-a-03-2025",
        dialect: "cohere",
        streams: true,
        tools: true,
        cost: 3_500_000_000,
    },
    Case {
        name: "vertex",
        arguments: "vertex --model gemini-2.5-flash",
        dialect: "gemini",
        streams: true,
        tools: true,
        cost: 550_000_000,
    },
    // $1 and $5, and a tenth more in a region than on the global endpoint
    Case {
        name: "vertex",
        arguments: "vertex-claude --model claude-haiku-4-5@20251001",
        dialect: "anthropic-vertex",
        streams: true,
        tools: true,
        cost: 1_650_000_000,
    },
    // $0.10 and $0.50, as the operator's own table says
    Case {
        name: "ollama",
        arguments: "ollama --model gpt-oss:120b",
        dialect: "ollama",
        streams: true,
        tools: true,
        cost: 150_000_000,
    },
    // $1.50 and $2
    Case {
        name: "openai",
        arguments: "completions --model gpt-3.5-turbo-instruct",
        dialect: "openai-completions",
        streams: true,
        tools: false,
        cost: 1_700_000_000,
    },
];

impl Case {
    fn provider<'a>(&self, lab: &'a Lab) -> &'a Provider {
        match self.name {
            "gemini" => lab.gemini(),
            "bedrock" => lab.bedrock(),
            "cohere" => lab.cohere(),
            "vertex" => lab.vertex(),
            "ollama" => lab.ollama(),
            _ => lab.openai(),
        }
    }

    fn modes(&self) -> &'static [&'static str] {
        if self.streams { &["", " --stream"] } else { &[""] }
    }
}

/// A lab whose operator says what Ollama's models cost: they have no public price.
fn priced() -> Builder {
    let table = clients::script("prices.toml");
    Lab::builder().further(&format!(
        "\n[prices]\noverlay = {:?}\n",
        table.display().to_string()
    ))
}

/// One call by the vendor's SDK.
fn call(place: Place<'_>, arguments: &str) -> Result<Value> {
    let python = place
        .client(clients::formats()?)?
        .arg(clients::script("formats.py"));
    let done = python.args(arguments.split_whitespace()).run()?.ok()?;
    done.json_lines()?.pop().context("the client said nothing")
}

#[test]
fn a_call_in_each_format_is_metered_to_the_token_and_the_pico_dollar() -> Result<()> {
    let lab = priced().coder(AGENT).start()?;
    lab.gemini().require_key(GEMINI_KEY);
    lab.cohere().require_key(COHERE_KEY);
    lab.vertex().require_key(VERTEX_KEY);
    lab.ollama().require_key(OLLAMA_KEY);
    let mut asked = 0;
    for case in &CASES {
        for mode in case.modes() {
            let said = call(lab.coder(), &format!("{}{mode}", case.arguments))?;
            ensure!(
                said["text"] == "Hello from the provider.",
                "{}{mode}: {said}",
                case.arguments
            );
            asked += 1;
            let record = lab.calls(asked)?.pop().context("no record")?;
            assert_eq!(record["decision"], "allowed", "{record}");
            assert_eq!(
                (&record["provider"], &record["dialect"]),
                (&json!(case.name), &json!(case.dialect))
            );
            assert_eq!(record["stream"], !mode.is_empty(), "{record}");
            assert_eq!(record["usage"]["known"], true, "{record}");
            assert_eq!(
                (&record["usage"]["input"], &record["usage"]["output"]),
                (&json!(1000), &json!(100))
            );
            assert_eq!(record["cost_pico_usd"], case.cost, "{record}");
            assert_eq!(
                case.provider(&lab)
                    .billed()
                    .last()
                    .context("nothing billed")?
                    .tokens,
                Tokens::new(1000, 100)
            );
        }
    }
    // $0.02 a million: an embedding has input only
    lab.openai().next(Reply::billed(Tokens::new(1000, 0)));
    let said = call(lab.coder(), "embeddings --model text-embedding-3-small")?;
    ensure!(said["ok"] == true, "{said}");
    let record = lab.calls(asked + 1)?.pop().context("no record")?;
    assert_eq!(
        (&record["dialect"], &record["cost_pico_usd"]),
        (&json!("embeddings"), &json!(20_000_000))
    );
    Ok(())
}

#[test]
fn a_tool_call_makes_the_round_trip_in_each_format_and_a_tool_that_is_not_allowed_is_stripped() -> Result<()>
{
    let lab = priced()
        .coder(&format!("{AGENT}\ntools = {{ allow = [\"Read\"] }}"))
        .start()?;
    let mut asked = 0;
    for case in CASES.iter().filter(|case| case.tools) {
        for mode in case.modes() {
            case.provider(&lab)
                .next(Reply::default().calling("Read", r#"{"path":"/x"}"#));
            let said = call(
                lab.coder(),
                &format!("{}{mode} --tools Read,Bash", case.arguments),
            )?;
            ensure!(
                said["ok"] == true && said["tools"] == json!(["Read"]),
                "{}{mode}: {said}",
                case.arguments
            );
            asked += 1;
            let record = lab.calls(asked)?.pop().context("no record")?;
            assert_eq!(record["tools_declared"], json!(["Read", "Bash"]), "{record}");
            assert_eq!(record["tools_called"], json!(["Read"]), "{record}");
            let sent = case.provider(&lab).last()?.json().to_string();
            assert!(sent.contains("Read") && !sent.contains("Bash"), "{sent}");
        }
    }
    Ok(())
}

#[test]
fn a_refusal_in_each_format_takes_one_attempt_and_shows_the_message() -> Result<()> {
    let others = "providers = [\"openai\", \"gemini\", \"bedrock\", \"cohere\", \"vertex\", \"ollama\"]";
    let lab = priced()
        .coder(&AGENT.replace("usd = 100.0", "usd = 0.000001"))
        .other(&format!("{others}\nmodels = [\"nothing\"]"))
        .start()?;
    let mut refused = 0;
    for case in &CASES {
        for mode in case.modes() {
            for (place, words) in [(lab.coder(), "budget"), (lab.other(), "may not use the model")] {
                let said = call(place, &format!("{}{mode}", case.arguments))?;
                let message = said["message"].as_str().unwrap_or_default();
                ensure!(
                    said["ok"] == false && message.contains(words),
                    "{}{mode}: {said}",
                    case.arguments
                );
                ensure!(
                    said["seconds"].as_f64().is_some_and(|seconds| seconds < 8.0),
                    "{said}"
                );
                refused += 1;
                // As many records as calls: one attempt each.
                assert_eq!(lab.calls(refused)?.len(), refused, "{}{mode}", case.arguments);
            }
        }
        assert!(case.provider(&lab).seen().is_empty(), "{}", case.arguments);
    }
    Ok(())
}

#[test]
fn a_key_pair_signs_what_leaves_and_whoever_signs_with_a_placeholder_is_known_by_it() -> Result<()> {
    let lab = Lab::builder().coder(AGENT).other(AGENT).start()?;
    let arguments = "converse --model us.anthropic.claude-haiku-4-5-20251001-v1:0";
    let placeholder = lab.coder().variable("AWS_BEARER_TOKEN_BEDROCK")?;
    let signing = |id: &str| -> Result<Value> {
        let python = lab
            .coder()
            .client(clients::formats()?)?
            .arg(clients::script("formats.py"));
        let python = python
            .env("AWS_BEARER_TOKEN_BEDROCK", "")
            .env("AWS_ACCESS_KEY_ID", id);
        let python = python.env("AWS_SECRET_ACCESS_KEY", "anything at all");
        let done = python.args(arguments.split_whitespace()).run()?.ok()?;
        done.json_lines()?.pop().context("the client said nothing")
    };
    for said in [call(lab.coder(), arguments)?, signing(&placeholder)?] {
        ensure!(said["ok"] == true, "{said}");
        let seen = lab.bedrock().last()?;
        let authorization = seen.header("authorization").context("no signature")?;
        let (id, secret) = BEDROCK_KEY.split_once(':').context("a pair")?;
        assert!(
            authorization.contains(id) && !authorization.contains(&placeholder),
            "{authorization}"
        );
        let asked = json!({
            "id": id, "secret": secret, "method": "POST", "date": seen.header("x-amz-date"),
            "url": format!("https://bedrock-runtime.us-east-1.amazonaws.com{}", seen.path),
            "body": String::from_utf8_lossy(&seen.body),
        });
        let script = format!(
            "{} {}",
            clients::formats()?.display(),
            clients::script("sigv4.py").display()
        );
        let done = lab.outside().shell(&format!(
            "printf %s '{}' | {script}",
            asked.to_string().replace('\'', "'\\''")
        ))?;
        let signature = done.ok()?.json_lines()?.pop().context("no signature")?["signature"].clone();
        let signature = signature.as_str().context("no text")?.to_owned();
        assert!(
            authorization.ends_with(&signature),
            "botocore: {signature}; Guard: {authorization}"
        );
    }
    let seen = lab.bedrock().seen().len();
    for id in [
        "AKIABROUGHTFROMHOME1",
        lab.other().variable("AWS_BEARER_TOKEN_BEDROCK")?.as_str(),
    ] {
        let said = signing(id)?;
        ensure!(
            said["code"] == "AccessDeniedException" && said["status"] == 403,
            "{said}"
        );
    }
    assert_eq!(lab.bedrock().seen().len(), seen);
    Ok(())
}

#[test]
fn side_paths_are_no_calls_and_telemetry_stays_here() -> Result<()> {
    let lab = Lab::builder().coder(AGENT).start()?;
    let get = |method: &str, path: &str| -> Result<String> {
        let url = format!("https://api.anthropic.com{path}");
        let done = lab
            .coder()
            .curl(["-o", "/dev/null", "-w", "%{http_code}", "-X", method, &url])?
            .run()?
            .ok()?;
        Ok(done.stdout)
    };
    // The fake provider knows neither path; what counts is who answers.
    assert_eq!(get("GET", "/api/claude_code/settings")?, "404");
    assert_eq!(lab.anthropic().seen().len(), 1);
    assert_eq!(
        lab.anthropic().last()?.credential(),
        None,
        "no key goes where the client sent none"
    );
    assert_eq!(get("POST", "/api/event_logging/v2/batch")?, "400");
    assert_eq!(get("POST", "/v1/messages/batches")?, "400");
    assert_eq!(lab.anthropic().seen().len(), 1);
    let calls = lab.calls(1)?;
    assert_eq!(calls.len(), 1, "only the batch was a call: {calls:#?}");
    let side = lab
        .audit()?
        .into_iter()
        .filter(|record| record["kind"] == "side")
        .count();
    assert_eq!(side, 2);
    let metrics = lab.metrics()?;
    for verdict in ["passed", "refused"] {
        let labels = [
            ("agent", "coder"),
            ("provider", "anthropic"),
            ("verdict", verdict),
        ];
        assert_eq!(
            metrics.count("guard_side_requests_total", &labels)?,
            1,
            "{verdict}"
        );
    }
    Ok(())
}

/// What bills in a way that cannot be reserved is refused, and says what to do; what is free passes and is no call.
#[test]
fn what_is_billed_in_a_way_that_cannot_be_reserved_is_refused_and_what_is_free_passes() -> Result<()> {
    let lab = Lab::builder()
        .coder(&AGENT.replace("\"gpt-*\"", "\"*\""))
        .other(&format!("{AGENT}\nendpoints = [\"/v1/videos\"]"))
        .start()?;
    for (number, (arguments, words)) in [
        ("video --model sora-2", "no price"),
        // A model that hears has no price for images, and one that speaks none for text.
        ("images --model whisper-1", "no price"),
        ("responses --model tts-1", "no price"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = call(lab.coder(), arguments)?;
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(
            said["ok"] == false && said["status"] == 400 && message.contains(words),
            "{arguments}: {said}"
        );
        let record = lab.calls(number + 1)?.pop().context("no record")?;
        assert_eq!(record["reason"], "unpriced", "{record}");
    }
    assert!(lab.openai().seen().is_empty());
    let said = call(lab.coder(), "moderation --model omni-moderation-latest")?;
    ensure!(said["ok"] == true && said["text"] == "False", "{said}");
    assert_eq!(lab.openai().seen().len(), 1);
    // The fake provider makes no films; what counts is that the owner's list lets the call through.
    let said = call(lab.other(), "video --model sora-2")?;
    ensure!(said["status"] == 404, "{said}");
    assert_eq!(lab.openai().last()?.path, "/v1/videos");
    Ok(())
}

/// A plain reply is held until it is judged, so what is said in its place has the status of a refusal: the SDK raises it
/// with its message, once.
#[test]
fn a_denied_call_in_a_plain_reply_is_the_sdks_own_error_where_the_rules_say_refuse() -> Result<()> {
    let lab = priced()
        .coder(&format!(
            "{AGENT}\ntools = {{ allow = [\"Read\"], in_reply = \"refuse\" }}"
        ))
        .start()?;
    for (number, case) in CASES.iter().filter(|case| case.tools).enumerate() {
        let denied = Reply::default().calling("Bash", r#"{"command":"ls"}"#);
        case.provider(&lab).always(denied);
        let said = call(lab.coder(), &format!("{} --tools Read", case.arguments))?;
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(
            said["ok"] == false && message.contains("Guard stopped a call of the tool"),
            "{}: {said}",
            case.arguments
        );
        ensure!(
            matches!(said["status"].as_u64(), Some(400 | 403)),
            "{}: {said}",
            case.arguments
        );
        // One attempt, which was made and is charged.
        let records = lab.calls(number + 1)?;
        assert_eq!(records.len(), number + 1, "{}", case.arguments);
        let record = records.last().context("no record")?;
        assert_eq!(record["tools_denied"], json!(["Bash"]), "{record}");
        assert_eq!(record["cost_pico_usd"], case.cost, "{record}");
    }
    Ok(())
}
