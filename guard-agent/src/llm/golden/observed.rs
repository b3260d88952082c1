//! Replies as providers were seen to send them, where their references say something else or nothing.

use super::formats::{BINARY, binary, facts};
use super::{media, read_media};
use crate::llm::DialectKind::{
    self, AnthropicMessages, BedrockConverse, Cohere, Gemini, OpenaiChat, OpenaiCompletions, OpenaiResponses,
};
use crate::llm::provider::dialect_of;
use crate::llm::{ReplyFacts, Unit, Usage};
use crate::money::Pico;

mod google;

/// What a reply turns out to hold, wherever it is cut.
fn learnt(kind: DialectKind, media: &'static str, body: &[u8]) -> ReplyFacts {
    let whole = read_media(dialect_of(kind), media, &[body]);
    assert_eq!(whole.0, body, "{kind:?}");
    for at in 0..body.len() {
        let (head, tail) = body.split_at(at);
        assert_eq!(
            read_media(dialect_of(kind), media, &[head, tail]),
            whole,
            "{kind:?} at {at}"
        );
    }
    whole.1
}

#[test]
fn a_count_under_both_of_its_names_is_one_count() {
    const USAGE: &str = r#""usage":{"inputTokens":4,"outputTokens":9,"totalTokens":2714,"cacheReadInputTokenCount":700,"cacheReadInputTokens":700,"cacheWriteInputTokenCount":2001,"cacheWriteInputTokens":2001,"serverToolUsage":{}}"#;
    let plain = format!(
        r#"{{"output":{{"message":{{"role":"assistant","content":[{{"text":"hi"}}]}}}},"stopReason":"end_turn",{USAGE}}}"#
    );
    let lines = format!(
        "messageStart {{\"role\":\"assistant\"}}\nmessageStop {{\"stopReason\":\"end_turn\"}}\nmetadata {{{USAGE}}}"
    );
    let stream = binary(lines.as_bytes());
    for (media, body) in [(media(false), plain.as_bytes()), (BINARY, stream.as_slice())] {
        let facts = learnt(BedrockConverse, media, body);
        assert!(facts.complete && !facts.error, "{facts:?}");
        assert_eq!(facts.finish.as_deref(), Some("end_turn"));
        let wanted = Usage {
            input: 4,
            cache_read: 700,
            cache_write_5m: 2001,
            output: 9,
            ..Usage::default()
        };
        assert_eq!(facts.usage, Some(wanted));
    }
}

#[test]
fn a_binary_stream_is_known_by_its_first_byte_where_no_media_type_is_named() {
    let stream = binary(
        b"messageStart {\"role\":\"assistant\"}\nmessageStop {\"stopReason\":\"end_turn\"}\nmetadata {\"usage\":{\"inputTokens\":4,\"outputTokens\":9}}",
    );
    for media in ["", "application/octet-stream"] {
        let facts = learnt(BedrockConverse, media, &stream);
        let wanted = Usage {
            input: 4,
            output: 9,
            ..Usage::default()
        };
        assert_eq!((facts.usage, facts.complete), (Some(wanted), true), "{media}");
    }
}

#[test]
fn cached_tokens_that_cohere_does_not_bill_are_none_of_the_billed_ones() {
    for (usage, read, rest) in [
        // Two hundred tokens of a template are not billed, and all of them came from the cache.
        (
            r#"{"billed_units":{"input_tokens":12,"output_tokens":5},"tokens":{"input_tokens":212,"output_tokens":5},"cached_tokens":208}"#,
            8,
            4,
        ),
        (
            r#"{"billed_units":{"input_tokens":12,"output_tokens":5},"tokens":{"input_tokens":212,"output_tokens":5},"cached_tokens":190}"#,
            0,
            12,
        ),
        (
            r#"{"billed_units":{"input_tokens":12,"output_tokens":5},"tokens":{"input_tokens":212,"output_tokens":5},"cached_tokens":900}"#,
            12,
            0,
        ),
        (
            r#"{"billed_units":{"input_tokens":12,"output_tokens":5},"cached_tokens":7}"#,
            7,
            5,
        ),
    ] {
        let body = format!(
            "data: {{\"type\":\"message-end\",\"delta\":{{\"finish_reason\":\"COMPLETE\",\"usage\":{usage}}}}}\n\n"
        );
        let usage = learnt(Cohere, media(true), body.as_bytes()).usage.unwrap();
        assert_eq!(
            (usage.cache_read, usage.input, usage.output),
            (read, rest, 5),
            "{body}"
        );
    }
}

