use bytes::Bytes;

use crate::llm::BodyEdits;
use crate::llm::DialectKind::{AnthropicMessages, OpenaiChat};
use crate::llm::provider::dialect_of;
use crate::llm::{DialectKind, Malformed};

fn rewrite(kind: DialectKind, body: &str, edits: &BodyEdits) -> Result<String, Malformed> {
    let out = dialect_of(kind).rewrite(&Bytes::copy_from_slice(body.as_bytes()), edits)?;
    Ok(String::from_utf8(out.to_vec()).unwrap())
}

fn cap(cap: u64) -> BodyEdits {
    BodyEdits {
        output_cap: Some(cap),
        ..Default::default()
    }
}

fn strip(names: &[&str]) -> BodyEdits {
    BodyEdits {
        strip_tools: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn usage() -> BodyEdits {
    BodyEdits {
        include_usage: true,
        ..Default::default()
    }
}

#[test]
fn without_edits_the_very_same_bytes_go_on() {
    let body = Bytes::from_static(b"not even JSON");
    for kind in super::KINDS {
        let out = dialect_of(kind).rewrite(&body, &BodyEdits::default()).unwrap();
        assert_eq!(out.as_ptr(), body.as_ptr());
    }
}

#[test]
fn output_caps_are_set_where_they_stand() {
    for (body, expected) in [
        (
            "{ \"max_tokens\" : 9 ,\"model\":\"m\"}",
            "{ \"max_tokens\" : 5 ,\"model\":\"m\"}",
        ),
        (
            r#"{"model":"m","max_completion_tokens":9}"#,
            r#"{"model":"m","max_completion_tokens":5}"#,
        ),
        (
            r#"{"model":"m","max_completion_tokens":9,"max_tokens":8}"#,
            r#"{"model":"m","max_completion_tokens":5,"max_tokens":5}"#,
        ),
        (
            r#"{"model":"m","max_completion_tokens":null}"#,
            r#"{"model":"m","max_completion_tokens":5}"#,
        ),
        (
            r#"{"model":"m","max_completion_tokens":null,"max_tokens":9}"#,
            r#"{"model":"m","max_completion_tokens":null,"max_tokens":5}"#,
        ),
        (
            "{\"model\":\"m\"}\n",
            "{\"model\":\"m\",\"max_completion_tokens\":5}\n",
        ),
    ] {
        assert_eq!(rewrite(OpenaiChat, body, &cap(5)).unwrap(), expected);
    }
    let body = r#"{"metadata":{"max_tokens":1},"max_tokens":9,"model":"m"}"#;
    assert_eq!(
        rewrite(AnthropicMessages, body, &cap(5)).unwrap(),
        r#"{"metadata":{"max_tokens":1},"max_tokens":5,"model":"m"}"#
    );
}

#[test]
fn a_cap_never_goes_below_the_thinking_budget() {
    let body = r#"{"model":"m","max_tokens":9000,"thinking":{"type":"enabled","budget_tokens":4000}}"#;
    assert!(rewrite(AnthropicMessages, body, &cap(3999)).is_err());
    assert!(
        rewrite(AnthropicMessages, body, &cap(4001))
            .unwrap()
            .contains(r#""max_tokens":4001"#)
    );
}

#[test]
fn a_body_with_a_checksum_is_never_changed() {
    let body = r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"x-anthropic-billing-header: cch=1;"}]}"#;
    for edits in [cap(5), strip(&["Bash"])] {
        assert!(rewrite(AnthropicMessages, body, &edits).is_err());
    }
}

#[test]
fn usage_is_asked_for_in_streams() {
    for (body, expected) in [
        (
            r#"{"stream":true,"model":"m"}"#,
            r#"{"stream":true,"model":"m","stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":null}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{ "include_obfuscation":false }}"#,
            r#"{"stream":true,"stream_options":{ "include_obfuscation":false,"include_usage":true }}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage": false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage": true}}"#,
        ),
        (
            r#"{"stream":false,"model":"m"}"#,
            r#"{"stream":false,"model":"m"}"#,
        ),
        (r#"{"model":"m"}"#, r#"{"model":"m"}"#),
    ] {
        assert_eq!(rewrite(OpenaiChat, body, &usage()).unwrap(), expected);
    }
}

const CHAT: &str = r#"{"model":"m", "tools": [ {"type":"function","function":{"name":"a"}}, {"type":"custom","custom":{"name":"b"}},
 {"type":"browser_search"} ], "tool_choice":{"type":"function","function":{"name":"b"}}, "parallel_tool_calls":true, "functions":[{"name":"f"}],
 "function_call":{"name":"f"}, "web_search_options":{}, "messages":[{"role":"tool","content":"a b f"}]}"#;

