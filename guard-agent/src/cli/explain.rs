//! `guard-agent explain`

use std::path::Path;

use serde_json::Value;

use super::output::print;
use super::{OK, audit};
use crate::money::Pico;

mod change;

/// Says why a call was allowed or refused: which rule, the numbers, and the line to change.
///
/// It reads the audit log, so it needs read access to that and no daemon.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 explained; 1 there is no such record, or it cannot be read.\n\n\
                        Example:\n  sudo guard-agent explain 01JDZ3…"
)]
pub(super) struct Explain {
    /// Id of the call: it stands in the refusal that the agent got.
    #[arg(value_name = "ID")]
    id: String,
}

impl Explain {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let record: Value = serde_json::from_str(&audit::record(config, &self.id)?)?;
        print(&in_words(&record))?;
        Ok(OK)
    }
}

/// The record in words.
fn in_words(record: &Value) -> String {
    let lines = match text(record, "kind") {
        "call" => call(record),
        "connection" => connection(record),
        kind => vec![format!(
            "A record of kind {kind}. `guard-agent audit show {}` shows all of it.",
            text(record, "id")
        )],
    };
    // Part of a record was written by the agent: a terminal must not obey it.
    let plain = |line: String| -> String {
        line.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    lines.into_iter().map(plain).collect::<Vec<_>>().join("\n")
}

fn text<'v>(record: &'v Value, name: &str) -> &'v str {
    record.get(name).and_then(Value::as_str).unwrap_or("?")
}

fn call(record: &Value) -> Vec<String> {
    let model = match record.get("model_requested").and_then(Value::as_str) {
        Some(model) => format!("{model} at {}", text(record, "provider")),
        None => format!("{} of {}", text(record, "endpoint"), text(record, "provider")),
    };
    let mut lines = vec![format!(
        "{} {} (run {}) asked {model}.",
        text(record, "time"),
        text(record, "agent"),
        text(record, "run"),
    )];
    let reason = record.get("reason").and_then(Value::as_str);
    match (text(record, "decision"), reason) {
        ("refused", Some(reason)) => {
            lines.push(format!("Refused by the rule `{reason}`."));
            if let Some(why) = record.get("why").and_then(Value::as_str) {
                lines.push(format!("Told: {why}"));
            }
            lines.push(format!("Change: {}", change::of(reason, text(record, "agent"))));
        }
        ("failed", _) => {
            lines.push("Allowed, and the provider could not be reached or did not answer.".to_owned());
        }
        _ => lines.push("Allowed: no rule stood in the way.".to_owned()),
    }
    lines.extend(money(record));
    for (name, before) in [
        ("rewrites", "Changed in the request: "),
        (
            "would_refuse",
            "Observe mode let it pass; these rules would have refused it: ",
        ),
        ("findings", "Findings: "),
    ] {
        let all: Vec<&str> = record
            .get(name)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !all.is_empty() {
            lines.push(format!("{before}{}.", all.join(", ")));
        }
    }
    lines
}

fn money(record: &Value) -> Option<String> {
    let amount = |name: &str| {
        record
            .get(name)
            .and_then(Value::as_u64)
            .map(|pico| Pico(pico).to_string())
    };
    let cost = amount("cost_pico_usd")?;
    let reserved = amount("reserved_pico_usd").unwrap_or_else(|| "nothing".to_owned());
    let did = match record.get("cause").and_then(Value::as_str) {
        Some("retried") => ", for a retry of what had been paid before",
        Some("failed") => ", for a call that failed",
        Some("looping") => ", for going on with a loop",
        Some(_) | None => "",
    };
    Some(format!("It cost {cost}{did}; {reserved} had been reserved."))
}

fn connection(record: &Value) -> Vec<String> {
    let to = record
        .get("sni")
        .or_else(|| record.get("original_destination"))
        .and_then(Value::as_str)
        .unwrap_or("?");
    let rule = record.get("rule").and_then(Value::as_str);
    vec![format!(
        "{} {} connected to {to}: {}{}.",
        text(record, "time"),
        text(record, "agent"),
        text(record, "decision"),
        rule.map(|rule| format!(", because of {rule}"))
            .unwrap_or_default()
    )]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_explained_with_its_rule_its_numbers_and_the_line_to_change() {
        let said = in_words(&json!({
            "kind": "call", "time": "2026-11-23T09:00:00Z", "agent": "coder", "run": "r1", "provider": "openai",
            "model_requested": "gpt-5\u{1b}[2J", "decision": "refused", "reason": "loop",
            "why": "Guard stopped this call: the tool \"t\" was called 10 times", "findings": ["loop_repeat"],
            "cost_pico_usd": null,
        }));
        for part in [
            "rule `loop`",
            "10 times",
            "loops = {",
            "[[agent]] \"coder\"",
            "Findings: loop_repeat.",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains('\u{1b}'));
    }

    #[test]
    fn an_allowed_call_is_explained_with_its_money() {
        let said = in_words(&json!({
            "kind": "call", "time": "T", "agent": "coder", "run": "r1", "provider": "openai",
            "model_requested": "m", "decision": "allowed", "reason": null, "cost_pico_usd": 5_000_000_000_u64,
            "reserved_pico_usd": 9_000_000_000_u64, "cause": "retried", "rewrites": ["key"], "would_refuse": ["loop"],
        }));
        for part in [
            "no rule stood",
            "$0.005, for a retry",
            "$0.009 had been",
            "request: key.",
            "it: loop.",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
