//! Requests of every format: facts, and rewrites that leave alone what they do not name.

use bytes::Bytes;

use super::broken;
use super::edits::members;
use crate::llm::provider::dialect_of;
use crate::llm::{BodyEdits, DialectKind, Place, RequestFacts};

/// Paths of a format, of which `how` picks one.
fn paths(kind: DialectKind) -> &'static [&'static str] {
    match kind {
        DialectKind::OpenaiChat => &["/v1/chat/completions"],
        DialectKind::OpenaiCompletions => &["/v1/completions", "/v1/fim/completions"],
        DialectKind::OpenaiResponses => &["/v1/responses"],
        DialectKind::Embeddings => &["/v1/embeddings"],
        DialectKind::Media => &["/v1/images/generations"],
        DialectKind::AnthropicMessages => &["/v1/messages"],
        DialectKind::AnthropicVertex => &["/models/claude-sonnet-4-5@20250929:rawPredict"],
        DialectKind::Gemini => &[
            "/models/gemini-2.5-flash:streamGenerateContent",
            "/models/gemini-2.5-flash:generateContent",
            "/models/gemini-embedding-001:batchEmbedContents",
        ],
        DialectKind::BedrockConverse => &["/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"],
        DialectKind::BedrockInvoke => &[
            "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke",
            "/model/amazon.nova-lite-v1:0/invoke",
        ],
        DialectKind::Cohere => &["/v2/chat", "/v2/embed"],
        DialectKind::Ollama => &["/api/chat", "/api/generate", "/api/embed"],
    }
}

/// Members in which rewrites change something.
const EDITED: [&str; 22] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "plugins",
    "web_search_options",
    "search_parameters",
    "stream_options",
    "generationConfig",
    "generation_config",
    "toolConfig",
    "tool_config",
    "inferenceConfig",
    "options",
    "mcp_servers",
    // Tools can be declared in these, too.
    "input",
    "messages",
    "connectors",
];

/// Checks one body. `mode` says what is edited.
pub(super) fn check(kind: DialectKind, mode: u8, how: u8, body: &[u8]) {
    let paths = paths(kind);
    let tail = paths
        .get(usize::from(how) % paths.len())
        .copied()
        .unwrap_or_default();
    let place = Place {
        model: None,
        tail: tail.to_owned(),
    };
    let dialect = dialect_of(kind);
    let Ok(before) = dialect.request_at(&place, body) else {
        return;
    };
    assert!(before.choices >= 1 && before.tools.len() <= 1024);
    let strip = |at: usize| mode >> 3 & 1 == 1 && (at + usize::from(how)).is_multiple_of(2);
    let names = before.tools.iter().map(|tool| tool.name.clone()).enumerate();
    let strip_tools: Vec<String> = names.filter(|(at, _)| strip(*at)).map(|(_, name)| name).collect();
    let cap = u64::from(how).max(1).max(before.thinking_budget.unwrap_or(0));
    let edits = BodyEdits {
        output_cap: (mode >> 1 & 1 == 1).then_some(cap),
        include_usage: mode >> 2 & 1 == 1,
        strip_tools,
        ..BodyEdits::default()
    };
    let body = Bytes::copy_from_slice(body);
    let Ok(out) = dialect.rewrite(&body, &edits) else {
        return;
    };
    if edits.is_empty() {
        assert!(out == body, "nothing was to be changed");
        return;
    }
    let after = dialect.request_at(&place, &out);
    let Ok(after) = after else {
        broken(&format!("{after:?}: {}", String::from_utf8_lossy(&out)));
        return;
    };
    same(&before, &after, &edits, kind);
    untouched(&body, &out);
}

/// What was asked for happened, and nothing else.
fn same(before: &RequestFacts, after: &RequestFacts, edits: &BodyEdits, kind: DialectKind) {
    assert_eq!(before.model, after.model);
    assert_eq!(before.stream, after.stream);
    assert_eq!(before.choices, after.choices);
    assert_eq!(before.service_tier, after.service_tier);
    assert_eq!(before.thinking_budget, after.thinking_budget);
    // An embedding has no output that could be capped.
    let capped = edits
        .output_cap
        .filter(|_| before.output_cap != Some(0) || kind != DialectKind::Embeddings);
    match capped {
        Some(cap) if kind != DialectKind::Embeddings => {
            assert!(after.output_cap.is_some_and(|set| set <= cap), "{after:?} {cap}");
        }
        _ => assert_eq!(before.output_cap, after.output_cap),
    }
    let gone = |name: &String| edits.strip_tools.contains(name);
    for tool in &after.tools {
        assert!(
            !gone(&tool.name) || kind == DialectKind::Embeddings,
            "{} is still declared",
            tool.name
        );
    }
    // An element of chat completions can have several names, and goes with any of them.
    let whole = kind == DialectKind::OpenaiChat;
    for tool in before.tools.iter().filter(|tool| !gone(&tool.name) && !whole) {
        let kept = after.tools.iter().any(|other| other.name == tool.name);
        assert!(kept, "{} was not to be removed", tool.name);
    }
}

/// Every member that no edit names has the text that it had, one level down too.
fn untouched(before: &[u8], after: &[u8]) {
    let read = |bytes| {
        std::str::from_utf8(bytes)
            .ok()
            .and_then(members)
            .unwrap_or_default()
    };
    let (before, after) = (read(before), read(after));
    for (name, old) in &before {
        let new = after.get(name);
        if !EDITED.contains(&name.as_str()) {
            assert!(
                new.is_some_and(|new| new.get() == old.get()),
                "{name} was touched"
            );
        } else if let (Some(old), Some(new)) = (members(old.get()), new.and_then(|new| members(new.get()))) {
            let caps = [
                "include_usage",
                "maxOutputTokens",
                "max_output_tokens",
                "maxTokens",
                "num_predict",
                "tools",
                "toolChoice",
            ];
            for (inner, value) in old.iter().filter(|(inner, _)| !caps.contains(&inner.as_str())) {
                let same = new.get(inner).is_some_and(|new| new.get() == value.get());
                assert!(same || name == "tools", "{name}.{inner} was touched");
            }
        }
    }
    for name in after.keys() {
        assert!(
            before.contains_key(name) || EDITED.contains(&name.as_str()),
            "{name} is new"
        );
    }
}
