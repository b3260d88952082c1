//! Golden tests of the formats whose path says something about the call, whose streams are not text, or that have no
//! streams: the same as in `golden`, with the path that each takes. `NAME.reply.events` is a binary stream: an event a
//! line, `EVENT JSON`; `EVENT*JSON` wraps the payload in `bytes`; `!NAME JSON` is an exception.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{fixtures, read_media, snapshot};
use crate::llm::DialectKind::{
    self, AnthropicVertex, BedrockConverse, BedrockInvoke, Cohere, Embeddings, Gemini, Ollama,
    OpenaiCompletions, OpenaiResponses,
};
use crate::llm::conversation::Sign;
use crate::llm::provider::dialect_of;
use crate::llm::{Malformed, Place, RequestFacts, eventstream};

/// The formats, each with the path of its ordinary endpoint.
pub(super) const FORMATS: [(DialectKind, &str); 9] = [
    (OpenaiResponses, "/v1/responses"),
    (Gemini, "/models/gemini-2.5-flash:streamGenerateContent"),
    (
        BedrockConverse,
        "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream",
    ),
    (
        BedrockInvoke,
        "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke",
    ),
    (Cohere, "/v2/chat"),
    (Ollama, "/api/chat"),
    (Embeddings, "/v1/embeddings"),
    (OpenaiCompletions, "/v1/completions"),
    (AnthropicVertex, "/models/claude-sonnet-4-5@20250929:rawPredict"),
];

pub(super) fn place(tail: &str) -> Place {
    Place {
        region: None,
        model: None,
        tail: tail.to_owned(),
        content_type: None,
    }
}

pub(super) fn facts_at(kind: DialectKind, tail: &str, body: &[u8]) -> Result<RequestFacts, Malformed> {
    dialect_of(kind).request_at(&place(tail), body)
}

pub(super) fn facts(kind: DialectKind, body: &str) -> Result<RequestFacts, Malformed> {
    let (_, tail) = FORMATS.into_iter().find(|(one, _)| *one == kind).unwrap();
    facts_at(kind, tail, body.as_bytes())
}

/// The binary stream that a fixture describes.
pub(super) fn binary(lines: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for line in std::str::from_utf8(lines).unwrap().lines() {
        let (kind, header, line) = match line.strip_prefix('!') {
            Some(rest) => ("exception", ":exception-type", rest),
            None => ("event", ":event-type", line),
        };
        let (name, payload) = match line.split_once('*').filter(|(name, _)| !name.contains(' ')) {
            Some((name, inner)) => (name, format!("{{\"bytes\":\"{}\"}}", STANDARD.encode(inner))),
            None => {
                let (name, payload) = line.split_once(' ').unwrap();
                (name, payload.to_owned())
            }
        };
        let headers = [
            (header, name),
            (":content-type", "application/json"),
            (":message-type", kind),
        ];
        stream.extend(eventstream::encode(&headers, payload.as_bytes()));
    }
    stream
}

/// A reply of this media type on the wire, from its fixture.
pub(super) fn wire(media: &str, fixture: Vec<u8>) -> Vec<u8> {
    if media == BINARY {
        binary(&fixture)
    } else {
        fixture
    }
}

/// The media type of the binary framing.
pub(super) const BINARY: &str = "application/vnd.amazon.eventstream";

/// The endings of fixtures, each with its media type.
pub(super) const ENDINGS: [(&str, &str); 4] = [
    (".reply.json", "application/json"),
    (".reply.sse", "text/event-stream; charset=utf-8"),
    (".reply.ndjson", "application/x-ndjson"),
    (".reply.events", BINARY),
];

#[test]
fn request_facts_with_the_path() {
    for (kind, tail) in FORMATS {
        let all = fixtures(kind, ".request.json");
        assert!(!all.is_empty(), "{kind:?}");
        for (name, body) in all {
            let facts =
                facts_at(kind, tail, &body).unwrap_or_else(|error| panic!("{kind:?} {name}: {error}"));
            snapshot(kind, &format!("{name}.request"), &facts);
        }
    }
}

#[test]
fn reply_facts_of_every_kind_of_stream() {
    for (kind, _) in FORMATS {
        let mut count = 0;
        for (ending, media) in ENDINGS {
            for (name, fixture) in fixtures(kind, ending) {
                let body = wire(media, fixture);
                let (out, facts) = read_media(dialect_of(kind), media, &[&body]);
                assert_eq!(out, body, "{name}");
                snapshot(kind, &format!("{name}{ending}"), &facts);
                count += 1;
            }
        }
        assert!(count > 0, "{kind:?}");
    }
}

#[test]
fn every_kind_of_stream_is_seen_to_take_something_while_it_passes_and_no_more_than_it_does() {
    let mut unseen = Vec::new();
    for (kind, _) in FORMATS {
        for (ending, media) in &ENDINGS[1..] {
            for (name, fixture) in fixtures(kind, ending) {
                let body = wire(media, fixture);
                let (_, facts) = read_media(dialect_of(kind), media, &[&body]);
                let Some(usage) = facts.usage else { continue };
                let seen = super::seen(dialect_of(kind), media, &body);
                let (input, output) = (usage.total_input(), usage.total_output());
                assert!(
                    seen.input <= input && seen.output <= output,
                    "{name}{ending}: {seen:?}, told: {input} and {output}"
                );
                // All that this one says is what was hidden.
                if output > 0 && seen.output == 0 && name != "incomplete" {
                    unseen.push(format!("{kind:?} {name}{ending}"));
                }
            }
        }
    }
    assert!(unseen.is_empty(), "{unseen:#?}");
}

