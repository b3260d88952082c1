//! Tool calls in replies: what is denied never passes, whatever the stream's cuts, and what is left is a sound reply.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

use super::{media, read_gated};
use crate::fuzz::replies::Rules;
use crate::llm::provider::dialect_of;
use crate::llm::{DialectKind, Gate, InReply, ReplyFacts};

const CHAT: DialectKind = DialectKind::OpenaiChat;
const MESSAGES: DialectKind = DialectKind::AnthropicMessages;

fn gated(kind: DialectKind, sse: bool, how: InReply, pieces: &[&[u8]]) -> (String, ReplyFacts) {
    let gate: Arc<dyn Gate> = Arc::new(Rules::new(how));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media(sse)));
    let (out, facts) = read_gated(dialect_of(kind), &headers, false, Some(&gate), pieces);
    (String::from_utf8(out).unwrap(), facts)
}

/// A stream of chat chunks with these deltas and ends.
fn chat(chunks: &[&str]) -> String {
    let event = |choice: &&str| format!("data: {{\"id\":\"c\",\"choices\":[{choice}]}}\n\n");
    chunks
        .iter()
        .map(event)
        .chain(["data: [DONE]\n\n".to_owned()])
        .collect()
}

fn call(choice: u64, index: u64, name: Option<&str>, arguments: &str) -> String {
    let name = name.map_or(String::new(), |name| format!("\"name\":\"{name}\","));
    let arguments = Value::from(arguments);
    format!(
        "{{\"index\":{choice},\"delta\":{{\"tool_calls\":[{{\"index\":{index},\"id\":\"x\",\"function\":{{{name}\"arguments\":{arguments}}}}}]}}}}"
    )
}

fn end(choice: u64, reason: &str) -> String {
    format!("{{\"index\":{choice},\"delta\":{{}},\"finish_reason\":\"{reason}\"}}")
}

fn block(index: u64, name: &str, input: &[&str]) -> String {
    let event = |kind: &str, rest: String| {
        format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"index\":{index}{rest}}}\n\n")
    };
    let mut out = event(
        "content_block_start",
        format!(
            ",\"content_block\":{{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"{name}\",\"input\":{{}}}}"
        ),
    );
    for piece in input {
        let piece = Value::from(*piece);
        let delta = format!(",\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":{piece}}}");
        out += &event("content_block_delta", delta);
    }
    out + &event("content_block_stop", String::new())
}

fn messages(blocks: &[String]) -> String {
    let mut out = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n".to_owned();
    out.extend(blocks.iter().map(String::as_str));
    out + "event: ping\ndata: {\"type\":\"ping\"}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":9}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
}

/// Streams of both formats: what is denied in them is marked `DENIED` or called `Evil` (or `Ev` + `il`).
fn streams() -> Vec<(DialectKind, String)> {
    let text = "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hi\"}}";
    let several = [
        call(0, 0, Some("Read"), "{\"p\":1}"),
        call(0, 1, Some("Evil"), ""),
        call(0, 1, None, "{\"x\":2}"),
        call(1, 0, Some("Bash"), ""),
        call(0, 2, Some("Bash"), "{\"c\":\"DEN"),
        call(1, 0, None, "{\"c\":\"ls\"}"),
        call(0, 2, None, "IED\"}"),
        call(0, 3, Some("Read"), "{\"p\":4}"),
        end(1, "tool_calls"),
        end(0, "tool_calls"),
    ];
    let several: Vec<&str> = std::iter::once(text)
        .chain(several.iter().map(String::as_str))
        .collect();
    let alone = [
        call(0, 0, Some("Bash"), "{\"c\":\"DENIED\"}"),
        end(0, "tool_calls"),
    ];
    let alone: Vec<&str> = std::iter::once(text)
        .chain(alone.iter().map(String::as_str))
        .collect();
    vec![
        (CHAT, chat(&several)),
        (CHAT, chat(&alone)),
        (
            CHAT,
            chat(&[
                "{\"index\":0,\"delta\":{\"function_call\":{\"name\":\"Evil\",\"arguments\":\"\"}}}",
                "{\"index\":0,\"delta\":{\"function_call\":{\"arguments\":\"{}\"}}}",
                &end(0, "function_call"),
            ]),
        ),
        (
            MESSAGES,
            messages(&[
                block(0, "Read", &["{\"p\":", "1}"]),
                block(1, "Evil", &["{\"x\":2}"]),
                block(2, "Bash", &["{\"c\":\"DEN", "IED\"}"]),
                block(3, "Bash", &["{\"c\":\"ls\"}"]),
            ]),
        ),
        (
            MESSAGES,
            messages(&[block(0, "Evil", &[]), block(1, "Bash", &["{\"c\":\"DENIED\"}"])]),
        ),
    ]
}

