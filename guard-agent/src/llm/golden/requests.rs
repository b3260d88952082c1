use bytes::Bytes;

use crate::llm::CacheWrite;
use crate::llm::DialectKind::{self, AnthropicMessages, OpenaiChat};
use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::provider::dialect_of;
use crate::llm::{BodyEdits, Dialect, RequestFacts};

fn facts(kind: DialectKind, body: &str) -> RequestFacts {
    dialect_of(kind)
        .request(body.as_bytes())
        .unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn bodies_that_could_be_read_in_two_ways_are_refused() {
    for kind in super::KINDS {
        for body in [
            r#"{"model":"cheap","messages":[],"model":"dear"}"#,
            r#"{"model":"cheap","messages":[],"Model":"dear"}"#,
            r#"{"model":"cheap","messages":[],"Tools":[]}"#,
            r#"{"model":"cheap","messages":[{"role":"user","content":[{"type":"text","type":"image"}]}]}"#,
            r#"{"model":"cheap","messages":[]} {"model":"dear"}"#,
            r#"{"model":["cheap"],"messages":[]}"#,
            r#"{"model":null,"messages":[]}"#,
            r#"{"messages":[]}"#,
            r#"{"model":"m","stream":"yes"}"#,
            r#"{"model":"m","max_tokens":-1}"#,
            r#"{"model":"m","max_tokens":1.5}"#,
            r#"{"model":"m","max_tokens":"5"}"#,
            r#"{"model":"m","max_tokens":99999999999999999999}"#,
            r#"{"model":"m","messages":[1]}"#,
            r#"{"model":"m","messages":7}"#,
            r#"{"model":"m","tools":[{}]}"#,
            r#"{"model":"m","tools":[7]}"#,
            r#"{"model":"m","tools":[{"name":7}]}"#,
            r#"[{"model":"m"}]"#,
            "",
            "{",
        ] {
            assert!(
                dialect_of(kind).request(body.as_bytes()).is_err(),
                "{kind:?} {body}"
            );
        }
    }
}

#[test]
fn lists_of_other_models_are_refused() {
    let chat = |models: &str| format!(r#"{{"model":"a","models":{models}}}"#);
    assert!(
        dialect_of(OpenaiChat)
            .request(chat(r#"["b"]"#).as_bytes())
            .is_err()
    );
    assert!(dialect_of(OpenaiChat).request(chat(r#""b""#).as_bytes()).is_err());
    assert!(dialect_of(OpenaiChat).request(chat("[]").as_bytes()).is_ok());
    assert!(dialect_of(OpenaiChat).request(chat("null").as_bytes()).is_ok());
    let claude = |fallbacks: &str| format!(r#"{{"model":"a","fallbacks":{fallbacks}}}"#);
    assert!(
        dialect_of(AnthropicMessages)
            .request(claude(r#"[{"model":"b"}]"#).as_bytes())
            .is_err()
    );
    assert!(
        dialect_of(AnthropicMessages)
            .request(claude(r#""default""#).as_bytes())
            .is_err()
    );
    assert!(
        dialect_of(AnthropicMessages)
            .request(claude("[]").as_bytes())
            .is_ok()
    );
}

#[test]
fn input_that_the_body_does_not_show_is_seen_as_such() {
    let part = |part: &str| {
        facts(
            OpenaiChat,
            &format!(r#"{{"model":"m","messages":[{{"content":[{part}]}}]}}"#),
        )
    };
    for unseen in [
        r#"{"type":"image_url","image_url":{"url":"https://a/b.png"}}"#,
        r#"{"type":"image_url","image_url":"https://a/b.png"}"#,
        r#"{"type":"file","file":{"file_id":"file-1"}}"#,
        r#"{"type":"file","file":{"file_id":"file-1","file_data":"data:x"}}"#,
        r#"{"type":"file","file":{"file_data":"https://a/b.pdf"}}"#,
        r#"{"type":"file","file":{"file_data":"data:application/pdf;base64,AA"}}"#,
        r#"{"type":"text","text":"x","image_url":{"url":"http://a"}}"#,
        r#"{"type":"document_url","document_url":"https://a/b.pdf"}"#,
        r#"{"type":"of_next_year"}"#,
        "{}",
    ] {
        assert!(part(unseen).unseen_input, "{unseen}");
    }
    for seen in [
        r#"{"type":"text","text":"https://a/b.png"}"#,
        r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA","detail":"high"}}"#,
        r#"{"type":"image_url","image_url":"DATA:image/png;base64,AA"}"#,
        r#""plain text""#,
    ] {
        assert!(!part(seen).unseen_input, "{seen}");
    }
    assert!(
        facts(
            OpenaiChat,
            r#"{"model":"m","messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#
        )
        .unseen_input
    );

    let block = |block: &str| {
        facts(
            AnthropicMessages,
            &format!(r#"{{"model":"m","messages":[{{"content":[{block}]}}]}}"#),
        )
    };
    for unseen in [
        r#"{"type":"image","source":{"type":"url","url":"https://a/b.png"}}"#,
        r#"{"type":"image","source":{"type":"file","file_id":"file_1"}}"#,
        r#"{"type":"image"}"#,
        r#"{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"AA"}}"#,
        r#"{"type":"document","source":{"type":"content","content":[{"type":"image","source":{"type":"url","url":"x"}}]}}"#,
        r#"{"type":"tool_result","content":[{"type":"image","source":{"type":"file","file_id":"x"}}]}"#,
        r#"{"type":"container_upload","file_id":"file_1"}"#,
        r#"{"type":"of_next_year"}"#,
    ] {
        assert!(block(unseen).unseen_input, "{unseen}");
    }
    for seen in [
        r#"{"type":"text","text":"https://a"}"#,
        r#"{"type":"document","source":{"type":"text","data":"x"}}"#,
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA"}}"#,
        r#"{"type":"tool_result","content":"ok"}"#,
        r#"{"type":"tool_use","name":"Read","input":{"type":"image","source":{"type":"url"}}}"#,
        r#"{"type":"web_search_tool_result","content":[{"type":"web_search_result","url":"https://a"}]}"#,
        r#"{"type":"search_result","source":"https://a","content":[]}"#,
    ] {
        assert!(!block(seen).unseen_input, "{seen}");
    }
}

#[test]
fn the_checksum_counts_in_the_system_prompt_only() {
    let mark = r#"[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1; cch=00000;"}]"#;
    let with = |place: &str| facts(AnthropicMessages, &format!(r#"{{"model":"m",{place}}}"#));
    assert!(with(&format!(r#""system":{mark}"#)).untouchable);
    assert!(!with(&format!(r#""messages":[{{"content":{mark}}}]"#)).untouchable);
    assert!(
        !with(r#""system":[{"type":"text","text":"the x-anthropic-billing-header: cch=1 is odd"}]"#)
            .untouchable
    );
    assert!(!with(r#""system":"plain""#).untouchable);
}

#[test]
fn cache_marks_anywhere_are_found() {
    let with = |place: &str| facts(AnthropicMessages, &format!(r#"{{"model":"m",{place}}}"#)).cache_write;
    assert_eq!(
        with(r#""tools":[{"name":"a","cache_control":{"type":"ephemeral"}}]"#),
        CacheWrite::FiveMinutes
    );
    assert_eq!(
        with(r#""cache_control":{"type":"ephemeral","ttl":"1h"}"#),
        CacheWrite::OneHour
    );
    assert_eq!(with(r#""messages":[]"#), CacheWrite::None);
}

#[test]
fn a_hostile_list_of_tools_is_bounded() {
    let tools: Vec<String> = (0..5000)
        .map(|n| format!(r#"{{"name":"t{n}","type":"custom","custom":{{"name":"t{n}"}}}}"#))
        .collect();
    let body = format!(r#"{{"model":"m","tools":[{}]}}"#, tools.join(","));
    for kind in super::KINDS {
        assert!(
            dialect_of(kind)
                .request(body.as_bytes())
                .unwrap_err()
                .0
                .contains("too many tools"),
            "{kind:?}"
        );
    }
}

#[test]
fn nested_content_is_bounded() {
    let nest = |levels: usize| {
        let open = r#"[{"type":"tool_result","content":"#.repeat(levels);
        format!(
            r#"{{"model":"m","messages":[{{"content":{open}[]{}}}]}}"#,
            "}]".repeat(levels)
        )
    };
    assert!(dialect_of(AnthropicMessages).request(nest(4).as_bytes()).is_ok());
    assert!(dialect_of(AnthropicMessages).request(nest(5).as_bytes()).is_err());
    assert!(
        dialect_of(AnthropicMessages)
            .request(nest(5000).as_bytes())
            .is_err()
    );
}

#[test]
fn a_cap_that_the_provider_may_ignore_is_no_cap() {
    let compatible = |body: &str| COMPATIBLE.request(body.as_bytes()).unwrap().output_cap;
    assert_eq!(compatible(r#"{"model":"m","max_completion_tokens":1}"#), None);
    assert_eq!(
        compatible(r#"{"model":"m","max_completion_tokens":1,"max_tokens":null}"#),
        None
    );
    assert_eq!(
        compatible(r#"{"model":"m","max_completion_tokens":1,"max_tokens":9}"#),
        Some(9)
    );
    assert_eq!(
        compatible(r#"{"model":"m","max_completion_tokens":9,"max_tokens":1}"#),
        Some(9)
    );
    let cap = BodyEdits {
        output_cap: Some(5),
        ..BodyEdits::default()
    };
    for (body, expected) in [
        (
            r#"{"model":"m","max_completion_tokens":1}"#,
            r#"{"model":"m","max_tokens":5}"#,
        ),
        (
            r#"{"max_completion_tokens":1,"max_tokens":null}"#,
            r#"{"max_tokens":5}"#,
        ),
        (
            r#"{"max_completion_tokens":9,"max_tokens":8}"#,
            r#"{"max_completion_tokens":5,"max_tokens":5}"#,
        ),
    ] {
        let edited = COMPATIBLE.rewrite(&Bytes::from(body), &cap).unwrap();
        assert_eq!(edited, expected, "{body}");
    }
}

#[test]
fn names_of_tools_are_bounded() {
    let with = |name: &str| {
        format!(r#"{{"model":"m","tools":[{{"type":"function","function":{{"name":"{name}"}}}}]}}"#)
    };
    assert!(
        dialect_of(OpenaiChat)
            .request(with(&"a".repeat(512)).as_bytes())
            .is_ok()
    );
    assert!(
        dialect_of(OpenaiChat)
            .request(with(&"a".repeat(513)).as_bytes())
            .is_err()
    );
}
