//! Checks against traffic that is not part of the source tree: recorded provider replies with the usage that their
//! publishers found, and requests of real clients. Each directory is named by an environment variable.

use serde_json::Value;

mod others;

use super::read;
use crate::llm::provider::{builtin, by_host, dialect_of};
use crate::llm::{DialectKind, EndpointKind, Usage, detect};

/// Lines of the files in the directory that `variable` names; `None` (with a note) when it is unset.
fn lines(variable: &str, wanted: impl Fn(&str) -> bool) -> Option<Vec<(String, Value)>> {
    let Ok(dir) = std::env::var(variable) else {
        eprintln!("{variable} is not set: nothing was compared");
        return None;
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".jsonl") && wanted(&name) {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                all.push((name.clone(), serde_json::from_str(line).unwrap()));
            }
        }
    }
    assert!(!all.is_empty());
    Some(all)
}

/// The recorded replies in the two formats of the first recordings.
fn replies() -> Option<Vec<(String, Value)>> {
    let wanted = |name: &str| name == "openai-chat.jsonl" || name == "anthropic.jsonl";
    lines("GUARD_RECORDED_DIR", wanted)
}

/// Some recordings are filed under another provider's path; what they hold says what they are.
fn kind_of(file: &str, body: &str) -> DialectKind {
    let message = || serde_json::from_str::<Value>(body).is_ok_and(|body| body["type"] == "message");
    if file == "anthropic.jsonl" || body.starts_with("event: message_start") || message() {
        DialectKind::AnthropicMessages
    } else {
        DialectKind::OpenaiChat
    }
}

/// The buckets by the independent reading of the recording's publisher, in the terms of the wire.
fn expected(native: &Value, billable: Option<&Value>) -> Option<Usage> {
    let count = |pointer: &str| native.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    if native.get("prompt_tokens").is_some() {
        let (read, written) = (
            count("/prompt_tokens_details/cached_tokens"),
            count("/prompt_tokens_details/cache_write_tokens"),
        );
        return Some(Usage {
            input: count("/prompt_tokens") - read - written,
            cache_read: read,
            cache_write_5m: written,
            cache_write_1h: 0,
            output: count("/completion_tokens"),
            reasoning: count("/completion_tokens_details/reasoning_tokens"),
            ..Usage::default()
        });
    }
    native.get("output_tokens")?;
    let billed = |name: &str| {
        billable
            .and_then(|total| total.get(name))
            .and_then(Value::as_u64)
            .unwrap_or_else(|| count(&format!("/{name}")))
    };
    let hour = count("/cache_creation/ephemeral_1h_input_tokens");
    Some(Usage {
        input: billed("input_tokens"),
        cache_read: billed("cache_read_input_tokens"),
        cache_write_5m: billed("cache_creation_input_tokens") - hour,
        cache_write_1h: hour,
        output: billed("output_tokens"),
        ..Usage::default()
    })
}

/// The publisher's reading is of tokens only, and does not tell audio apart.
fn tokens(usage: Usage) -> Usage {
    Usage {
        input: usage.total_uncached(),
        cache_read: usage.total_cache_read(),
        output: usage.total_output(),
        media: Default::default(),
        units: Default::default(),
        ..usage
    }
}

/// Ways to cut a body: everywhere once for small ones, and into pieces of pseudo-random size.
fn cuts(body: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut all = Vec::new();
    if body.len() <= 5000 {
        all.extend((0..=body.len()).map(|at| vec![&body[..at], &body[at..]]));
        all.push(body.chunks(1).collect());
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for most in [3, 40, 1500, 20_000] {
        let mut rest = body;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let size = (1 + usize::try_from(state % most).unwrap()).min(rest.len());
            let (piece, tail) = rest.split_at(size);
            pieces.push(piece);
            rest = tail;
        }
        all.push(pieces);
    }
    all
}

