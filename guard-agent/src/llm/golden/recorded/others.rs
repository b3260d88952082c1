//! The same for the other formats: replies with the usage that the wire states, read here in another way than the
//! formats do, and beside it the reading of an independent library where the recording has one.

use http::Method;
use serde_json::Value;

use super::super::compressed::{CODINGS, pack, read_packed};
use super::{cuts, lines, read, tokens};
use crate::llm::provider::{builtin, by_host};
use crate::llm::{Dialect, EndpointKind, ReplyFacts, Usage, detect};

/// The buckets by the wire's own words.
fn expected(file: &str, native: &Value) -> Option<Usage> {
    let count = |pointer: &str| native.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    native.as_object()?;
    // OpenAI's name and Perplexity's.
    let written = count("/input_tokens_details/cache_write_tokens")
        .max(count("/input_tokens_details/cache_creation_input_tokens"));
    // Of what the model read, what is not billed was cached first.
    let unbilled = count("/tokens/input_tokens").saturating_sub(count("/billed_units/input_tokens"));
    let cached = count("/cached_tokens").saturating_sub(unbilled);
    Some(match file {
        "openai-responses.jsonl" => Usage {
            input: count("/input_tokens") - count("/input_tokens_details/cached_tokens") - written,
            cache_read: count("/input_tokens_details/cached_tokens"),
            cache_write_5m: written,
            output: count("/output_tokens"),
            reasoning: count("/output_tokens_details/reasoning_tokens"),
            ..Usage::default()
        },
        "gemini.jsonl" => Usage {
            input: count("/promptTokenCount") - count("/cachedContentTokenCount")
                + count("/toolUsePromptTokenCount"),
            cache_read: count("/cachedContentTokenCount"),
            output: count("/candidatesTokenCount") + count("/thoughtsTokenCount"),
            reasoning: count("/thoughtsTokenCount"),
            ..Usage::default()
        },
        "cohere.jsonl" => Usage {
            input: count("/billed_units/input_tokens") - cached,
            cache_read: cached,
            output: count("/billed_units/output_tokens"),
            ..Usage::default()
        },
        "openai-completions.jsonl" => Usage {
            input: count("/prompt_tokens") - count("/prompt_tokens_details/cached_tokens"),
            cache_read: count("/prompt_tokens_details/cached_tokens"),
            output: count("/completion_tokens"),
            ..Usage::default()
        },
        "openai-embeddings.jsonl" => Usage {
            input: count("/prompt_tokens").max(count("/total_tokens")),
            ..Usage::default()
        },
        _ => Usage {
            input: count("/input_tokens"),
            cache_read: count("/cache_read_input_tokens"),
            cache_write_5m: count("/cache_creation_input_tokens"),
            output: count("/output_tokens"),
            ..Usage::default()
        },
    })
}

/// Reads a reply again in pieces and compressed; how many times.
fn again(dialect: &'static dyn Dialect, sse: bool, body: &[u8], whole: &ReplyFacts, id: &str) -> usize {
    let mut readings = 0;
    for pieces in cuts(body) {
        let (out, facts) = read(dialect, sse, false, &pieces);
        assert!(out == body && facts == *whole, "{id} in {} pieces", pieces.len());
        readings += 1;
    }
    let media = if sse {
        "text/event-stream"
    } else {
        "application/json"
    };
    readings + again_packed(dialect, media, body, whole, id)
}

/// Reads a reply again in every coding; how many times.
pub(super) fn again_packed(
    dialect: &'static dyn Dialect,
    media: &'static str,
    body: &[u8],
    whole: &ReplyFacts,
    id: &str,
) -> usize {
    let mut readings = 0;
    for coding in CODINGS {
        let packed = pack(coding, body);
        for size in [1, 7, 4096] {
            let pieces: Vec<_> = packed.chunks(size).collect();
            let (out, facts) = read_packed(dialect, media, coding, &pieces);
            assert_eq!(out, packed, "{id} {coding}");
            assert_eq!(facts, *whole, "{id} {coding} in pieces of {size}");
            readings += 1;
        }
    }
    readings
}

#[test]
fn recorded_replies_of_the_other_formats_are_metered_exactly() {
    const FILES: [&str; 6] = [
        "openai-completions.jsonl",
        "openai-responses.jsonl",
        "gemini.jsonl",
        "bedrock.jsonl",
        "cohere.jsonl",
        "openai-embeddings.jsonl",
    ];
    let Some(records) = lines("GUARD_RECORDED_DIR", |name| FILES.contains(&name)) else {
        return;
    };
    let providers = builtin();
    let (mut known, mut unknown, mut readings) = (0, 0, 0);
    for (file, record) in &records {
        let id = record["id"].as_str().unwrap();
        let path = record["path"].as_str().unwrap().split('?').next().unwrap();
        let provider = by_host(&providers, record["host"].as_str().unwrap());
        let Some(provider) = provider else {
            eprintln!("{id}: {} is no provider's", record["host"]);
            continue;
        };
        let endpoint = detect::endpoint(provider, &Method::POST, path);
        if endpoint.kind != EndpointKind::Inference {
            eprintln!("{id}: {path} is {:?}, and refused as that", endpoint.kind);
            assert!(
                matches!(endpoint.kind, EndpointKind::Other | EndpointKind::Unpriced),
                "{id}"
            );
            continue;
        }
        let dialect = endpoint.dialect;
        let request = record["request_body"].as_str().unwrap_or_default();
        if !request.is_empty() {
            let facts = dialect.request_at(&endpoint.place, request.as_bytes());
            match facts {
                Ok(facts) => assert!(!facts.model.is_empty(), "{id}"),
                Err(error) => {
                    let refused = error.to_string();
                    assert!(refused.contains("use Converse"), "{id}: {refused}: {request}");
                    eprintln!("{id}: {path} is refused: {refused}");
                    continue;
                }
            }
        }
        let body = record["response_body"].as_str().unwrap();
        let sse = record["stream"].as_bool().unwrap();
        let (out, whole) = read(dialect, sse, false, &[body.as_bytes()]);
        assert_eq!(out, body.as_bytes(), "{id}");
        let wanted = expected(file, &record["expected"]["native_usage_on_wire"]);
        assert_eq!(whole.usage.map(tokens), wanted, "{id}");
        if record["status"] == 200 {
            assert!(
                whole.complete && !whole.error && whole.finish.is_some(),
                "{id}: {whole:?}"
            );
        } else {
            assert!(whole.error && whole.usage.is_none(), "{id}: {whole:?}");
        }
        let other = &record["expected"]["genai_prices"]["usage"];
        if let (Some(usage), Some(input)) = (whole.usage, other["input_tokens"].as_u64()) {
            assert_eq!(
                (usage.total_input(), usage.total_output()),
                (input, other["output_tokens"].as_u64().unwrap()),
                "{id}"
            );
        }
        readings += again(dialect, sse, body.as_bytes(), &whole, id);
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
