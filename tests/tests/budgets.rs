//! What a budget does to calls beside refusing them, through the vendors' own SDKs: a cheaper model and a note from the
//! soft limit on, streams that outgrow what was reserved for them, grants, limits in calls, and the report of it all.

use std::time::Duration;

use anyhow::{Context, Result};
use guard_agent::money::Pico;
use guard_tests::clients;
use guard_tests::lab::Lab;
use guard_tests::provider::{Pace, Reply, Tokens};
use serde_json::{Value, json};

/// An agent with these budgets.
fn lab(budgets: &str) -> Result<Lab> {
    let lines = format!("providers = [\"openai\", \"anthropic\"]\nbudget = [{budgets}]");
    Lab::builder().coder(&lines).start()
}

/// What the SDK said at the end, and the pieces of the stream before.
fn streamed(lab: &Lab, arguments: &str) -> Result<(Value, usize)> {
    let spawn = lab.coder().sdk(arguments)?.patience(Duration::from_secs(60));
    let mut said = spawn.run()?.ok()?.json_lines()?;
    let last = said.pop().context("nothing was said")?;
    Ok((last, said.len()))
}

/// So many words, one event each, whatever was asked for.
fn endless(words: usize) -> Reply {
    Reply {
        words: vec![" word".to_owned(); words],
        ..Reply::billed(Tokens::new(1000, words as u64)).paced(Pace::Every(Duration::from_millis(2)))
    }
}

#[test]
fn from_the_soft_limit_on_calls_go_to_the_cheaper_model_and_the_sdk_sees_a_plain_answer() -> Result<()> {
    let lab = lab("{ window = \"day\", usd = 1.0, soft = 0.001, on_soft = { model = \"gpt-5-mini\" } }")?;
    for _ in 0..2 {
        let said = lab.coder().call("openai --model gpt-5 --max-tokens 100")?;
        assert_eq!(said["text"], "Hello from the provider.", "{said}");
    }
    let asked: Vec<Value> = lab
        .openai()
        .seen()
        .iter()
        .map(|seen| seen.json()["model"].clone())
        .collect();
    assert_eq!(asked, ["gpt-5", "gpt-5-mini"]);
    let calls = lab.calls(2)?;
    assert_eq!(calls[1]["rewrites"], json!(["key", "model"]), "{}", calls[1]);
    assert_eq!(calls[1]["model_requested"], "gpt-5");
    assert_eq!(calls[1]["model"], "gpt-5-mini");
    // 1,000 tokens at $0.25 and 100 at $2 per million.
    assert_eq!(calls[1]["cost_pico_usd"], 450_000_000);
    let reserved = |call: &Value| call["reserved_pico_usd"].as_u64().unwrap_or(0);
    assert!(
        reserved(&calls[1]) < reserved(&calls[0]),
        "at the price of the new model"
    );
    // The other provider has no such model: its calls stay as they are.
    let said = lab
        .coder()
        .call("anthropic --model claude-haiku-4-5 --max-tokens 100")?;
    assert_eq!(said["model"], "claude-haiku-4-5", "{said}");
    Ok(())
}

#[test]
fn from_the_soft_limit_on_the_model_is_told() -> Result<()> {
    let lab = lab(
        "{ window = \"day\", usd = 1.0, soft = 0.001, on_soft = { steer = \"Finish what you are at, and stop.\" } }",
    )?;
    for (call, provider) in [
        ("openai --model gpt-5 --max-tokens 100", lab.openai()),
        (
            "anthropic --model claude-haiku-4-5 --max-tokens 100",
            lab.anthropic(),
        ),
    ] {
        for _ in 0..2 {
            let said = lab.coder().call(call)?;
            assert_eq!(said["text"], "Hello from the provider.", "{said}");
        }
        let asked = provider.last()?.json();
        let heard = asked["messages"][0]["content"]
            .as_str()
            .context("content")?
            .to_owned();
        assert!(
            heard.starts_with("Say hello.\n\n[Notice from the operator of this host: $0.0")
                && heard.ends_with("are used. Finish what you are at, and stop.]"),
            "{heard}"
        );
    }
    let last = lab.calls(4)?.pop().context("no record")?;
    assert_eq!(last["rewrites"], json!(["key", "steer"]), "{last}");
    Ok(())
}

