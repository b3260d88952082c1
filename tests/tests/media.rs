//! What is billed in other ways than by its text, from the vendors' own unmodified SDKs through the kernel and the daemon to
//! a provider and back: reserved at the most that it can cost, settled at what the reply states, refused in one attempt.

use anyhow::{Context, Result, ensure};
use guard_tests::clients;
use guard_tests::lab::{COHERE_KEY, Lab, Place};
use serde_json::{Value, json};

/// An agent that may use all of it.
const AGENT: &str = r#"
providers = ["openai", "cohere"]
models = ["*"]
budget = [{ window = "day", usd = 100.0 }]
"#;

/// A dollar in pico-dollars.
const DOLLAR: u64 = 1_000_000_000_000;

/// One call by the vendor's SDK.
fn call(place: Place<'_>, arguments: &str) -> Result<Value> {
    let python = place
        .client(clients::formats()?)?
        .arg(clients::script("formats.py"));
    let done = python.args(arguments.split_whitespace()).run()?.ok()?;
    done.json_lines()?.pop().context("the client said nothing")
}

/// The record of the call with this number, from one on.
fn record(lab: &Lab, number: usize) -> Result<Value> {
    lab.calls(number)?.pop().context("no record")
}

/// $2.00 for 1,000 searches (cohere.com/pricing); 150 documents are two.
#[test]
fn a_rerank_is_reserved_and_settled_by_the_search_and_its_tokens_are_not_known() -> Result<()> {
    let lab = Lab::builder().coder(AGENT).start()?;
    lab.cohere().require_key(COHERE_KEY);
    let said = call(lab.coder(), "rerank --model rerank-v3.5 --number 150")?;
    ensure!(said["text"] == "150" && said["usage"] == 2.0, "{said}");
    let record = record(&lab, 1)?;
    assert_eq!(record["dialect"], "cohere", "{record}");
    assert_eq!(record["cost_pico_usd"], 2 * DOLLAR / 500, "{record}");
    assert_eq!(record["reserved_pico_usd"], 2 * DOLLAR / 500, "{record}");
    let usage = &record["usage"];
    assert_eq!(
        (&usage["known"], &usage["input"], &usage["search_unit"]),
        (&json!(false), &Value::Null, &json!(2)),
        "{record}"
    );
    assert!(!record.to_string().contains("a document"), "{record}");
    Ok(())
}

#[test]
fn what_does_not_fit_into_the_budget_or_is_not_allowed_is_refused_in_one_attempt() -> Result<()> {
    let lab = Lab::builder()
        .coder(&AGENT.replace("usd = 100.0", "usd = 0.000001"))
        .other(&AGENT.replace("\"*\"", "\"nothing\""))
        .start()?;
    let mut refused = 0;
    for arguments in ["rerank --model rerank-v3.5"] {
        for (place, words) in [(lab.coder(), "budget"), (lab.other(), "may not use the model")] {
            let said = call(place, arguments)?;
            let message = said["message"].as_str().unwrap_or_default();
            ensure!(
                said["ok"] == false && message.contains(words),
                "{arguments}: {said}"
            );
            refused += 1;
            // As many records as calls: one attempt each.
            assert_eq!(lab.calls(refused)?.len(), refused, "{arguments}");
        }
    }
    assert!(lab.openai().seen().is_empty() && lab.cohere().seen().is_empty());
    Ok(())
}