#[test]
fn recorded_replies_are_metered_exactly() {
    let Some(records) = replies() else {
        return;
    };
    let (mut known, mut unknown, mut readings) = (0, 0, 0);
    for (file, record) in &records {
        let body = record["response_body"].as_str().unwrap();
        let kind = kind_of(file, body);
        let sse = record["stream"].as_bool().unwrap();
        let native = &record["expected"]["native_usage_on_wire"];
        let mut usage = expected(native, record["expected"].get("billable_total"));
        if usage.is_none() && body.contains("\"x_groq\":{\"usage\":") {
            // The publisher's reading does not know Groq's place for a stream's usage.
            let at = body.find("\"x_groq\":{\"usage\":").unwrap() + "\"x_groq\":{\"usage\":".len();
            let groq = serde_json::Deserializer::from_str(&body[at..])
                .into_iter::<Value>()
                .next();
            usage = expected(&groq.unwrap().unwrap(), None);
        }
        let id = record["id"].as_str().unwrap();
        let (out, whole) = read(dialect_of(kind), sse, false, &[body.as_bytes()]);
        assert_eq!(out, body.as_bytes(), "{id}");
        assert_eq!(whole.usage.map(tokens), usage, "{id}");
        if whole.error {
            // One recording is an error with status 200.
            assert!(
                whole.usage.is_none() && body.contains("\"error\""),
                "{id}: {whole:?}"
            );
        } else if record["status"] == 200 {
            assert!(
                whole.complete && whole.model.is_some() && whole.finish.is_some(),
                "{id}: {whole:?}"
            );
        } else {
            assert!(whole.error && whole.usage.is_none(), "{id}: {whole:?}");
        }
        for pieces in cuts(body.as_bytes()) {
            let (out, facts) = read(dialect_of(kind), sse, false, &pieces);
            assert!(
                out == body.as_bytes() && facts == whole,
                "{id} in {} pieces",
                pieces.len()
            );
            readings += 1;
        }
        let media = super::media(sse);
        readings += others::again_packed(dialect_of(kind), media, body.as_bytes(), &whole, id);
        if sse {
            let hidden = read(dialect_of(kind), sse, true, &[body.as_bytes()]);
            for pieces in cuts(body.as_bytes()) {
                assert!(
                    read(dialect_of(kind), sse, true, &pieces) == hidden,
                    "{id} hiding"
                );
                readings += 1;
            }
        }
        match whole.usage {
            Some(_) => known += 1,
            None => unknown += 1,
        }
    }
    eprintln!(
        "{} recordings, {known} with usage, {unknown} without, {readings} readings in pieces",
        records.len()
    );
    assert!(known > 0);
}

/// What is seen while a stream passes is no more than what it takes, but for providers that count oddly.
#[test]
fn recorded_streams_are_not_seen_to_take_more_than_they_do() {
    let Some(records) = replies() else {
        return;
    };
    let (mut streams, mut odd, mut passed, mut told) = (0, 0, 0, 0);
    for (file, record) in &records {
        let body = record["response_body"].as_str().unwrap();
        let kind = kind_of(file, body);
        let (_, whole) = read(dialect_of(kind), true, false, &[body.as_bytes()]);
        let (true, Some(usage)) = (record["stream"].as_bool().unwrap(), whole.usage) else {
            continue;
        };
        let seen = super::seen(dialect_of(kind), super::media(true), body.as_bytes());
        let others = |of: fn(&Usage) -> u64| whole.others.iter().map(|other| of(&other.usage)).sum::<u64>();
        let input = usage.total_input() + others(Usage::total_input);
        let output = usage.total_output() + others(Usage::total_output);
        if seen.input > input || seen.output > output {
            eprintln!("{}: {seen:?}, told: {input} and {output}", record["id"]);
            odd += 1;
        }
        (streams, passed, told) = (streams + 1, passed + seen.output, told + output);
    }
    eprintln!("{streams} streams: {passed} tokens of output seen while they passed, {told} told at the end");
    assert!(
        odd * 20 <= streams,
        "{odd} streams were seen to take more than they did"
    );
}

#[test]
fn requests_of_real_clients_are_read() {
    let Some(records) = lines("GUARD_CLIENT_FIXTURES", |_| true) else {
        return;
    };
    let providers = builtin();
    let mut read = 0;
    for (file, record) in &records {
        let path = record["path"].as_str().unwrap().split('?').next().unwrap();
        let Some(provider) = by_host(&providers, record["host"].as_str().unwrap()) else {
            continue;
        };
        let method = record["method"].as_str().unwrap().parse().unwrap();
        let endpoint = detect::endpoint(provider, &method, path);
        let both = [DialectKind::OpenaiChat, DialectKind::AnthropicMessages];
        if endpoint.kind != EndpointKind::Inference || !both.contains(&endpoint.dialect.kind()) {
            continue;
        }
        let body = record["body"].as_str().unwrap();
        let facts = endpoint.dialect.request(body.as_bytes()).unwrap();
        let value: Value = serde_json::from_str(body).unwrap();
        assert_eq!(facts.model, value["model"], "{file}");
        assert_eq!(facts.stream, value["stream"].as_bool().unwrap_or(false), "{file}");
        let declared = value["tools"].as_array().cloned().unwrap_or_default();
        let mut wanted: Vec<String> = declared.iter().map(|tool| wanted_name(tool, &value)).collect();
        let mut found: Vec<String> = facts.tools.iter().map(|tool| tool.name.clone()).collect();
        for names in [&mut wanted, &mut found] {
            names.sort();
            names.dedup();
        }
        assert_eq!(found, wanted, "{file}: {body}");
        assert!(!facts.untouchable && !facts.unseen_input, "{file}: {body}");
        read += 1;
    }
    eprintln!(
        "{read} of {} requests are inference in these formats",
        records.len()
    );
    assert!(read > 0);
}

/// A declared tool's name, read in another way than the formats do.
fn wanted_name(tool: &Value, body: &Value) -> String {
    if let Some(name) = tool.pointer("/function/name") {
        return name.as_str().unwrap().to_owned();
    }
    match tool["type"].as_str() {
        None | Some("custom") => tool["name"].as_str().unwrap().to_owned(),
        Some("mcp_toolset") => {
            let url = body["mcp_servers"][0]["url"].as_str().unwrap();
            format!("mcp:{}", url.split('/').nth(2).unwrap())
        }
        Some(kind) => kind.to_owned(),
    }
}
