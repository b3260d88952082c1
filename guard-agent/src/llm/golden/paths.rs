//! Which paths are calls in each format, and what a path or a body says beside the fields that are counted.

use http::Method;

use super::formats::{facts, facts_at};
use crate::llm::DialectKind::{
    self, AnthropicVertex, BedrockConverse, BedrockInvoke, Cohere, Embeddings, Gemini, Ollama,
    OpenaiCompletions, OpenaiResponses,
};
use crate::llm::provider::dialect_of;
use crate::llm::{EndpointKind, Place};

#[test]
fn endpoints_of_each_format() {
    use EndpointKind::{CountTokens, Free, Inference, Models, Other};
    let post = &Method::POST;
    let get = &Method::GET;
    for (kind, method, path, wanted) in [
        (OpenaiResponses, post, "/v1/responses", Inference),
        (OpenaiResponses, post, "/responses", Inference),
        (OpenaiResponses, post, "/v1/responses/compact", Inference),
        (OpenaiResponses, post, "/v1/responses/input_tokens", CountTokens),
        (OpenaiResponses, get, "/v1/responses/resp_1", Free),
        (OpenaiResponses, &Method::DELETE, "/v1/responses/resp_1", Free),
        (OpenaiResponses, post, "/v1/responses/resp_1/cancel", Free),
        (OpenaiResponses, get, "/v1/responses/resp_1/input_items", Free),
        (OpenaiResponses, get, "/v1/responses", Other),
        (OpenaiResponses, post, "/v1/responses/resp_1", Other),
        (OpenaiResponses, post, "/v1/responsesx", Other),
        (OpenaiResponses, post, "/v1/conversations", Other),
        (Gemini, post, "/models/m:generateContent", Inference),
        (Gemini, post, "/models/m:streamGenerateContent", Inference),
        (Gemini, post, "/models/m:countTokens", CountTokens),
        (Gemini, post, "/models/m:embedContent", Inference),
        (Gemini, post, "/models/m:batchGenerateContent", Other),
        (Gemini, post, "/models/m:predict", Other),
        (Gemini, get, "/models/m:generateContent", Other),
        (Gemini, get, "/models/m", Models),
        (Gemini, get, "/models", Models),
        (Gemini, post, "/models/a%2Fb:generateContent", Other),
        (Gemini, post, "/cachedContents", Other),
        (BedrockConverse, post, "/model/m/converse", Inference),
        (BedrockConverse, post, "/model/m/converse-stream", Inference),
        (BedrockConverse, post, "/model/m/count-tokens", CountTokens),
        (BedrockConverse, post, "/model/m/invoke", Other),
        (BedrockConverse, post, "/async-invoke", Other),
        (BedrockInvoke, post, "/model/m/invoke", Inference),
        (
            BedrockInvoke,
            post,
            "/model/m/invoke-with-response-stream",
            Inference,
        ),
        (
            BedrockInvoke,
            post,
            "/model/m/invoke-with-bidirectional-stream",
            Other,
        ),
        (BedrockInvoke, post, "/model/a/b/invoke", Other),
        (Cohere, post, "/v2/chat", Inference),
        (Cohere, post, "/v2/rerank", Inference),
        (Cohere, post, "/v1/chat", Other),
        (Cohere, get, "/v1/models", Models),
        (Ollama, post, "/api/generate", Inference),
        (Ollama, post, "/api/pull", Other),
        (Ollama, get, "/api/tags", Models),
        (Embeddings, post, "/v1/embeddings", Inference),
        (Embeddings, post, "/v1/rerank", Inference),
        (OpenaiCompletions, post, "/v1/fim/completions", Inference),
        (
            AnthropicVertex,
            post,
            "/models/claude@1:streamRawPredict",
            Inference,
        ),
        (
            AnthropicVertex,
            post,
            "/models/count-tokens:rawPredict",
            CountTokens,
        ),
        (AnthropicVertex, post, "/models/claude@1:predict", Other),
    ] {
        assert_eq!(
            dialect_of(kind).endpoint(method, path),
            wanted,
            "{kind:?} {method} {path}"
        );
    }
}

