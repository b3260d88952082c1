//! The demonstration: what Guard does, shown with the real daemon, the real kernel programs and the vendors' own
//! clients against fake providers. Each step checks what it shows; the first that does not hold ends the run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_agent::money::Pico;
use serde_json::{Map, Value, json};

use crate::lab::{ANTHROPIC_KEY, Lab, OPENAI_KEY};
use crate::provider::{Reply, Tokens};

/// The agent's rules in the demonstration.
const CODER: &str = r#"
providers = ["openai", "anthropic"]
models = ["gpt-5", "claude-haiku-4-5"]
tools = { allow = ["Read"], on_violation = "strip" }
caps = { output_tokens = 1000 }
budget = [{ window = "day", usd = 0.05 }]
"#;

/// A call that everyone can follow: 1,000 tokens in, 100 out.
const CALL: &str = "openai --model gpt-5";
/// How many calls of the fifth step fit into the budget: see [`budget`].
const FIT: usize = 4;

/// What a step shows, in order.
pub type Facts = Vec<(&'static str, Value)>;

/// One step.
#[derive(Clone, Copy)]
pub struct Step {
    /// What it proves, as a sentence.
    pub title: &'static str,
    /// Does it and gives what is to be shown.
    ///
    /// # Errors
    /// The sentence does not hold.
    pub act: fn(&Lab) -> Result<Facts>,
}

/// Every step, in the order in which a person sees them.
pub const STEPS: [Step; 7] = [
    Step {
        title: "A call that the rules allow passes, and its tokens and cost are known exactly",
        act: allowed,
    },
    Step {
        title: "The provider received the real key; the client never had it",
        act: key,
    },
    Step {
        title: "A tool that is not on the agent's list is stripped from the request",
        act: tool,
    },
    Step {
        title: "A model that is not on the agent's list is refused, in words that help",
        act: model,
    },
    Step {
        title: "The budget ends at exactly the right call; the client tries once and is told why",
        act: budget,
    },
    Step {
        title: "The same command outside the agent reaches the provider directly and untouched",
        act: outside,
    },
    Step {
        title: "Metrics and status agree with the provider's own bill",
        act: books,
    },
];

/// The lab in which the steps run, in order and once.
///
/// # Errors
/// As [`crate::lab::Builder::start`].
pub fn stage() -> Result<Lab> {
    let lab = Lab::builder().coder(CODER).quiet().start()?;
    // real providers do not answer strangers, and neither do these
    lab.openai().require_key(OPENAI_KEY);
    lab.anthropic().require_key(ANTHROPIC_KEY);
    Ok(lab)
}

fn allowed(lab: &Lab) -> Result<Facts> {
    lab.openai().next(Reply::billed(Tokens::new(1000, 100)));
    let said = lab.coder().call(CALL)?;
    ensure!(said["ok"] == true, "the client was refused: {said}");
    lab.anthropic().next(Reply::billed(Tokens::new(1000, 100)));
    let streamed = lab.coder().call("anthropic --model claude-haiku-4-5 --stream")?;
    ensure!(streamed["ok"] == true, "the client was refused: {streamed}");
    let calls = lab.calls(2)?;
    let mut facts = vec![("command", json!(format!("llm.py {CALL}")))];
    // $1.25 and $10, $1 and $5 per million tokens
    for (record, cost, labels) in [
        (
            &calls[0],
            2_250_000_000_u64,
            ["openai: reply", "openai: tokens", "openai: cost"],
        ),
        (
            &calls[1],
            1_500_000_000,
            [
                "anthropic, streamed: reply",
                "anthropic: tokens",
                "anthropic: cost",
            ],
        ),
    ] {
        ensure!(
            record["cost_pico_usd"] == cost,
            "the cost is {cost} pico-dollars: {record}"
        );
        let usage = &record["usage"];
        ensure!(
            usage["input"] == 1000 && usage["output"] == 100,
            "1,000 tokens in and 100 out: {usage}"
        );
        facts.push((
            labels[0],
            if record["provider"] == "openai" {
                said["text"].clone()
            } else {
                streamed["text"].clone()
            },
        ));
        facts.push((labels[1], json!("1000 in, 100 out")));
        facts.push((labels[2], json!(Pico(cost).to_string())));
    }
    Ok(facts)
}

fn key(lab: &Lab) -> Result<Facts> {
    let upstream = lab.openai().last()?;
    ensure!(
        upstream.credential() == Some(OPENAI_KEY),
        "the provider was shown another key"
    );
    let environment = lab.coder().shell("env")?.ok()?.stdout;
    let held = lab.coder().variable("OPENAI_API_KEY")?;
    let reply = lab
        .coder()
        .curl(["--include", "https://api.openai.com/v1/models"])?
        .run()?
        .ok()?
        .stdout;
    ensure!(
        reply.contains("\"gpt-5\""),
        "the model list did not come: {reply}"
    );
    let audit = json!(lab.audit()?).to_string();
    for (place, text) in [
        ("the client's environment", environment),
        ("a reply", reply),
        ("the audit log", audit),
        ("the daemon's log", lab.daemon_said()),
        ("the metrics", lab.metrics()?.lines("").join("\n")),
    ] {
        ensure!(!text.contains(OPENAI_KEY), "the real key is in {place}");
    }
    Ok(vec![
        ("provider received", json!(masked(OPENAI_KEY))),
        ("client held", json!(masked(&held))),
        (
            "looked for it in",
            json!("environment, reply, audit log, daemon's log, metrics: not there"),
        ),
    ])
}

fn tool(lab: &Lab) -> Result<Facts> {
    lab.openai().next(Reply::billed(Tokens::new(1000, 100)));
    let said = lab.coder().call(&format!("{CALL} --tools Read,Bash"))?;
    ensure!(said["ok"] == true, "the client was refused: {said}");
    let arrived = lab.openai().last()?.tools();
    ensure!(arrived == ["Read"], "the provider saw {arrived:?}");
    Ok(vec![
        ("declared", json!("Read, Bash")),
        ("provider saw", json!(arrived.join(", "))),
    ])
}

fn model(lab: &Lab) -> Result<Facts> {
    let before = lab.openai().seen().len();
    let said = lab.coder().call("openai --model gpt-5-pro")?;
    ensure!(
        said["code"] == "guard_model_denied",
        "not refused for the model: {said}"
    );
    ensure!(
        lab.openai().seen().len() == before,
        "the call was forwarded nonetheless"
    );
    Ok(vec![
        ("asked for", json!("gpt-5-pro")),
        ("client shows", said["message"].clone()),
    ])
}

/// $0.006 are spent; each call settles at $0.01 and reserves a little more; so four fit into $0.05, and the fifth does
/// not.
fn budget(lab: &Lab) -> Result<Facts> {
    lab.openai().always(Reply::billed(Tokens::new(800, 900)));
    let records = lab.audit()?.len();
    let before = lab.openai().seen().len();
    let run = lab
        .coder()
        .sdk(&format!("{CALL} --calls {}", FIT + 1))?
        .run()?
        .ok()?;
    let said = run.json_lines()?;
    let passed = said.iter().take_while(|line| line["ok"] == true).count();
    ensure!(passed == FIT, "{passed} calls passed instead of {FIT}: {said:?}");
    let refused = said.last().context("the client said nothing")?;
    ensure!(
        refused["code"] == "guard_budget_exceeded",
        "not refused for money: {refused}"
    );
    ensure!(
        lab.openai().seen().len() == before + FIT,
        "the refused call was forwarded"
    );
    let tries = lab
        .audit()?
        .iter()
        .skip(records)
        .filter(|record| record["decision"] == "refused")
        .count();
    ensure!(tries == 1, "the client tried {tries} times");
    Ok(vec![
        ("limit", json!("$0.05 a day")),
        ("calls that passed", json!(passed)),
        ("attempts at the refused one", json!(tries)),
        ("the client shows", refused["message"].clone()),
        ("exception", refused["exception"].clone()),
    ])
}

fn outside(lab: &Lab) -> Result<Facts> {
    let placeholder = lab.coder().variable("OPENAI_API_KEY")?;
    let run = lab
        .outside()
        .sdk(CALL)?
        .env("OPENAI_API_KEY", &placeholder)
        .run()?
        .ok()?;
    let said = run.json_lines()?.pop().context("the client said nothing")?;
    ensure!(
        said["code"] == "invalid_api_key",
        "not the provider's own answer: {said}"
    );
    let seen = lab.openai().last()?;
    ensure!(
        seen.credential() == Some(placeholder.as_str()),
        "the provider was shown another key"
    );
    let issuer = |place: crate::lab::Place<'_>| -> Result<String> {
        let done = place
            .curl(["--verbose", "https://api.openai.com/v1/models"])?
            .run()?;
        let line = done.stderr.lines().find_map(|line| line.split_once("issuer: "));
        Ok(line.with_context(|| done.stderr.clone())?.1.to_owned())
    };
    let (inside, direct) = (issuer(lab.coder())?, issuer(lab.outside())?);
    ensure!(
        direct.contains("Lab Root") && inside != direct,
        "issuers: inside {inside}, outside {direct}"
    );
    Ok(vec![
        ("provider received", json!(masked(&placeholder))),
        (
            "provider's own answer",
            json!(format!(
                "{} {}",
                said["status"],
                said["code"].as_str().unwrap_or_default()
            )),
        ),
        ("certificate inside", json!(inside)),
        ("certificate outside", json!(direct)),
    ])
}

