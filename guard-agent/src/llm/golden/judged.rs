//! Denied calls in streams that are not quite as the format has them: where Guard reads a call, it also takes it out.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::formats::{BINARY, binary};
use super::read_gated;
use crate::fuzz::replies::Rules;
use crate::llm::DialectKind::{self, BedrockConverse, Cohere, Gemini, Ollama, OpenaiResponses};
use crate::llm::provider::dialect_of;
use crate::llm::{Gate, InReply};

const SSE: &str = "text/event-stream";
const LINES: &str = "application/x-ndjson";

/// What passes of a stream under the rules, whatever the pieces; the tools that were denied.
fn passed(kind: DialectKind, media: &'static str, stream: &[u8]) -> (String, Vec<String>) {
    let gate: Arc<dyn Gate> = Arc::new(Rules::new(InReply::Strip));
    let headers: HeaderMap = [(CONTENT_TYPE, HeaderValue::from_static(media))]
        .into_iter()
        .collect();
    let read = |pieces: &[&[u8]]| read_gated(dialect_of(kind), &headers, false, Some(&gate), pieces);
    let whole = read(&[stream]);
    for at in 0..stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(read(&[head, tail]), whole, "{kind:?} at {at}");
    }
    (
        String::from_utf8_lossy(&whole.0).into_owned(),
        whole.1.tools_denied,
    )
}

#[test]
fn a_denied_call_behind_one_that_has_passed_does_not_pass() {
    let chunk = |name: &str| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"functionCall\":{{\"name\":\"{name}\",\"args\":{{}}}}}}]}}}}]}}\n\n"
        )
    };
    let line = |name: &str| {
        format!(
            "{{\"message\":{{\"tool_calls\":[{{\"function\":{{\"name\":\"{name}\",\"arguments\":{{}}}}}}]}}}}\n"
        )
    };
    for names in [
        ["Read", "Evil", "Read"],
        ["Bash", "Evil", "Read"],
        ["Evil", "Read", "Evil"],
    ] {
        for (kind, media, stream) in [
            (Gemini, SSE, names.map(chunk).concat()),
            (Ollama, LINES, names.map(line).concat()),
        ] {
            let (out, denied) = passed(kind, media, stream.as_bytes());
            assert!(!out.contains("Evil"), "{kind:?} {names:?}: {out}");
            assert_eq!(denied, ["Evil"]);
            let kept = names.iter().filter(|name| **name != "Evil").count();
            assert_eq!(out.matches("\"name\"").count(), kept, "{kind:?} {names:?}: {out}");
        }
    }
}

#[test]
fn arguments_that_gemini_sends_in_pieces_share_the_fate_of_their_call() {
    let parts = |name: &str| {
        [
            format!(r#"{{"functionCall":{{"name":"{name}","willContinue":true}}}}"#),
            r#"{"functionCall":{"partialArgs":[{"jsonPath":"$.command","stringValue":"DEN"}],"willContinue":true}}"#.to_owned(),
            r#"{"functionCall":{"partialArgs":[{"jsonPath":"$.command","stringValue":"DENIED"}],"willContinue":true}}"#.to_owned(),
            r#"{"functionCall":{}}"#.to_owned(),
            r#"{"functionCall":{"name":"Read","args":{"path":"/x"}}}"#.to_owned(),
        ]
        .map(|part| format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{part}]}}}}]}}\n\n"))
        .concat()
    };
    for name in ["Evil", "Bash"] {
        let (out, denied) = passed(Gemini, SSE, parts(name).as_bytes());
        assert!(
            !out.contains(name) && !out.contains("DEN") && !out.contains("willContinue"),
            "{out}"
        );
        assert_eq!(
            (out.matches("functionCall").count(), denied),
            (1, vec![name.to_owned()]),
            "{out}"
        );
    }
    let (out, denied) = passed(Gemini, SSE, parts("Read").as_bytes());
    assert_eq!((out, denied), (parts("Read"), Vec::new()));
    // A part without a name that goes on from nothing is a call of its own, and of no allowed name.
    let (out, _) = passed(
        Gemini,
        SSE,
        parts("Read").replace(r#","willContinue":true"#, "").as_bytes(),
    );
    assert!(!out.contains("DEN"), "{out}");
}

