//! Tool rules on the arguments of a call.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::broken;
use crate::config::{Agent, parse};
use crate::llm::{DeclaredTool, Gate, Judgement, RequestFacts};
use crate::policy::tool_gate::ToolGate;

const RULES: &str = r#"
[[agent]]
name = "coder"
owner = "team"
match = [{ cgroup = "/coder/**" }]
providers = ["openai"]

[agent.tools]
allow = ["*"]
arguments = [
    { tool = "Bash", at = "/command", deny = ["*rm -rf *"] },
    { tool = "Read", at = "/path", allow = ["/home/agent/*"] },
    { tool = "Free", deny = ["*rm -rf *"] },
]
"#;

fn agent() -> Option<&'static Arc<Agent>> {
    static AGENT: OnceLock<Option<Arc<Agent>>> = OnceLock::new();
    let read = || parse(RULES, "guard.toml").ok()?.agents.first().cloned();
    AGENT.get_or_init(read).as_ref()
}

/// A call's arguments, for a tool that the first byte picks.
pub(super) fn tool_gate(input: &[u8]) {
    let Some((&pick, rest)) = input.split_first() else {
        return;
    };
    let Ok(arguments) = std::str::from_utf8(rest) else {
        return;
    };
    let facts = RequestFacts {
        tools: ["Bash", "Read", "Free"].map(DeclaredTool::client).to_vec(),
        ..RequestFacts::default()
    };
    let gate = agent().and_then(|agent| ToolGate::of(agent, &facts, "id".to_owned()));
    let Some(gate) = gate else {
        broken("the rules are not understood");
        return;
    };
    let tool = ["Bash", "Read", "Free"][usize::from(pick % 3)];
    assert!(matches!(gate.by_name(tool), Judgement::Wait));
    let passes = |text: &str| matches!(gate.by_arguments(tool, text), Judgement::Pass);
    let passed = passes(arguments);
    let Ok(value) = serde_json::from_str::<Value>(arguments) else {
        // What another reader could make sense of does not pass a rule on a part of it.
        assert!(!passed || arguments.is_empty() || tool == "Free", "{arguments}");
        return;
    };
    if passed {
        let place = value.pointer(match tool {
            "Bash" => "/command",
            "Read" => "/path",
            _ => "",
        });
        let mut texts = Vec::new();
        leaves(place.unwrap_or(&Value::Null), &mut texts);
        let bad = |text: &String| match tool {
            "Read" => !text.starts_with("/home/agent/"),
            _ => text.contains("rm -rf "),
        };
        assert!(!texts.iter().any(bad), "{arguments}");
        assert!(tool != "Read" || !texts.is_empty(), "{arguments}");
    }
    // The same, written in another way.
    if passed && value.is_object() {
        assert!(passes(&value.to_string()), "{arguments}");
        assert!(passes(&escaped(&value)), "{arguments}");
    }
}

fn leaves(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => texts.push(value.to_string()),
        Value::String(text) => texts.push(text.clone()),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, texts)),
        Value::Object(members) => members.values().for_each(|value| leaves(value, texts)),
    }
}

/// The value's text with every letter of every string as an escape, and white space.
fn escaped(value: &Value) -> String {
    let string = |text: &str| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{units}\"")
    };
    match value {
        Value::String(text) => string(text),
        Value::Array(list) => {
            let all: Vec<String> = list.iter().map(escaped).collect();
            format!("[ {} ]", all.join(" , "))
        }
        Value::Object(members) => {
            let all: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{} : {}", string(name), escaped(value)))
                .collect();
            format!("{{\n{}\n}}", all.join(",\t"))
        }
        other => other.to_string(),
    }
}
