//! One audit record as a line for people.

use serde_json::Value;

use crate::money::Pico;

/// What was decided, in a line. A record that cannot be read is shown as it is.
pub(super) fn readable(record: &str) -> String {
    let Ok(value) = serde_json::from_str::<Value>(record) else {
        return plain(record);
    };
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    // 2026-11-23T09:00:00.123456Z → 2026-11-23 09:00:00
    let time = text("time")
        .unwrap_or("?")
        .get(..19)
        .unwrap_or("?")
        .replace('T', " ");
    let kind = text("kind").unwrap_or("?");
    let agent = text("agent").unwrap_or("-");
    let what = match kind {
        "call" => call(&value),
        "connection" => format!(
            "{} {}",
            text("decision").unwrap_or("?"),
            text("sni").or(text("original_destination")).unwrap_or("?")
        ),
        _ => rest(&value),
    };
    plain(&format!("{time}  {agent:<12} {kind:<10} {what}"))
}

fn call(value: &Value) -> String {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let model = text("model").or(text("model_requested")).unwrap_or("?");
    let provider = text("provider").unwrap_or("?");
    let decision = text("decision").unwrap_or("?");
    if let Some(reason) = text("reason") {
        return format!("{} {model} at {provider}: {reason}", decision.to_uppercase());
    }
    let mut parts = vec![format!("{decision} {model} at {provider}")];
    parts.extend(
        value
            .get("cost_pico_usd")
            .and_then(Value::as_u64)
            .map(|pico| Pico(pico).to_string()),
    );
    parts.extend(value.get("usage").and_then(tokens));
    parts.extend(
        value
            .get("status")
            .and_then(Value::as_u64)
            .map(|code| code.to_string()),
    );
    parts.join(", ")
}

/// Nothing where no usage could be, `unknown` where one should have been.
fn tokens(usage: &Value) -> Option<String> {
    if !usage.get("known")?.as_bool()? {
        return Some("usage unknown".to_owned());
    }
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let input = ["input", "cache_read", "cache_write_5m", "cache_write_1h"].map(count);
    let input = input.iter().fold(0_u64, |sum, part| sum.saturating_add(*part));
    Some(format!("{input} in, {} out", count("output")))
}

/// What the other kinds say beside the head that all share.
fn rest(value: &Value) -> String {
    const HEAD: [&str; 13] = [
        "v",
        "time",
        "id",
        "kind",
        "agent",
        "owner",
        "run",
        "session",
        "cgroup",
        "container",
        "unit",
        "prev",
        "hash",
    ];
    let fields = value.as_object().into_iter().flatten().filter(|(name, value)| {
        !HEAD.contains(&name.as_str()) && !value.is_null() && !value.is_object() && !value.is_array()
    });
    let shown = fields.map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name}={text}"),
        None => format!("{name}={value}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// Without what a terminal would obey: part of a record was written by the agent.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_line() {
        for (record, line) in [
            (
                r#"{"v":1,"time":"2026-11-23T09:00:00.123456Z","kind":"call","agent":"coder","provider":"openai","model":"gpt-5","decision":"allowed","reason":null,"usage":{"known":true,"input":10,"cache_read":2,"output":34},"cost_pico_usd":123000000,"status":200}"#,
                "2026-11-23 09:00:00  coder        call       allowed gpt-5 at openai, $0.000123, 12 in, 34 out, 200",
            ),
            (
                r#"{"time":"2026-11-23T09:00:00.1Z","kind":"call","agent":"coder","provider":"openai","model_requested":"gpt-5","decision":"refused","reason":"budget_exceeded"}"#,
                "2026-11-23 09:00:00  coder        call       REFUSED gpt-5 at openai: budget_exceeded",
            ),
            (
                r#"{"time":"2026-11-23T09:00:00.1Z","kind":"connection","agent":"coder","decision":"passed","sni":"pypi.org"}"#,
                "2026-11-23 09:00:00  coder        connection passed pypi.org",
            ),
            (
                r#"{"v":1,"time":"2026-11-23T09:00:00.1Z","kind":"admin","agent":null,"action":"reload","uid":0}"#,
                "2026-11-23 09:00:00  -            admin      action=reload uid=0",
            ),
        ] {
            assert_eq!(readable(record), line);
        }
    }

    #[test]
    fn an_unknown_usage_is_not_zero_and_a_terminal_is_not_steered() {
        let line = readable(
            r#"{"time":"2026-11-23T09:00:00.1Z","kind":"call","agent":"a","model":"x\u001b[2J","decision":"allowed","cost_pico_usd":5,"usage":{"known":false}}"#,
        );
        assert!(
            line.contains("usage unknown") && !line.contains('\u{1b}'),
            "{line:?}"
        );
        assert_eq!(readable("not json\u{7}"), "not json ");
        assert!(readable("{}").contains('?'));
    }
}