#[test]
fn a_denied_call_whose_place_or_kind_is_not_told_does_not_pass() {
    let converse = binary(
        b"messageStart {\"role\":\"assistant\"}\ncontentBlockStart {\"start\":{\"toolUse\":{\"toolUseId\":\"t\",\"name\":\"Evil\"}}}\ncontentBlockDelta {\"delta\":{\"toolUse\":{\"input\":\"Evil\"}}}",
    );
    let cohere = "data: {\"type\":\"tool-call-starting\",\"index\":0,\"delta\":{\"message\":{\"tool_calls\":{\"id\":\"t\",\"function\":{\"name\":\"Evil\",\"arguments\":\"\"}}}}}\n\n";
    let responses = "data: {\"type\":\"response.output_item.added\",\"item\":{\"type\":\"function_call\",\"name\":\"Evil\",\"arguments\":\"\"}}\n\ndata: {\"type\":\"response.function_call_arguments.delta\",\"delta\":\"Evil\"}\n\n";
    let messages = "data: {\"type\":\"content_block starts\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"Evil\",\"input\":{}}}\n\ndata: {\"type\":\"more\",\"index\":0,\"delta\":{\"partial_json\":\"Evil\"}}\n\n";
    for (kind, media, stream) in [
        (DialectKind::AnthropicMessages, SSE, messages.as_bytes()),
        (BedrockConverse, BINARY, converse.as_slice()),
        (Cohere, SSE, cohere.as_bytes()),
        (OpenaiResponses, SSE, responses.as_bytes()),
    ] {
        let (out, denied) = passed(kind, media, stream);
        assert!(!out.contains("Evil"), "{kind:?}: {out}");
        assert_eq!(denied, ["Evil"], "{kind:?}");
    }
}

#[test]
fn a_denied_call_in_an_event_that_only_some_readers_can_read_does_not_pass() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let chat = |x: &[u8]| {
        let head = br#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"Evil","arguments":""}}]}}],"x":"#;
        [head.as_slice(), x, b"}\n\ndata: [DONE]\n\n"].concat()
    };
    let line = format!(
        "{{\"message\":{{\"tool_calls\":[{{\"function\":{{\"name\":\"Evil\",\"arguments\":{{\"x\":{deep}}}}}}}]}}}}\n"
    );
    for (kind, media, stream) in [
        (DialectKind::OpenaiChat, SSE, chat(deep.as_bytes())),
        (DialectKind::OpenaiChat, SSE, chat(b"\"\xff\"")),
        (Gemini, SSE, format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"functionCall\":{{\"name\":\"Evil\",\"args\":{{\"x\":{deep}}}}}}}]}}}}]}}\n\n").into_bytes()),
        (Ollama, LINES, line.into_bytes()),
    ] {
        let (out, denied) = passed(kind, media, &stream);
        assert!(!out.contains("Evil"), "{kind:?}: {out}");
        assert_eq!(denied, ["Evil"], "{kind:?}");
    }
}

#[test]
fn white_space_before_a_reply_of_no_known_kind_passes_in_one_way_only() {
    let chat =
        br#"  {"choices":[{"message":{"tool_calls":[{"function":{"name":"Evil","arguments":"{}"}}]}}]}"#;
    let (out, _) = passed(DialectKind::OpenaiChat, "", chat);
    assert!(!out.contains("Evil"), "{out}");
}

#[test]
fn a_denied_call_in_a_whole_reply_of_another_type_does_not_pass() {
    const JSON: &str = "application/json";
    let message = |kind: &str| {
        let block = |name: &str| format!(r#"{{"type":"tool_use","id":"t","name":"{name}","input":{{}}}}"#);
        format!(
            r#"{{"type":"{kind}","index":0,"content":[{},{}]}}"#,
            block("Read"),
            block("Evil")
        )
    };
    let items = r#""output":[{"type":"function_call","name":"Evil","arguments":"{}"}]"#;
    let cohere = |kind: &str| {
        format!(
            r#"{{"type":"{kind}","message":{{"tool_calls":[{{"id":"t","function":{{"name":"Evil","arguments":"{{}}"}}}}]}}}}"#
        )
    };
    let replies = [
        (DialectKind::AnthropicMessages, message("message2")),
        (DialectKind::AnthropicMessages, message("content_block_start")),
        (DialectKind::AnthropicMessages, message("message_delta")),
        (DialectKind::BedrockInvoke, message("content_block_stop")),
        (OpenaiResponses, format!("{{{items}}}")),
        (OpenaiResponses, format!(r#"{{"object":"response2",{items}}}"#)),
        (OpenaiResponses, format!(r#"{{"response":{{}},{items}}}"#)),
        (Cohere, cohere("message-end")),
        (Cohere, cohere("tool-call-end")),
    ];
    for (kind, reply) in replies {
        let (out, denied) = passed(kind, JSON, reply.as_bytes());
        assert!(!out.contains("Evil"), "{kind:?} {reply}: {out}");
        assert_eq!(denied, ["Evil"], "{kind:?} {reply}");
    }
}