const HOW: [InReply; 3] = [InReply::Replace, InReply::Strip, InReply::Refuse];

#[test]
fn no_byte_of_a_denied_call_passes_wherever_the_stream_is_cut() {
    for (kind, stream) in streams() {
        for ending in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', ending);
            for how in HOW {
                let (whole, facts) = gated(kind, true, how, &[stream.as_bytes()]);
                for at in 0..=stream.len() {
                    let (head, tail) = stream.as_bytes().split_at(at);
                    let cut = gated(kind, true, how, &[head, tail]);
                    assert_eq!(cut, (whole.clone(), facts.clone()), "{how:?} at {at}");
                }
                for forbidden in ["Evil", "DEN", "IED", "\\\"x\\\":2"] {
                    assert!(!whole.contains(forbidden), "{how:?} {forbidden} in {whole}");
                }
                assert!(!facts.tools_denied.is_empty(), "{stream}");
                assert_eq!(facts.usage.is_some(), kind == MESSAGES);
            }
        }
    }
}

#[test]
fn what_is_left_is_a_sound_reply() {
    for (number, (kind, stream)) in streams().into_iter().enumerate() {
        for how in HOW {
            let (out, _) = gated(kind, true, how, &[stream.as_bytes()]);
            let name = format!("gated_{number}_{how:?}").to_lowercase();
            insta::with_settings!({
                snapshot_path => format!("{}/gated", kind.label()),
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                insta::assert_snapshot!(name, out);
            });
        }
    }
}

#[test]
fn what_may_pass_passes_byte_for_byte() {
    let chat = chat(&[
        &call(0, 0, Some("Read"), "{\"p\":1}"),
        &call(0, 1, Some("Bash"), "{\"c\":"),
        &call(0, 1, None, "\"ls\"}"),
        &end(0, "tool_calls"),
    ]);
    let messages = messages(&[block(0, "Bash", &["{\"c\":\"ls\"}"]), block(1, "Read", &["{}"])]);
    for (kind, stream) in [(CHAT, chat), (MESSAGES, messages)] {
        for at in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(at);
            let (out, facts) = gated(kind, true, InReply::Replace, &[head, tail]);
            assert_eq!(out, stream);
            assert!(facts.tools_denied.is_empty() && facts.complete);
            assert_eq!(facts.tools_called.len(), 2);
        }
    }
}