fn books(lab: &Lab) -> Result<Facts> {
    // six calls to OpenAI, one to Anthropic: 2 x $0.00225 + 4 x $0.01 + $0.0015
    let total = Pico(46_000_000_000);
    std::thread::sleep(Duration::from_millis(100));
    let metrics = lab.metrics()?;
    let settled = metrics.usd(
        "guard_budget_settled_usd",
        &[("scope", "agent"), ("name", "coder")],
    )?;
    ensure!(settled == total, "settled {settled} instead of {total}");
    let billed = lab.openai().billed().len() + lab.anthropic().billed().len();
    ensure!(billed == FIT + 3, "the providers billed {billed} calls");
    let mut facts = vec![
        ("settled", json!(settled.to_string())),
        ("calls billed", json!(billed)),
    ];
    let shown = [
        "guard_calls_total",
        "guard_tokens_total",
        "guard_cost_usd_total",
        "guard_refusals_total",
        "guard_budget",
    ];
    for line in shown.iter().flat_map(|name| metrics.lines(name)) {
        facts.push(("metrics", json!(line)));
    }
    for line in lab.guard(["status"])?.stdout.lines() {
        facts.push(("status", json!(line)));
    }
    Ok(facts)
}

/// Enough of a key to tell it from another.
fn masked(key: &str) -> String {
    let shown: String = key.chars().take(16).collect();
    format!("{shown}…")
}

/// Facts as one JSON object; what is said several times becomes a list.
pub fn object(facts: &Facts) -> Value {
    let mut object = Map::new();
    for (name, value) in facts {
        match object.get_mut(*name) {
            None => {
                object.insert((*name).to_owned(), value.clone());
            }
            Some(Value::Array(list)) => list.push(value.clone()),
            Some(first) => *first = json!([first.clone(), value]),
        }
    }
    Value::Object(object)
}
