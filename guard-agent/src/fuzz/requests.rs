//! Requests of every format: facts, and rewrites that leave alone what they do not name.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::broken;
use super::edits::members;
use crate::llm::provider::dialect_of;
use crate::llm::{BodyEdits, Dialect, DialectKind, Place, RequestFacts};

/// Bits of the first byte that say what is edited.
const CAP: u8 = 1 << 1;
const USAGE: u8 = 1 << 2;
const STRIP: u8 = 1 << 3;
const MODEL: u8 = 1 << 4;
const NOTE: u8 = 1 << 5;
/// Another model, and what is said to it.
const OTHER: &str = "other";
const SAID: &str = "Be \"brief\".\nNow.";

/// Paths of a format, of which `how` picks one.
fn paths(kind: DialectKind) -> &'static [&'static str] {
    match kind {
        DialectKind::OpenaiChat => &["/v1/chat/completions"],
        DialectKind::OpenaiCompletions => &["/v1/completions", "/v1/fim/completions"],
        DialectKind::OpenaiResponses => &["/v1/responses"],
        DialectKind::Embeddings => &["/v1/embeddings"],
        DialectKind::Media => &["/v1/images/generations", "/v1/audio/speech", "/v1/images/edits"],
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
        DialectKind::OpenaiRealtime => &["/v1/realtime"],
        DialectKind::GeminiLive => &[""],
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

/// Bodies with each of the edits, for the format that the first byte picks; the next says which edits.
pub(super) fn body_edits(input: &[u8]) {
    let Some((&[pick, mode, how], rest)) = input.split_first_chunk::<3>() else {
        return;
    };
    let kinds = [
        DialectKind::OpenaiChat,
        DialectKind::AnthropicMessages,
        DialectKind::OpenaiResponses,
        DialectKind::OpenaiCompletions,
    ];
    if let Some(kind) = kinds.get(usize::from(pick) % kinds.len()) {
        check(*kind, mode, how, rest);
    }
}

/// Checks one body. `mode` says what is edited.
pub(super) fn check(kind: DialectKind, mode: u8, how: u8, body: &[u8]) {
    let paths = paths(kind);
    let tail = paths
        .get(usize::from(how) % paths.len())
        .copied()
        .unwrap_or_default();
    let place = Place {
        model: None,
        region: None,
        tail: tail.to_owned(),
        content_type: None,
    };
    let dialect = dialect_of(kind);
    let read = |body: &[u8]| {
        let facts = dialect.request_at(&place, body);
        facts.map_err(|error| error.to_string())
    };
    edited(dialect, &read, mode, how, body);
}

/// Checks one body that is read so.
pub(super) fn edited(
    dialect: &dyn Dialect,
    read: &dyn Fn(&[u8]) -> Result<RequestFacts, String>,
    mode: u8,
    how: u8,
    body: &[u8],
) {
    let kind = dialect.kind();
    let Ok(before) = read(body) else {
        return;
    };
    assert!(before.choices >= 1 && before.tools.len() <= 1024);
    let takes = dialect.takes(body);
    let strip = |at: usize| mode & STRIP != 0 && (at + usize::from(how)).is_multiple_of(2);
    let names = before.tools.iter().map(|tool| tool.name.clone()).enumerate();
    let strip_tools: Vec<String> = names.filter(|(at, _)| strip(*at)).map(|(_, name)| name).collect();
    let cap = u64::from(how).max(1).max(before.thinking_budget.unwrap_or(0));
    let edits = BodyEdits {
        output_cap: (mode & CAP != 0).then_some(cap),
        include_usage: mode & USAGE != 0,
        strip_tools,
        model: (mode & MODEL != 0 && takes.model).then(|| OTHER.to_owned()),
        note: (mode & NOTE != 0 && takes.note).then(|| SAID.to_owned()),
    };
    let body = Bytes::copy_from_slice(body);
    let out = match dialect.rewrite(&body, &edits) {
        Ok(out) => out,
        Err(error) => {
            let promised = mode & (CAP | USAGE | STRIP) == 0;
            assert!(
                !promised || before.untouchable,
                "what it takes it does not take: {error}"
            );
            return;
        }
    };
    if edits.is_empty() {
        assert!(out == body, "nothing was to be changed");
        return;
    }
    assert!(!before.untouchable, "it carries a checksum, and is changed");
    let after = read(&out);
    let Ok(after) = after else {
        broken(&format!("{after:?}: {}", String::from_utf8_lossy(&out)));
        return;
    };
    same(&before, &after, &edits, kind);
    untouched(&body, &out, &edits, kind);
}

/// What was asked for happened, and nothing else.
fn same(before: &RequestFacts, after: &RequestFacts, edits: &BodyEdits, kind: DialectKind) {
    assert_eq!(edits.model.as_ref().unwrap_or(&before.model), &after.model);
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
fn untouched(before: &[u8], after: &[u8], edits: &BodyEdits, kind: DialectKind) {
    let read = |bytes| {
        std::str::from_utf8(bytes)
            .ok()
            .and_then(members)
            .unwrap_or_default()
    };
    let (before, after) = (read(before), read(after));
    for (name, old) in &before {
        let new = after.get(name);
        if name == "model" && edits.model.is_some() {
            continue;
        }
        if matches!(name.as_str(), "messages" | "input") && edits.strip_tools.is_empty() {
            // A body may have the other formats' list too, which nobody reads.
            let own = (name == "input") == (kind == DialectKind::OpenaiResponses);
            said(old, new.map(|new| &**new), edits.note.as_deref().filter(|_| own));
        }
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

/// What was said is what was said before, with the note behind it.
fn said(old: &RawValue, new: Option<&RawValue>, note: Option<&str>) {
    let (old, new) = (old.get(), new.map_or("", RawValue::get));
    let Some(note) = note else {
        assert_eq!(old, new, "what was said was touched");
        return;
    };
    if old.starts_with('"') {
        added(old, new, note);
        return;
    }
    let list = |text| serde_json::from_str::<Vec<Box<RawValue>>>(text).unwrap_or_default();
    let (old, new) = (list(old), list(new));
    assert_eq!(old.len(), new.len());
    let Some(((old_last, before), (new_last, after))) = old.split_last().zip(new.split_last()) else {
        broken("a note to nobody");
        return;
    };
    let same = before.iter().zip(after).all(|(old, new)| old.get() == new.get());
    assert!(same, "what was said before was touched");
    let (old, new) = (members(old_last.get()), members(new_last.get()));
    let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
    assert!(old.keys().eq(new.keys()));
    let changed: Vec<_> = old
        .iter()
        .zip(new.values())
        .filter(|((_, old), new)| old.get() != new.get())
        .collect();
    let [((name, old), new)] = changed[..] else {
        broken(&format!("{} members have the note", changed.len()));
        return;
    };
    assert!(
        matches!(name.as_str(), "content" | "output"),
        "{name} was touched"
    );
    added(old.get(), new.get(), note);
}

/// The note stands behind a text, or in a part of its own behind the others. Not all of what passes can be read as a
/// value (half a surrogate, a number without bound), so it is looked at as text.
fn added(old: &str, new: &str, note: &str) {
    let quoted = Value::from(note).to_string();
    if let Some(open) = old.strip_suffix('"') {
        let more = quoted.strip_prefix('"').unwrap_or_default();
        assert_eq!(format!("{open}\\n\\n{more}"), new);
        return;
    }
    let list = |text| serde_json::from_str::<Vec<Box<RawValue>>>(text).unwrap_or_default();
    let (old, new) = (list(old), list(new));
    let (last, before) = match new.split_last() {
        Some((last, before)) => (last.get(), before),
        None => ("", &[][..]),
    };
    assert!(
        old.iter()
            .map(|part| part.get())
            .eq(before.iter().map(|part| part.get())),
        "what was said before the note was touched"
    );
    let part = members(last).unwrap_or_default();
    assert_eq!(part.get("text").map(|text| text.get()), Some(quoted.as_str()));
}