#[test]
fn what_is_billed_by_something_that_cannot_be_reserved_is_known_as_such() {
    use EndpointKind::{Free, Inference, Other, Unpriced};
    let post = &Method::POST;
    for (kind, method, path, wanted) in [
        (Cohere, post, "/v1/rerank", Inference),
        (Cohere, post, "/v1/classify", Unpriced),
        (Embeddings, post, "/v1/multimodalembeddings", Unpriced),
        (DialectKind::Media, post, "/v1/images/generations", Inference),
        (DialectKind::Media, post, "/images/edits", Inference),
        (DialectKind::Media, post, "/v1/images/variations", Unpriced),
        (DialectKind::Media, post, "/v1/audio/speech", Inference),
        (DialectKind::Media, post, "/v1/audio/transcriptions", Inference),
        (DialectKind::Media, post, "/v1/audio/translations", Inference),
        (DialectKind::Media, post, "/v1/audio/voices", Other),
        (DialectKind::Media, post, "/v1/moderations", Free),
        (DialectKind::Media, post, "/v1/videos", Unpriced),
        (DialectKind::Media, post, "/v1/ocr", Unpriced),
        (DialectKind::Media, &Method::GET, "/v1/videos", Other),
    ] {
        let said = dialect_of(kind).endpoint(method, path);
        assert_eq!(said, wanted, "{kind:?} {method} {path}");
    }
}

