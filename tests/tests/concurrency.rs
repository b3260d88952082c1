//! A budget under concurrency: what is settled and reserved together never passes the limit.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guard_agent::money::Pico;
use guard_tests::lab::Lab;
use guard_tests::provider::{Gate, Reply, Tokens};
use serde_json::{Value, json};

/// Worst case and actual cost of each call.
const EACH: Pico = Pico(50_000_000_000);
/// Price of `gpt-5` output: $10 per million tokens.
const PER_OUTPUT_TOKEN: u64 = 10_000_000;

/// The reservation of a call with this output cap and a prompt of this length, as the audit log has it. It is asked by
/// agent `other`, whose budget is not the one under test.
fn reserved(lab: &Lab, calls: usize, cap: u64, prompt: usize) -> Result<u64> {
    lab.other().call(&request(cap, prompt))?;
    let record = lab.calls(calls)?.pop().context("no record")?;
    record["reserved_pico_usd"]
        .as_u64()
        .with_context(|| record.to_string())
}

fn request(cap: u64, prompt: usize) -> String {
    format!(
        "openai --model gpt-5 --max-tokens {cap} --retries 0 --prompt {}",
        "x".repeat(prompt)
    )
}

/// A call whose worst case is exactly $0.05: the part of a reservation that is not output depends on the length of the
/// request only, so two probes settle it.
fn worst_case_of_five_cents(lab: &Lab) -> Result<String> {
    let (cap, prompt) = (4000, 80);
    let input = reserved(lab, 1, cap, prompt)? - cap * PER_OUTPUT_TOKEN;
    let per_byte = (reserved(lab, 2, cap, prompt + 8)? - cap * PER_OUTPUT_TOKEN - input) / 8;
    let longer = (0..8).find(|longer| (input + longer * per_byte).is_multiple_of(PER_OUTPUT_TOKEN));
    let longer = longer.context("no prompt makes the worst case a whole number of output tokens")?;
    let cap = (EACH.0 - input - longer * per_byte) / PER_OUTPUT_TOKEN;
    let prompt = prompt + usize::try_from(longer)?;
    assert_eq!(reserved(lab, 3, cap, prompt)?, EACH.0);
    Ok(request(cap, prompt))
}

#[test]
fn two_hundred_calls_of_five_cents_at_once_spend_exactly_one_dollar() -> Result<()> {
    let lab = Lab::builder()
        // Two hundred equal bodies at once are what a retry storm looks like; here only the money counts.
        .coder(
            "providers = [\"openai\"]\nretries = { per_minute = 1000, per_body = 1000 }\nbudget = [{ window = \"day\", usd = 1.0 }, { window = \"rolling:5h\", usd = 1.0 }]\n[[budget]]\nscope = \"host\"\nwindow = \"day\"\nusd = 3.0",
        )
        .start()?;
    let call = worst_case_of_five_cents(&lab)?;
    let before = lab.openai().seen().len();

    // 5,000 output tokens are $0.05
    let gate = Gate::closed();
    lab.openai()
        .always(Reply::billed(Tokens::new(0, 5000)).behind(&gate));
    let mut clients = lab.coder().sdk(&format!("{call} --parallel 200"))?.start()?;
    lab.openai().wait_for(before + 20, Duration::from_secs(60))?;
    let refused = (0..180)
        .map(|_| Ok(serde_json::from_str(&clients.line()?)?))
        .collect::<Result<Vec<Value>>>()?;
    assert_eq!(
        lab.openai().seen().len(),
        before + 20,
        "exactly twenty were forwarded"
    );
    for refusal in &refused {
        assert_eq!(refusal["status"], 429, "a limit that passes by itself: {refusal}");
        assert_eq!(refusal["code"], "guard_budget_reserved");
        let wait: u32 = refusal["headers"]["retry-after"]
            .as_str()
            .unwrap_or_default()
            .parse()?;
        assert!((1..=20).contains(&wait), "{refusal}");
    }
    let scope = [("scope", "agent"), ("name", "coder"), ("window", "day")];
    assert_eq!(
        lab.metrics()?.usd("guard_budget_reserved_usd", &scope)?,
        Pico(20 * EACH.0)
    );

    gate.open();
    let said = clients.wait(Duration::from_secs(30))?.ok()?.json_lines()?;
    assert_eq!(said.iter().filter(|line| line["ok"] == true).count(), 20);
    let deadline = Instant::now() + Duration::from_secs(5);
    while lab.metrics()?.usd("guard_budget_reserved_usd", &scope)? != Pico::ZERO && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(50));
    }
    let metrics = lab.metrics()?;
    assert_eq!(
        metrics.usd("guard_budget_settled_usd", &scope)?,
        Pico::from_usd_text("1").context("$1")?
    );
    assert_eq!(metrics.usd("guard_budget_reserved_usd", &scope)?, Pico::ZERO);

    // The same money counts in the rolling window, and beside the probes in the machine's budget.
    let rolling = [("scope", "agent"), ("name", "coder"), ("window", "rolling:5h")];
    assert_eq!(
        metrics.usd("guard_budget_settled_usd", &rolling)?,
        Pico(20 * EACH.0)
    );
    assert!(metrics.usd("guard_budget_settled_usd", &[("scope", "host")])? > Pico(20 * EACH.0));

    let after = lab.coder().call(&call)?;
    assert_eq!(
        (&after["status"], &after["code"]),
        (&json!(400), &json!("guard_budget_exceeded")),
        "now it is final"
    );
    assert_eq!(lab.openai().seen().len(), before + 20);
    Ok(())
}