#[test]
fn a_stream_that_outgrows_its_reservation_is_extended_while_there_is_money() -> Result<()> {
    let lab = lab("{ window = \"day\", usd = 1.0 }")?;
    lab.openai().always(endless(900));
    lab.anthropic().always(endless(900));
    for (call, cost) in [
        (
            "openai --model gpt-5 --max-tokens 100 --stream",
            1_250_000_000 + 9_000_000_000_u64,
        ),
        (
            "anthropic --model claude-haiku-4-5 --max-tokens 100 --stream",
            1_000_000_000 + 4_500_000_000,
        ),
    ] {
        let (said, pieces) = streamed(&lab, call)?;
        assert_eq!((&said["ok"], pieces), (&json!(true), 900), "{said}");
        let record = lab
            .calls(if call.starts_with("openai") { 1 } else { 2 })?
            .pop()
            .context("no record")?;
        assert_eq!(record["cost_pico_usd"], cost, "{record}");
        let reserved = record["reserved_pico_usd"].as_u64().context("reserved")?;
        assert!(reserved >= cost, "extended to what it took: {record}");
        assert_eq!(record["findings"], json!([]), "{record}");
    }
    Ok(())
}

/// A stream is cut with the provider's own last event, and the client's second attempt is refused.
fn cut(provider: &str, model: &str, usd: &str, said_by_sdk: &str) -> Result<()> {
    let lab = lab(&format!("{{ window = \"day\", usd = {usd} }}"))?;
    let fake = if provider == "openai" {
        lab.openai()
    } else {
        lab.anthropic()
    };
    fake.always(endless(5000));
    let call = format!("{provider} --model {model} --max-tokens 100 --retries 2");
    let (said, pieces) = streamed(&lab, &format!("{call} --stream"))?;
    assert_eq!(
        (&said["ok"], &said["exception"]),
        (&json!(false), &json!(said_by_sdk)),
        "{said}"
    );
    let message = said["message"].to_string();
    assert!(message.contains("grew beyond what was reserved"), "{said}");
    assert!((100..4000).contains(&pieces), "{pieces} pieces came before it");
    let record = lab.calls(1)?.pop().context("no record")?;
    assert_eq!(record["reason"], "budget_exceeded", "{record}");
    assert_eq!(record["decision"], "allowed");
    // Nobody knows what the provider bills: all that was reserved is booked, and what passed in the end.
    let cost = record["cost_pico_usd"].as_u64().context("cost")?;
    assert!(
        cost >= record["reserved_pico_usd"].as_u64().context("reserved")?,
        "{record}"
    );
    // The same again, not streamed and streamed: one attempt each, and none reaches the provider.
    for mode in ["", " --stream"] {
        let (again, _) = streamed(&lab, &format!("{call}{mode}"))?;
        assert_eq!(again["ok"], false, "{again}");
        let message = again["message"].to_string();
        assert!(
            message.contains("answered already, as far as its budget went"),
            "{again}"
        );
    }
    assert_eq!(fake.seen().len(), 1);
    assert_eq!(lab.calls(3)?.len(), 3, "one attempt each");
    // Another question is judged by its own size.
    let (other, _) = streamed(
        &lab,
        &format!("{provider} --model {model} --max-tokens 1 --prompt Else?"),
    )?;
    assert!(
        !other["message"].to_string().contains("answered already"),
        "{other}"
    );
    Ok(())
}

#[test]
fn an_openai_stream_is_cut_where_the_budget_ends() -> Result<()> {
    cut("openai", "gpt-5", "0.008", "APIError")
}