#[test]
fn bodies_that_could_be_read_in_two_ways_are_refused_everywhere() {
    for (kind, body) in [
        (OpenaiResponses, r#"{"model":"a","input":"x","model":"b"}"#),
        (OpenaiResponses, r#"{"model":"a","Input":"x"}"#),
        (OpenaiResponses, r#"{"input":"x"}"#),
        (OpenaiResponses, r#"{"model":"a","models":["b"]}"#),
        (OpenaiResponses, r#"{"model":"a","tools":[{}]}"#),
        (
            OpenaiResponses,
            r#"{"model":"a","input":[{"type":"additional_tools","tools":[{}]}]}"#,
        ),
        (OpenaiResponses, r#"{"model":"a","input":[7]}"#),
        (Gemini, r#"{"contents":[],"contents":[]}"#),
        (Gemini, r#"{"generationConfig":{},"generation_config":{}}"#),
        (
            Gemini,
            r#"{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}"#,
        ),
        (Gemini, r#"{"tools":[{"functionDeclarations":[{}]}]}"#),
        (
            Gemini,
            r#"{"tools":[{"functionDeclarations":[],"function_declarations":[{"name":"x"}]}]}"#,
        ),
        (Gemini, r#"{"Contents":[]}"#),
        (Gemini, r#"{"generationConfig":{"maxOutputTokens":"many"}}"#),
        (
            BedrockConverse,
            r#"{"messages":[],"additionalModelRequestFields":{"max_tokens":9}}"#,
        ),
        (BedrockConverse, r#"{"messages":[],"toolConfig":{"tools":[{}]}}"#),
        (BedrockConverse, r#"{"messages":[],"Messages":[]}"#),
        (BedrockInvoke, r#"{"prompt":"x","max_gen_len":5}"#),
        (
            BedrockInvoke,
            r#"{"anthropic_version":"x","messages":[],"messages":[]}"#,
        ),
        (Cohere, r#"{"model":"a","messages":[],"model":"b"}"#),
        (Cohere, r#"{"messages":[]}"#),
        (Cohere, r#"{"model":"a","tools":[{"type":"function"}]}"#),
        (Ollama, r#"{"model":"a","Model":"b"}"#),
        (Ollama, r#"{"model":"a","tools":[{}]}"#),
        (Embeddings, r#"{"model":"a","input":[{"image":"https://a"}]}"#),
        (Embeddings, r#"{"input":"x"}"#),
        (OpenaiCompletions, r#"{"model":"a","Prompt":"x"}"#),
        (OpenaiCompletions, r#"{"prompt":"x"}"#),
        (AnthropicVertex, r#"{"messages":[],"Messages":[]}"#),
    ] {
        assert!(facts(kind, body).is_err(), "{kind:?} {body}");
    }
}

#[test]
fn the_model_of_the_path_is_the_one_that_counts() {
    let named = |kind, tail: &str, body: &str| facts_at(kind, tail, body.as_bytes()).unwrap();
    let gemini = named(
        Gemini,
        "/models/gemini-2.5-pro:generateContent",
        r#"{"contents":[]}"#,
    );
    assert_eq!((gemini.model.as_str(), gemini.stream), ("gemini-2.5-pro", false));
    let arn = "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x/converse";
    assert_eq!(
        named(BedrockConverse, arn, r#"{"messages":[]}"#).model,
        "arn:aws:bedrock:us-east-1:1:inference-profile/us.x"
    );
    let claude = r#"{"anthropic_version":"vertex-2023-10-16","model":"cheap","messages":[],"max_tokens":5}"#;
    let vertex = named(AnthropicVertex, "/models/dear@1:streamRawPredict", claude);
    assert_eq!((vertex.model.as_str(), vertex.stream), ("dear@1", true));
    let batch = r#"{"requests":[{"model":"models/other","content":{"parts":[{"text":"x"}]}}]}"#;
    assert!(facts_at(Gemini, "/models/m:batchEmbedContents", batch.as_bytes()).is_err());
    let fim = named(
        OpenaiCompletions,
        "/v1/fim/completions",
        r#"{"model":"codestral","prompt":"x"}"#,
    );
    assert!(fim.include_usage, "nothing is to be injected");
    let azure = Place {
        model: Some("my-deployment".to_owned()),
        region: None,
        tail: "/chat/completions".to_owned(),
        content_type: None,
    };
    let chat = dialect_of(DialectKind::OpenaiChat);
    assert_eq!(
        chat.request_at(&azure, br#"{"messages":[]}"#).unwrap().model,
        "my-deployment"
    );
}

const UNSEEN: &[(DialectKind, &str, bool)] = &[
    (OpenaiResponses, r#"{"model":"m","conversation":"c"}"#, true),
    (
        OpenaiResponses,
        r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://a"}]}]}"#,
        true,
    ),
    (
        OpenaiResponses,
        r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]}"#,
        true,
    ),
    (
        OpenaiResponses,
        r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_data":"data:x"}]}]}"#,
        true,
    ),
    (
        OpenaiResponses,
        r#"{"model":"m","input":[{"type":"compaction","encrypted_content":"x"}]}"#,
        true,
    ),
    (OpenaiResponses, r#"{"model":"m","input":[{"id":"msg_1"}]}"#, true),
    (
        OpenaiResponses,
        r#"{"model":"m","context_management":[{"type":"compaction"}]}"#,
        true,
    ),
    (
        OpenaiResponses,
        r#"{"model":"m","input":[{"type":"function_call_output","output":[{"type":"input_file","file_id":"f"}]}]}"#,
        true,
    ),
    (
        OpenaiResponses,
        r#"{"model":"m","input":"https://a","previous_response_id":null}"#,
        false,
    ),
    (
        Gemini,
        r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"application/pdf","data":"AA"}}]}]}"#,
        true,
    ),
    (
        Gemini,
        r#"{"contents":[{"parts":[{"file_data":{"file_uri":"x"}}]}]}"#,
        true,
    ),
    (
        Gemini,
        r#"{"contents":[{"parts":[{"functionResponse":{"name":"x","response":{},"parts":[{"fileData":{"fileUri":"x"}}]}}]}]}"#,
        true,
    ),
    (
        Gemini,
        r#"{"contents":[{"parts":[{"text":"x"},{"ofNextYear":1}]}]}"#,
        true,
    ),
    (
        Gemini,
        r#"{"contents":[{"parts":[{"text":"https://a"}]}]}"#,
        false,
    ),
    (
        BedrockConverse,
        r#"{"messages":[{"content":[{"video":{}}]}]}"#,
        true,
    ),
    (
        BedrockConverse,
        r#"{"messages":[],"promptVariables":{"a":{"text":"b"}}}"#,
        true,
    ),
    (
        BedrockConverse,
        r#"{"messages":[{"content":[{"text":"x"}]}]}"#,
        false,
    ),
    (
        Cohere,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
        false,
    ),
    (Ollama, r#"{"model":"m","context":[1]}"#, true),
];

#[test]
fn input_that_these_bodies_do_not_show_is_seen_as_such() {
    for (kind, body, wanted) in UNSEEN.iter().copied() {
        assert_eq!(facts(kind, body).unwrap().unseen_input, wanted, "{kind:?} {body}");
    }
}