#[test]
fn a_binary_stream_that_ends_inside_a_message_leaves_usage_unknown() {
    let (_, lines) = fixtures(BedrockConverse, ".reply.events").pop().unwrap();
    let body = binary(&lines);
    let (_, facts) = read_media(dialect_of(BedrockConverse), BINARY, &[&body[..body.len() - 1]]);
    assert!(facts.usage.is_none() && !facts.complete, "{facts:?}");
}

/// A conversation in which the same tool was called twice and failed once, in each format.
const TURNS: &[(DialectKind, &str)] = &[
    (
        OpenaiResponses,
        r#"{"model":"m","input":[{"role":"user","content":"go"},{"type":"reasoning","summary":[]},
         {"type":"function_call","call_id":"1","name":"Read","arguments":"{\"p\": 1}"},{"type":"function_call_output","call_id":"1","output":"ok"},
         {"type":"function_call","call_id":"2","name":"Read","arguments":"{\"p\":1}"},{"type":"function_call_output","call_id":"2","output":"Error: no such file"}]}"#,
    ),
    (
        Gemini,
        r#"{"contents":[{"role":"user","parts":[{"text":"go"}]},{"role":"model","parts":[{"functionCall":{"name":"Read","args":{"p":1}}}]},
         {"role":"user","parts":[{"functionResponse":{"name":"Read","response":{"output":"ok"}}}]},
         {"role":"model","parts":[{"function_call":{"name":"Read","args":{"p": 1}}}]},
         {"role":"user","parts":[{"function_response":{"name":"Read","response":{"error":"Error: no such file"}}}]}]}"#,
    ),
    (
        BedrockConverse,
        r#"{"messages":[{"role":"user","content":[{"text":"go"}]},{"role":"assistant","content":[{"toolUse":{"toolUseId":"1","name":"Read","input":{"p":1}}}]},
         {"role":"user","content":[{"toolResult":{"toolUseId":"1","content":[{"text":"ok"}]}}]},
         {"role":"assistant","content":[{"toolUse":{"toolUseId":"2","name":"Read","input":{"p": 1}}}]},
         {"role":"user","content":[{"toolResult":{"toolUseId":"2","content":[{"text":"no"}],"status":"error"}}]}]}"#,
    ),
    (
        Cohere,
        r#"{"model":"m","messages":[{"role":"user","content":"go"},{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"Read","arguments":"{\"p\":1}"}}]},
         {"role":"tool","tool_call_id":"1","content":"ok"},{"role":"assistant","tool_calls":[{"id":"2","type":"function","function":{"name":"Read","arguments":"{\"p\": 1}"}}]},
         {"role":"tool","tool_call_id":"2","content":"Error: no such file"}]}"#,
    ),
    (
        Ollama,
        r#"{"model":"m","messages":[{"role":"user","content":"go"},{"role":"assistant","tool_calls":[{"function":{"name":"Read","arguments":{"p":1}}}]},
         {"role":"tool","tool_name":"Read","content":"ok"},{"role":"assistant","tool_calls":[{"function":{"name":"Read","arguments":{"p": 1}}}]},
         {"role":"tool","tool_name":"Read","content":"Error: no such file"}]}"#,
    ),
    (
        BedrockInvoke,
        r#"{"anthropic_version":"x","messages":[{"role":"user","content":"go"},{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"Read","input":{"p":1}}]},
         {"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"ok"}]},
         {"role":"assistant","content":[{"type":"tool_use","id":"2","name":"Read","input":{"p": 1}}]},
         {"role":"user","content":[{"type":"tool_result","tool_use_id":"2","content":"no","is_error":true}]}]}"#,
    ),
];

#[test]
fn the_turns_of_a_conversation_are_told_alike_in_every_format() {
    for (kind, body) in TURNS {
        let told = facts(*kind, body).unwrap().conversation;
        assert_eq!(
            (told.turns, told.steps.len(), told.partial),
            (2, 2, false),
            "{kind:?} {told:?}"
        );
        let (first, second) = (&told.steps[0], &told.steps[1]);
        assert!(
            first.repeats(second) && &*first.tool == "Read",
            "{kind:?} {told:?}"
        );
        assert!(
            first.result.is_some() && second.result.is_some(),
            "{kind:?} {told:?}"
        );
        assert!(
            first.sign == Sign::Fine && second.sign != Sign::Fine,
            "{kind:?} {told:?}"
        );
        assert!(told.thread.is_some(), "{kind:?}");
    }
    let stored = facts(
        OpenaiResponses,
        r#"{"model":"m","input":"x","previous_response_id":"r"}"#,
    );
    assert!(stored.unwrap().conversation.partial);
}

#[test]
fn nested_parts_are_bounded() {
    let open = r#"{"functionResponse":{"parts":["#.repeat(40);
    let body = format!(r#"{{"contents":[{{"parts":[{open}{}]}}]}}"#, "]}}".repeat(40));
    assert!(facts(Gemini, &body).is_err());
    let open = r#"{"type":"namespace","name":"n","tools":["#.repeat(40);
    let body = format!(r#"{{"model":"m","tools":[{open}{}]}}"#, "]}".repeat(40));
    assert!(facts(OpenaiResponses, &body).is_err());
    let open = r#"{"toolResult":{"content":["#.repeat(40);
    let body = format!(r#"{{"messages":[{{"content":[{open}{}]}}]}}"#, "]}}".repeat(40));
    assert!(facts(BedrockConverse, &body).is_err());
}