#[test]
fn a_whole_reply_is_judged_before_its_first_byte_passes() {
    let chat = "{\"choices\":[{\"index\":0,\"message\":{\"content\":null,\"tool_calls\":[\
        {\"id\":\"a\",\"function\":{\"name\":\"Evil\",\"arguments\":\"{}\"}},\
        {\"id\":\"b\",\"function\":{\"name\":\"Read\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"},\
        {\"index\":1,\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"Bash\",\"arguments\":\"DENIED\"}}]},\
        \"finish_reason\":\"tool_calls\"}]}";
    let message = "{\"type\":\"message\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},\
        {\"type\":\"tool_use\",\"name\":\"Bash\",\"input\":{\"c\":\"DENIED\"}}],\"stop_reason\":\"tool_use\"}";
    let read = |kind, body: &str, how| {
        let (head, tail) = body.as_bytes().split_at(body.len() / 2);
        let (out, facts) = gated(kind, false, how, &[head, tail]);
        assert!(!out.contains("Evil") && !out.contains("DENIED"), "{out}");
        assert!(!facts.tools_denied.is_empty());
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let out = read(CHAT, chat, InReply::Replace);
    assert_eq!(out["choices"][0]["message"]["content"], "\nNOTE");
    assert_eq!(
        out["choices"][0]["message"]["tool_calls"][0]["function"]["name"],
        "Read"
    );
    assert_eq!(out["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(out["choices"][1]["finish_reason"], "stop");
    let out = read(MESSAGES, message, InReply::Replace);
    assert_eq!(out["content"][1]["text"], "NOTE");
    assert_eq!(out["stop_reason"], "end_turn");
    let out = read(MESSAGES, message, InReply::Strip);
    assert_eq!(out["content"].as_array().unwrap().len(), 1);
    for (kind, body) in [(CHAT, chat), (MESSAGES, message)] {
        let out = read(kind, body, InReply::Refuse);
        assert!(
            out["error"]["message"].as_str().unwrap().contains("NOTE"),
            "{out}"
        );
    }
}

#[test]
fn a_name_that_grows_into_a_denied_one_ends_the_reply() {
    let stream = chat(&[
        &call(0, 0, Some("Read"), ""),
        &call(0, 0, Some("Everything"), "{}"),
        &end(0, "tool_calls"),
    ]);
    let (out, facts) = gated(CHAT, true, InReply::Replace, &[stream.as_bytes()]);
    assert!(
        !out.contains("Everything") && out.contains("NOTE") && out.ends_with("[DONE]\n\n"),
        "{out}"
    );
    assert!(!facts.tools_denied.is_empty());
}

#[test]
fn what_cannot_be_read_does_not_pass_a_gate() {
    for (kind, ending) in [(CHAT, "data: [DONE]\n\n"), (MESSAGES, "\n\n")] {
        let (out, _) = gated(
            kind,
            true,
            InReply::Replace,
            &[b"data: {\"choices\": broken Evil}\n\ndata: {\"more\":1}\n\n"],
        );
        assert!(!out.contains("Evil") && !out.contains("more"), "{out}");
        assert!(out.contains("NOTE") && out.ends_with(ending), "{out}");
        let (out, _) = gated(kind, false, InReply::Replace, &[b"{\"choices\": broken Evil}"]);
        assert!(!out.contains("Evil") && out.contains("NOTE"));
    }
}

#[test]
fn a_call_that_never_ends_does_not_pass() {
    let stream = chat(&[&call(0, 0, Some("Bash"), "{\"c\":\"DENIED")]).replace("data: [DONE]\n\n", "");
    let (out, facts) = gated(CHAT, true, InReply::Replace, &[stream.as_bytes()]);
    assert!(!out.contains("Bash") && out.contains("NOTE"), "{out}");
    assert_eq!(facts.tools_denied, ["Bash"]);
    let unnamed = chat(&[&call(0, 0, None, "{\"c\":1}")]);
    let (out, _) = gated(CHAT, true, InReply::Replace, &[unnamed.as_bytes()]);
    assert!(!out.contains("arguments"), "{out}");
}

#[test]
fn arguments_too_large_to_hold_back_are_denied() {
    let piece = "x".repeat(100_000);
    let mut chunks = vec![call(0, 0, Some("Bash"), "{\"c\":\"")];
    chunks.extend((0..60).map(|_| call(0, 0, None, &piece)));
    chunks.push(call(0, 0, None, "\"}"));
    chunks.push(end(0, "tool_calls"));
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let (out, facts) = gated(CHAT, true, InReply::Replace, &[chat(&chunks).as_bytes()]);
    assert!(!out.contains("xxx") && out.contains("NOTE"), "{}", out.len());
    assert_eq!(facts.tools_denied, ["Bash"]);
}

proptest! {
    #[test]
    fn cutting_a_gated_stream_anywhere_changes_nothing(
        pick in 0..5_usize, how in 0..3_usize, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (kind, stream) = streams().swap_remove(pick);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &stream.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(gated(kind, true, HOW[how], &pieces), gated(kind, true, HOW[how], &[stream.as_bytes()]));
    }
}