#[test]
fn an_anthropic_stream_is_cut_where_the_budget_ends() -> Result<()> {
    cut("anthropic", "claude-haiku-4-5", "0.005", "APIStatusError")
}

#[test]
fn a_stream_of_any_format_is_cut_where_the_budget_ends() -> Result<()> {
    let prices = clients::script("prices.toml").display().to_string();
    for (format, usd) in [
        ("gemini --model gemini-2.5-flash", "0.004"),
        (
            "converse --model us.anthropic.claude-haiku-4-5-20251001-v1:0",
            "0.006",
        ),
        ("cohere --model command-a-03-2025", "0.01"),
        ("ollama --model gpt-oss:120b", "0.0008"),
        ("completions --model gpt-3.5-turbo-instruct", "0.004"),
    ] {
        let lines = format!(
            "providers = [\"openai\", \"gemini\", \"bedrock\", \"cohere\", \"ollama\"]
models = [\"gpt-*\", \"gemini-*\", \"*claude-*\", \"command-*\"]
budget = [{{ window = \"day\", usd = {usd} }}]"
        );
        let lab = Lab::builder()
            .further(&format!("\n[prices]\noverlay = {prices:?}\n"))
            .coder(&lines)
            .start()?;
        for provider in [
            lab.openai(),
            lab.gemini(),
            lab.bedrock(),
            lab.cohere(),
            lab.ollama(),
        ] {
            provider.always(endless(5000));
        }
        let python = lab.coder().client(clients::formats()?)?;
        let client = python.arg(clients::script("formats.py"));
        let arguments = format!("{format} --max-tokens 100 --stream");
        let done = client
            .args(arguments.split_whitespace())
            .patience(Duration::from_secs(60));
        let said = done
            .run()?
            .ok()?
            .json_lines()?
            .pop()
            .context("nothing was said")?;
        let record = lab.calls(1)?.pop().context("no record")?;
        assert_eq!(record["reason"], "budget_exceeded", "{format}: {record} {said}");
        assert_eq!(record["decision"], "allowed", "{format}: {record}");
        let limit = Pico::from_usd_text(usd).context(usd)?;
        let cost = record["cost_pico_usd"].as_u64().context("cost")?;
        assert!(cost > limit.0 / 2 && cost < limit.0 * 2, "{format}: {record}");
        // Cohere's SDK has no word for a stream that ends in an error.
        if !format.starts_with("cohere") {
            let message = said["message"].to_string();
            assert!(
                message.contains("grew beyond what was reserved"),
                "{format}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_limit_in_calls_refuses_the_call_after_the_last_one_and_says_so() -> Result<()> {
    let lab = lab(
        "{ window = \"day\", usd = 10.0 }, { window = \"hour\", calls = 2 }, { window = \"day\", tokens = 900000 }",
    )?;
    for _ in 0..2 {
        lab.coder().call("openai --model gpt-5 --max-tokens 100")?;
    }
    let said = lab
        .coder()
        .call("anthropic --model claude-haiku-4-5 --max-tokens 100")?;
    assert_eq!(
        (&said["ok"], &said["status"]),
        (&json!(false), &json!(402)),
        "{said}"
    );
    let message = said["message"].to_string();
    assert!(
        message.contains("has made 2 calls of its 2 calls budget for this hour"),
        "{message}"
    );
    assert_eq!(lab.anthropic().seen().len(), 0);
    let metrics = lab.metrics()?;
    let labels = |window| [("scope", "agent"), ("name", "coder"), ("window", window)];
    assert_eq!(metrics.count("guard_budget_settled_calls", &labels("hour"))?, 2);
    assert_eq!(
        metrics.count("guard_budget_settled_tokens", &labels("day"))?,
        2200
    );
    let budgets = lab.status()?["agents"][0]["budgets"].clone();
    assert_eq!(
        (&budgets[1]["unit"], &budgets[1]["limit"], &budgets[1]["settled"]),
        (&json!("calls"), &json!(2), &json!(2)),
        "{budgets}"
    );
    Ok(())
}

#[test]
fn a_grant_lets_an_agent_go_on_over_a_restart_and_is_on_record() -> Result<()> {
    let lab = lab("{ window = \"day\", usd = 0.003 }")?;
    let call = "openai --model gpt-5 --max-tokens 100";
    assert_eq!(lab.coder().call(call)?["ok"], true);
    let said = lab.coder().call(call)?;
    assert_eq!(said["code"], "guard_budget_exceeded", "{said}");
    let granted = lab.guard([
        "budget",
        "grant",
        "coder",
        "5",
        "--for",
        "2h",
        "--why",
        "the release",
    ])?;
    assert!(
        granted.stdout.contains("may spend $5.00 more until"),
        "{}",
        granted.stdout
    );
    assert_eq!(lab.coder().call(call)?["ok"], true);
    lab.stop_daemon()?;
    lab.start_daemon()?;
    assert_eq!(
        lab.coder().call(call)?["ok"],
        true,
        "a restart takes nothing away"
    );
    let shown = lab.guard(["budget", "show", "coder"])?.stdout;
    assert!(
        shown.contains("$5.00 of it granted, ends in 1 h 59 min: the release"),
        "{shown}"
    );
    let limit = lab
        .metrics()?
        .usd("guard_budget_limit_usd", &[("scope", "agent"), ("name", "coder")])?;
    assert_eq!(limit.0, 5_003_000_000_000);
    let told = lab.audit()?;
    let grant = told
        .iter()
        .find(|record| record["action"] == "grant")
        .context("no record")?;
    assert_eq!(
        (&grant["kind"], &grant["subject"], &grant["by_uid"], &grant["why"]),
        (&json!("admin"), &json!("coder"), &json!(0), &json!("the release")),
        "{grant}"
    );
    Ok(())
}

#[test]
fn usage_says_who_spent_what_on_what_while_calls_go_on() -> Result<()> {
    let lab = lab("{ window = \"day\", usd = 10.0 }")?;
    lab.coder().call("openai --model gpt-5 --max-tokens 100")?;
    lab.openai()
        .next(Reply::default().calling("read", "{\"path\": \"x\"}"));
    lab.coder()
        .call("openai --model gpt-5 --max-tokens 100 --tools read")?;
    lab.coder()
        .call("anthropic --model claude-haiku-4-5 --max-tokens 100")?;
    // The database follows within half a second.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let usage = |by: &str| -> Result<Vec<Value>> {
        let said = lab
            .guard(["usage", "--by", by, "--since", "1h", "--json"])?
            .stdout;
        Ok(serde_json::from_str(&said)?)
    };
    while usage("host")?
        .first()
        .is_none_or(|row| row["cost_pico_usd"] != 6_000_000_000_u64)
    {
        assert!(std::time::Instant::now() < deadline, "{:?}", usage("host")?);
        std::thread::sleep(Duration::from_millis(100));
    }
    let models = usage("model")?;
    assert_eq!(
        (&models[0]["name"], &models[0]["calls"]),
        (&json!("gpt-5"), &json!(2)),
        "{models:#?}"
    );
    assert_eq!(models[0]["cost_pico_usd"], 4_500_000_000_u64);
    assert_eq!(models[1]["input_tokens"], 1000);
    assert_eq!(usage("tool")?[0]["name"], "read");
    assert_eq!(usage("agent")?[0]["name"], "coder");
    assert_eq!(usage("key")?.len(), 2);
    assert_eq!(usage("owner")?.len(), 1);
    assert_eq!(usage("run")?.len(), 1);
    let csv = lab.guard(["usage", "--by", "provider", "--csv"])?.stdout;
    assert!(
        csv.contains("\"openai\",2,0,0,2000,0,0,200,0,0.0045,0.00,0.00,0.00"),
        "{csv}"
    );
    Ok(())
}
