//! Rewrites of the formats in `formats`: output caps, and tools that are stripped.

use bytes::Bytes;

use crate::llm::DialectKind::{
    self, BedrockConverse, BedrockInvoke, Cohere, Gemini, Ollama, OpenaiCompletions, OpenaiResponses,
};
use crate::llm::provider::dialect_of;
use crate::llm::{BodyEdits, Malformed};

fn rewrite(kind: DialectKind, body: &str, edits: &BodyEdits) -> Result<String, Malformed> {
    let out = dialect_of(kind).rewrite(&Bytes::copy_from_slice(body.as_bytes()), edits)?;
    Ok(String::from_utf8(out.to_vec()).unwrap())
}

#[test]
fn output_caps_are_set_where_each_format_has_them() {
    let cap = BodyEdits {
        output_cap: Some(5),
        ..BodyEdits::default()
    };
    for (kind, body, wanted) in [
        (
            OpenaiResponses,
            r#"{ "model":"m" }"#,
            r#"{ "model":"m","max_output_tokens":5 }"#,
        ),
        (
            OpenaiResponses,
            r#"{"max_output_tokens":null,"model":"m"}"#,
            r#"{"max_output_tokens":5,"model":"m"}"#,
        ),
        (
            Gemini,
            r#"{"contents":[]}"#,
            r#"{"contents":[],"generationConfig":{"maxOutputTokens":5}}"#,
        ),
        (
            Gemini,
            r#"{"generation_config":{"max_output_tokens":9}}"#,
            r#"{"generation_config":{"max_output_tokens":5}}"#,
        ),
        (
            Gemini,
            r#"{"generationConfig":{"temperature":0}}"#,
            r#"{"generationConfig":{"temperature":0,"maxOutputTokens":5}}"#,
        ),
        (
            Gemini,
            r#"{"generationConfig":null}"#,
            r#"{"generationConfig":{"maxOutputTokens":5}}"#,
        ),
        (
            BedrockConverse,
            r#"{"messages":[]}"#,
            r#"{"messages":[],"inferenceConfig":{"maxTokens":5}}"#,
        ),
        (
            BedrockConverse,
            r#"{"inferenceConfig":{"maxTokens":9,"topP":1}}"#,
            r#"{"inferenceConfig":{"maxTokens":5,"topP":1}}"#,
        ),
        (
            BedrockInvoke,
            r#"{"anthropic_version":"x","max_tokens":9}"#,
            r#"{"anthropic_version":"x","max_tokens":5}"#,
        ),
        (
            BedrockInvoke,
            r#"{"schemaVersion":"messages-v1"}"#,
            r#"{"schemaVersion":"messages-v1","inferenceConfig":{"maxTokens":5}}"#,
        ),
        (Cohere, r#"{"model":"m"}"#, r#"{"model":"m","max_tokens":5}"#),
        (
            Ollama,
            r#"{"model":"m","options":{"num_predict":-1}}"#,
            r#"{"model":"m","options":{"num_predict":5}}"#,
        ),
        (
            Ollama,
            r#"{"model":"m"}"#,
            r#"{"model":"m","options":{"num_predict":5}}"#,
        ),
        (
            OpenaiCompletions,
            r#"{"model":"m","max_tokens":9}"#,
            r#"{"model":"m","max_tokens":5}"#,
        ),
    ] {
        assert_eq!(rewrite(kind, body, &cap).unwrap(), wanted, "{kind:?}");
    }
}

const STRIPPED: &[(DialectKind, &[&str], &str, &str)] = &[
    (
        OpenaiResponses,
        &["a", "web_search"],
        r#"{"tools":[{"type":"function","name":"a"},{"type":"web_search"},{"name":"b","type":"custom"}],"tool_choice":{"type":"function","name":"a"}}"#,
        r#"{"tools":[{"name":"b","type":"custom"}]}"#,
    ),
    (
        OpenaiResponses,
        &["a"],
        r#"{"model":"m","tools":[{"type":"function","name":"a"}],"tool_choice":"required","parallel_tool_calls":true}"#,
        r#"{"model":"m"}"#,
    ),
    (
        OpenaiResponses,
        &["exec", "sleep"],
        r#"{"input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"f","tools":[{"type":"custom","name":"exec"},{"type":"function","name":"wait"}]},{"type":"namespace","name":"c","tools":[{"type":"function","name":"sleep"}]}]},{"role":"user","content":"x"}]}"#,
        r#"{"input":[{"type":"additional_tools","tools":[{"type":"namespace","name":"f","tools":[{"type":"function","name":"wait"}]}]},{"role":"user","content":"x"}]}"#,
    ),
    (
        OpenaiResponses,
        &["exec"],
        r#"{"input":[{"type":"additional_tools","tools":[{"type":"custom","name":"exec"}]},{"type":"tool_search_output","tools":[{"type":"custom","name":"exec"}]}]}"#,
        r#"{"input":[{"type":"tool_search_output","tools":[]}]}"#,
    ),
    (
        Gemini,
        &["a", "googleSearch"],
        r#"{"tools":[{"functionDeclarations":[{"name":"a"},{"name":"b"}]},{"google_search":{}}],"toolConfig":{"functionCallingConfig":{"allowedFunctionNames":["a"]}}}"#,
        r#"{"tools":[{"functionDeclarations":[{"name":"b"}]}]}"#,
    ),
    (
        Gemini,
        &["a", "urlContext"],
        r#"{"contents":[],"tools":[{"function_declarations":[{"name":"a"}],"url_context":{}}],"tool_config":{}}"#,
        r#"{"contents":[]}"#,
    ),
    (
        Gemini,
        &["codeExecution"],
        r#"{"tools":[{"function_declarations":[{"name":"a"}],"codeExecution":{}}]}"#,
        r#"{"tools":[{"function_declarations":[{"name":"a"}]}]}"#,
    ),
    (
        BedrockConverse,
        &["a"],
        r#"{"toolConfig":{"tools":[{"toolSpec":{"name":"a"}},{"toolSpec":{"name":"b"}}],"toolChoice":{"tool":{"name":"a"}}}}"#,
        r#"{"toolConfig":{"tools":[{"toolSpec":{"name":"b"}}]}}"#,
    ),
    (
        BedrockConverse,
        &["a"],
        r#"{"messages":[],"toolConfig":{"tools":[{"toolSpec":{"name":"a"}},{"cachePoint":{"type":"default"}}]}}"#,
        r#"{"messages":[]}"#,
    ),
    (
        Cohere,
        &["a"],
        r#"{"tools":[{"type":"function","function":{"name":"a"}}],"tool_choice":"REQUIRED","model":"m"}"#,
        r#"{"model":"m"}"#,
    ),
    (
        Ollama,
        &["a"],
        r#"{"tools":[{"function":{"name":"a"}},{"function":{"name":"b"}}]}"#,
        r#"{"tools":[{"function":{"name":"b"}}]}"#,
    ),
];

#[test]
fn stripped_tools_go_from_wherever_they_stand() {
    let strip = |names: &[&str]| BodyEdits {
        strip_tools: names.iter().map(|name| (*name).to_owned()).collect(),
        ..BodyEdits::default()
    };
    for (kind, names, body, wanted) in STRIPPED.iter().copied() {
        let out = rewrite(kind, body, &strip(names)).unwrap();
        assert_eq!(out, wanted, "{kind:?} {names:?}");
        assert_eq!(rewrite(kind, body, &strip(&["z"])).unwrap(), body, "{kind:?}");
    }
    let hidden = r#"{"messages":[],"additionalModelRequestFields":{"tools":[{"name":"a"}]}}"#;
    assert!(rewrite(BedrockConverse, hidden, &strip(&["a"])).is_err());
    assert!(
        rewrite(
            OpenaiResponses,
            r#"{"prompt":{"id":"x"}}"#,
            &strip(&["stored_prompt"])
        )
        .is_err()
    );
}