#[test]
fn chat_tools_are_stripped_with_what_names_them() {
    let out = rewrite(OpenaiChat, CHAT, &strip(&["b"])).unwrap();
    assert_eq!(
        out,
        CHAT.replace(r#", {"type":"custom","custom":{"name":"b"}}"#, "")
            .replace(
                r#", "tool_choice":{"type":"function","function":{"name":"b"}}"#,
                ""
            )
    );
    let out = rewrite(
        OpenaiChat,
        CHAT,
        &strip(&["a", "browser_search", "web_search", "f"]),
    )
    .unwrap();
    assert_eq!(
        out,
        "{\"model\":\"m\", \"tools\": [ {\"type\":\"custom\",\"custom\":{\"name\":\"b\"}} ], \
         \"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"b\"}}, \"parallel_tool_calls\":true, \
         \"messages\":[{\"role\":\"tool\",\"content\":\"a b f\"}]}"
    );
    let out = rewrite(
        OpenaiChat,
        CHAT,
        &strip(&["a", "b", "browser_search", "f", "web_search"]),
    )
    .unwrap();
    assert_eq!(
        out,
        "{\"model\":\"m\", \"messages\":[{\"role\":\"tool\",\"content\":\"a b f\"}]}"
    );
    assert_eq!(rewrite(OpenaiChat, CHAT, &strip(&["z"])).unwrap(), CHAT);
}

#[test]
fn a_list_of_allowed_tools_that_names_a_stripped_one_goes() {
    let body = r#"{"tools":[{"function":{"name":"a"}},{"function":{"name":"b"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[{"type":"function","function":{"name":"a"}}]}}}"#;
    assert_eq!(
        rewrite(OpenaiChat, body, &strip(&["a"])).unwrap(),
        r#"{"tools":[{"function":{"name":"b"}}]}"#
    );
}

const CLAUDE: &str = r#"{"model":"m","tools":[{"name":"Read","input_schema":{}}, {"type":"web_search_20250305","name":"web_search"},
 {"type":"mcp_toolset","mcp_server_name":"ex"}], "tool_choice":{"type":"tool","name":"web_search"},
 "mcp_servers":[{"type":"url","url":"https://mcp.example/sse","name":"ex"}], "max_tokens":5}"#;

#[test]
fn anthropic_tools_are_stripped_with_what_names_them() {
    let out = rewrite(
        AnthropicMessages,
        CLAUDE,
        &strip(&["web_search_20250305", "mcp:mcp.example"]),
    )
    .unwrap();
    assert_eq!(
        out,
        "{\"model\":\"m\",\"tools\":[{\"name\":\"Read\",\"input_schema\":{}}], \"max_tokens\":5}"
    );
    let out = rewrite(AnthropicMessages, CLAUDE, &strip(&["Read"])).unwrap();
    assert_eq!(
        out,
        CLAUDE.replace("{\"name\":\"Read\",\"input_schema\":{}}, ", "")
    );
    let out = rewrite(
        AnthropicMessages,
        CLAUDE,
        &strip(&["Read", "web_search_20250305", "mcp:mcp.example"]),
    )
    .unwrap();
    assert_eq!(out, "{\"model\":\"m\", \"max_tokens\":5}");
}

#[test]
fn a_tool_added_inside_a_message_can_not_be_stripped() {
    let body = r#"{"model":"m","messages":[{"content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"x"}}}]}]}"#;
    assert!(rewrite(AnthropicMessages, body, &strip(&["x"])).is_err());
    assert_eq!(rewrite(AnthropicMessages, body, &strip(&["y"])).unwrap(), body);
}

#[test]
fn a_web_search_that_the_models_name_asks_for_is_not_sent_when_it_was_to_be_removed() {
    let body = Bytes::from_static(
        br#"{"model":"vendor/model:online","messages":[],"tools":[{"type":"function","function":{"name":"Read"}}]}"#,
    );
    let dialect = dialect_of(DialectKind::OpenaiChat);
    let strip = |name: &str| BodyEdits {
        strip_tools: vec![name.to_owned()],
        ..BodyEdits::default()
    };
    let why = dialect.rewrite(&body, &strip("web_search")).unwrap_err().0;
    assert!(why.contains("`:online`"), "{why}");
    assert!(dialect.rewrite(&body, &strip("Read")).is_ok());
}
