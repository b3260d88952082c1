use bytes::Bytes;
use proptest::prelude::*;

use super::{fixtures, read};
use crate::llm::provider::dialect_of;
use crate::llm::{BodyEdits, DialectKind, Usage};

/// A stream with the usage event that the client did not ask for, in every place of it that matters.
const STREAM: &str = concat!(
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n",
    ": comment\n\n",
    "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"total_tokens\":12}}\n\n",
    "data: [DONE]\n\n",
);

fn with_endings(ending: &str) -> (String, String) {
    let text = STREAM.replace('\n', ending);
    let at = text.find("data: {\"choices\":[],\"usage\"").unwrap();
    let end = text.find("data: [DONE]").unwrap();
    let visible = format!("{}{}", &text[..at], &text[end..]);
    (text, visible)
}

fn pieces<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

#[test]
fn the_hidden_event_is_hidden_wherever_the_stream_is_cut() {
    for ending in ["\n", "\r\n", "\r"] {
        let (text, visible) = with_endings(ending);
        for at in 0..=text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            let (out, facts) = read(dialect_of(DialectKind::OpenaiChat), true, true, &[head, tail]);
            assert_eq!(String::from_utf8(out).unwrap(), visible, "{ending:?} at {at}");
            let usage = Usage {
                input: 7,
                output: 5,
                ..Usage::default()
            };
            assert_eq!(facts.usage, Some(usage));
            assert!(facts.complete);
        }
        let (out, _) = read(
            dialect_of(DialectKind::OpenaiChat),
            true,
            false,
            &[text.as_bytes()],
        );
        assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn a_usage_event_at_the_very_end_is_hidden_too() {
    let event = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}";
    for ending in ["", "\n", "\n\n"] {
        let text = format!("data: {{\"choices\":[]}}\n\n{event}{ending}");
        let (out, facts) = read(
            dialect_of(DialectKind::OpenaiChat),
            true,
            true,
            &[text.as_bytes()],
        );
        assert_eq!(out, b"data: {\"choices\":[]}\n\n");
        assert!(facts.usage.is_some() && !facts.complete);
    }
}

#[test]
fn an_event_too_large_to_hold_back_passes_at_once() {
    let big = format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":5}},\"pad\":\"{}\"}}\n\n",
        "x".repeat(70_000)
    );
    for size in [1000, 65_536, 65_537, big.len()] {
        let chunks: Vec<&[u8]> = big.as_bytes().chunks(size).collect();
        let (out, facts) = read(dialect_of(DialectKind::OpenaiChat), true, true, &chunks);
        assert!(out == big.as_bytes(), "{size}");
        assert!(facts.usage.is_some());
    }
}

#[test]
fn an_oversize_event_passes_and_leaves_usage_unknown() {
    let mut body = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}\n\ndata: {\"type\":\"x\",\"pad\":\"".to_vec();
    body.resize(body.len() + crate::llm::sse::EVENT_LIMIT, b'x');
    body.extend_from_slice(b"\"}\n\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":5}}\n\ndata: {\"type\":\"message_stop\"}\n\n");
    let chunks: Vec<&[u8]> = body.chunks(16_384).collect();
    let (out, facts) = read(dialect_of(DialectKind::AnthropicMessages), true, false, &chunks);
    assert!(out == body && facts.usage.is_none() && facts.complete);
}

#[test]
fn a_json_reply_beyond_the_limit_passes_and_is_unknown() {
    let mut body =
        b"{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5},\"pad\":\"".to_vec();
    body.resize(body.len() + 16 * 1024 * 1024, b'x');
    body.extend_from_slice(b"\"}");
    let chunks: Vec<&[u8]> = body.chunks(100_000).collect();
    let (out, facts) = read(dialect_of(DialectKind::OpenaiChat), false, false, &chunks);
    assert!(out == body && facts.usage.is_none() && !facts.complete);
}

proptest! {
    #[test]
    fn cutting_a_stream_changes_neither_bytes_nor_facts(
        pick in any::<prop::sample::Index>(),
        kind in prop::sample::select(super::KINDS.to_vec()),
        hide in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        crlf in any::<bool>(),
    ) {
        let mut all = fixtures(kind, ".reply.sse");
        let (_, mut body) = all.swap_remove(pick.index(all.len()));
        if crlf {
            body = String::from_utf8(body).unwrap().replace('\n', "\r\n").into_bytes();
        }
        let whole = read(dialect_of(kind), true, hide, &[&body]);
        prop_assert_eq!(read(dialect_of(kind), true, hide, &pieces(&body, &cuts)), whole.clone());
        if !hide {
            prop_assert_eq!(whole.0, body);
        }
    }

    #[test]
    fn arbitrary_bytes_pass_unchanged(
        body in prop::collection::vec(prop::sample::select(b"data: {}\r\n\"[]x\xff\xef\xbb\xbf:".to_vec()), 0..200),
        kind in prop::sample::select(super::KINDS.to_vec()),
        sse in any::<bool>(),
        hide in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (out, facts) = read(dialect_of(kind), sse, hide, &pieces(&body, &cuts));
        prop_assert_eq!(out, body);
        prop_assert_eq!(facts.usage, None);
    }

    #[test]
    fn a_rewrite_gives_what_was_asked_and_keeps_the_rest(
        cap in prop::option::of(1_u64..100_000),
        strip in prop::collection::vec(prop::sample::select(vec!["Read", "Edit", "look", "exec", "untyped", "legacy", "bash_20250124"]), 0..6),
        include_usage in any::<bool>(),
        kind in prop::sample::select(super::KINDS.to_vec()),
    ) {
        let dialect = dialect_of(kind);
        let (_, body) = fixtures(kind, ".request.json").into_iter().find(|(name, _)| name == "everything").unwrap();
        let before = dialect.request(&body).unwrap();
        let cap = cap.map(|cap| cap.max(before.thinking_budget.unwrap_or(0)));
        let edits = BodyEdits {
            output_cap: cap,
            include_usage,
            strip_tools: strip.iter().map(|name| (*name).to_owned()).collect(),
            ..BodyEdits::default()
        };
        let body = Bytes::from(body);
        let out = dialect.rewrite(&body, &edits).unwrap();
        let after = dialect.request(&out).unwrap();
        let mut wanted = before.clone();
        wanted.output_cap = cap.or(before.output_cap);
        wanted.tools.retain(|tool| !strip.contains(&tool.name.as_str()));
        prop_assert_eq!(after, wanted);
        // Every member that no edit names stands in the new text as it stood in the old one.
        let untouched = |text: &Bytes| {
            let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(text).unwrap();
            let edited = ["max_tokens", "max_completion_tokens", "tools", "functions", "tool_choice", "stream_options"];
            value.into_iter().filter(|(name, _)| !edited.contains(&name.as_str())).collect::<Vec<_>>()
        };
        prop_assert_eq!(untouched(&out), untouched(&body));
        let (old, new) = (std::str::from_utf8(&body).unwrap(), std::str::from_utf8(&out).unwrap());
        let start = old.find("\"messages\"").unwrap();
        let end = old.find("  \"tools\"").unwrap();
        prop_assert!(new.contains(old[start..end].trim_end().trim_end_matches(',')));
        if cap.is_none() && strip.is_empty() {
            prop_assert_eq!(new, old);
        }
    }
}