#[test]
fn a_cost_that_the_provider_states_is_taken_with_the_usage_beside_it() {
    const CHAT: &str = r#"{"model":"a/b","choices":[{"index":0,"delta":{},"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,"cost":0.0001125,"is_byok":false,"cost_details":{"upstream_inference_cost":null}}}"#;
    let stream = format!("data: {CHAT}\n\ndata: [DONE]\n\n");
    let cut = stream.replace("\"finish_reason\":\"stop\"", "\"finish_reason\":null");
    let cut = cut.replace("data: [DONE]\n\n", "");
    for (kind, sse, body, wanted) in [
        (OpenaiChat, false, CHAT, Some(112_500_000)),
        (OpenaiCompletions, false, CHAT, Some(112_500_000)),
        (OpenaiChat, true, stream.as_str(), Some(112_500_000)),
        // What a stream that was cut says is less than what was spent.
        (OpenaiChat, true, cut.as_str(), None),
        (
            OpenaiResponses,
            false,
            r#"{"object":"response","status":"completed","model":"a/b","output":[],"usage":{"input_tokens":2852,"output_tokens":11,"total_tokens":2863,"input_tokens_details":{"cached_tokens":1780,"cache_read_input_tokens":1780,"cache_creation_input_tokens":1069},"cost":{"currency":"USD","total_cost":0.00313}}}"#,
            Some(3_130_000_000),
        ),
        (
            OpenaiResponses,
            false,
            r#"{"object":"response","status":"completed","model":"a/b","output":[],"usage":{"input_tokens":1,"output_tokens":1,"cost":0}}"#,
            None,
        ),
    ] {
        let facts = learnt(kind, media(sse), body.as_bytes());
        assert_eq!(facts.reported_cost, wanted.map(Pico), "{body}");
        assert_eq!(facts.usage.is_some(), body != cut, "{body}");
        if body.contains("cache_creation") {
            let usage = facts.usage.unwrap();
            assert_eq!(
                (usage.input, usage.cache_read, usage.cache_write_5m),
                (3, 1780, 1069)
            );
        }
    }
}

#[test]
fn a_preset_stands_for_a_model_and_for_tools_of_the_providers() {
    let asked = facts(OpenaiResponses, r#"{"preset":"fast","input":"x"}"#).unwrap();
    assert_eq!(asked.model, "preset/fast");
    assert!(
        asked
            .tools
            .iter()
            .any(|tool| tool.name == "preset" && tool.server_side)
    );
    let both = facts(OpenaiResponses, r#"{"preset":"fast","model":"m","input":"x"}"#).unwrap();
    assert_eq!(both.model, "m");
    assert!(both.tools.iter().any(|tool| tool.name == "preset"));
}

#[test]
fn what_is_billed_by_number_is_counted_as_the_provider_bills_it() {
    const CHAT: &str = r#"{"model":"MODEL","choices":[{"index":0,"delta":{"content":"hi"},"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12EXTRA}}"#;
    let chat = |model: &str, extra: &str| CHAT.replace("MODEL", model).replace("EXTRA", extra);
    let responses = |output: &str, extra: &str| {
        format!(
            r#"{{"object":"response","status":"completed","model":"m","output":[{output}],"usage":{{"input_tokens":10,"output_tokens":2}}{extra}}}"#
        )
    };
    const IMAGE: &str = r#"{"type":"image_generation_call","id":"ig_1","status":"completed"}"#;
    const IMAGE_TOKENS: &str = r#","tool_usage":{"image_gen":{"input_tokens":50,"output_tokens":272}}"#;
    for (kind, body, unit, wanted) in [
        // These search before every answer, and say nothing of it.
        (
            OpenaiChat,
            chat("gpt-4o-mini-search-preview-2025-03-11", ""),
            Unit::WebSearch,
            1,
        ),
        (OpenaiChat, chat("gpt-5-search-api", ""), Unit::WebSearch, 1),
        (OpenaiChat, chat("sonar-pro", ""), Unit::WebSearch, 1),
        (
            OpenaiChat,
            chat("sonar-deep-research", r#","num_search_queries":18"#),
            Unit::WebSearch,
            18,
        ),
        (OpenaiChat, chat("gpt-4o", ""), Unit::WebSearch, 0),
        // In the first half of 2025 a search had no action.
        (
            OpenaiResponses,
            responses(
                r#"{"type":"web_search_call","id":"ws_1","status":"completed"}"#,
                "",
            ),
            Unit::WebSearch,
            1,
        ),
        (
            OpenaiResponses,
            responses(
                r#"{"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"open_page"}}"#,
                "",
            ),
            Unit::WebSearch,
            0,
        ),
        // Images whose tokens are told are billed by those.
        (OpenaiResponses, responses(IMAGE, ""), Unit::Image, 1),
        (OpenaiResponses, responses(IMAGE, IMAGE_TOKENS), Unit::Image, 0),
    ] {
        let usage = learnt(kind, media(false), body.as_bytes()).usage.unwrap();
        assert_eq!(usage.units.get(unit), wanted, "{body}");
        if kind == OpenaiChat {
            let stream = format!("data: {body}\n\ndata: [DONE]\n\n");
            let streamed = learnt(kind, media(true), stream.as_bytes()).usage;
            assert_eq!(streamed, Some(usage), "{stream}");
        }
    }
}

#[test]
fn a_search_whose_action_comes_late_is_counted_by_its_action() {
    let stream = |action: &str| {
        format!(
            "data: {{\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{{\"type\":\"web_search_call\",\"id\":\"ws_1\",\"status\":\"in_progress\"}}}}\n\ndata: {{\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{{\"type\":\"web_search_call\",\"id\":\"ws_1\",\"status\":\"completed\"{action}}}}}\n\ndata: {{\"type\":\"response.completed\",\"response\":{{\"object\":\"response\",\"status\":\"completed\",\"model\":\"m\",\"usage\":{{\"input_tokens\":10,\"output_tokens\":2}}}}}}\n\n"
        )
    };
    for (action, wanted) in [
        (r#","action":{"type":"find_in_page"}"#, 0),
        (r#","action":{"type":"search","queries":["a","b"]}"#, 1),
        ("", 1),
    ] {
        let usage = learnt(OpenaiResponses, media(true), stream(action).as_bytes()).usage;
        assert_eq!(usage.unwrap().units.get(Unit::WebSearch), wanted, "{action}");
    }
}

#[test]
fn a_cost_in_ticks_is_the_cost() {
    const USAGE: &str = r#""usage":{"prompt_tokens":32,"completion_tokens":9,"input_tokens":32,"output_tokens":9,"total_tokens":135,"num_sources_used":0,"cost_in_usd_ticks":37756000}"#;
    let chat = format!(
        r#"{{"model":"grok-4.5","choices":[{{"index":0,"delta":{{}},"message":{{"content":"hi"}},"finish_reason":"stop"}}],{USAGE}}}"#
    );
    let response =
        format!(r#"{{"object":"response","status":"completed","model":"grok-4.5","output":[],{USAGE}}}"#);
    for (kind, body) in [(OpenaiChat, chat), (OpenaiResponses, response)] {
        let facts = learnt(kind, media(false), body.as_bytes());
        assert_eq!(facts.reported_cost, Some(Pico(3_775_600_000)), "{body}");
        // What the total has beyond the two counts is reasoning.
        assert_eq!(facts.usage.unwrap().output, 103);
    }
}

#[test]
fn a_gateway_states_the_cost_of_a_message_too() {
    const USAGE: &str = r#""usage":{"input_tokens":12,"output_tokens":7,"cost":0.000141,"is_byok":false,"cost_details":{"upstream_inference_cost":null}}"#;
    let plain = format!(
        r#"{{"type":"message","role":"assistant","model":"anthropic/claude-haiku-4.5","content":[{{"type":"text","text":"hi"}}],"stop_reason":"end_turn",{USAGE}}}"#
    );
    let stream = format!(
        "data: {{\"type\":\"message_start\",\"message\":{{\"type\":\"message\",\"model\":\"anthropic/claude-haiku-4.5\",\"content\":[],\"usage\":{{\"input_tokens\":0,\"output_tokens\":0}}}}}}\n\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},{USAGE}}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    for (sse, body) in [(false, plain), (true, stream)] {
        let facts = learnt(AnthropicMessages, media(sse), body.as_bytes());
        assert_eq!(facts.reported_cost, Some(Pico(141_000_000)), "{body}");
        let usage = facts.usage.unwrap();
        assert_eq!((usage.input, usage.output), (12, 7));
    }
}

#[test]
fn a_stream_that_ends_with_its_usage_is_whole() {
    const ENDS: &str = "data: {\"model\":\"llama\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\ndata: {\"model\":\"llama\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":51,\"completion_tokens\":2}}\n\n";
    let facts = learnt(OpenaiChat, media(true), ENDS.as_bytes());
    assert!(facts.complete && facts.usage.is_some(), "{facts:?}");
    // Another choice is still to come.
    let two = ENDS.replace(
        "[{\"index\":0,\"delta\":{\"content\"",
        "[{\"index\":1,\"delta\":{\"content\"",
    );
    assert!(!learnt(OpenaiChat, media(true), two.as_bytes()).complete);
    let silent = ENDS.replace(",\"usage\":{\"prompt_tokens\":51,\"completion_tokens\":2}", "");
    assert!(!learnt(OpenaiChat, media(true), silent.as_bytes()).complete);
}

#[test]
fn counts_under_names_of_one_provider_only_are_counted() {
    for (usage, [input, read, written, output]) in [
        (
            r#""prompt_tokens":20,"completion_tokens":5,"total_tokens":25,"num_cached_tokens":8"#,
            [12, 8, 0, 5],
        ),
        (
            r#""prompt_tokens":20,"completion_tokens":5,"prompt_token_details":{"cached_tokens":8}"#,
            [12, 8, 0, 5],
        ),
        (
            r#""prompt_tokens":20,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8,"cache_creation_input_tokens":9}"#,
            [3, 8, 9, 5],
        ),
        (r#""prompt_tokens":20,"total_tokens":25"#, [20, 0, 0, 5]),
        (
            r#""prompt_tokens":20,"total_tokens":20,"completion_tokens":null"#,
            [20, 0, 0, 0],
        ),
    ] {
        let body = format!(
            r#"{{"model":"m","choices":[{{"index":0,"message":{{"content":"hi"}},"finish_reason":"stop"}}],"usage":{{{usage}}}}}"#
        );
        let found = learnt(OpenaiChat, media(false), body.as_bytes()).usage.unwrap();
        let found = [found.input, found.cache_read, found.cache_write_5m, found.output];
        assert_eq!(found, [input, read, written, output], "{body}");
    }
}

#[test]
fn the_model_that_a_router_chose_is_the_one_that_served() {
    const CHOSEN: &str = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0";
    let trace = format!(r#""trace":{{"promptRouter":{{"invokedModelId":"{CHOSEN}"}}}}"#);
    let usage = r#""usage":{"inputTokens":4,"outputTokens":9,"totalTokens":13}"#;
    let plain = format!(
        r#"{{"output":{{"message":{{"role":"assistant","content":[{{"text":"hi"}}]}}}},"stopReason":"end_turn",{usage},{trace}}}"#
    );
    let stream = binary(
        format!("messageStart {{\"role\":\"assistant\"}}\nmessageStop {{\"stopReason\":\"end_turn\"}}\nmetadata {{{usage},{trace}}}")
            .as_bytes(),
    );
    for (media, body) in [(media(false), plain.as_bytes()), (BINARY, stream.as_slice())] {
        let facts = learnt(BedrockConverse, media, body);
        assert_eq!(facts.model.as_deref(), Some(CHOSEN));
    }
}
