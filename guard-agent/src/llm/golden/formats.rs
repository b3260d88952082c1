//! Golden tests of the formats whose path says something about the call, whose streams are not text, or that have no
//! streams: the same as in `golden`, with the path that each takes. `NAME.reply.events` is a binary stream: an event a
//! line, `EVENT JSON`; `EVENT*JSON` wraps the payload in `bytes`; `!NAME JSON` is an exception.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

use super::{read_as, snapshot};
use crate::llm::DialectKind::{
    self, AnthropicVertex, BedrockConverse, BedrockInvoke, Cohere, Embeddings, Gemini, Ollama,
    OpenaiCompletions, OpenaiResponses,
};
use crate::llm::conversation::Sign;
use crate::llm::provider::dialect_of;
use crate::llm::{BodyEdits, EndpointKind, Malformed, Place, ReplyFacts, RequestFacts, eventstream};

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
        model: None,
        tail: tail.to_owned(),
    }
}

pub(super) fn facts_at(kind: DialectKind, tail: &str, body: &[u8]) -> Result<RequestFacts, Malformed> {
    dialect_of(kind).request_at(&place(tail), body)
}

fn facts(kind: DialectKind, body: &str) -> Result<RequestFacts, Malformed> {
    let (_, tail) = FORMATS.into_iter().find(|(one, _)| *one == kind).unwrap();
    facts_at(kind, tail, body.as_bytes())
}

/// The fixtures of one format whose names end so, sorted.
fn fixtures(kind: DialectKind, ending: &str) -> Vec<(String, Vec<u8>)> {
    let dir = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/llm/golden")
        .join(kind.label());
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((name, std::fs::read(&path).unwrap()))
        })
        .collect();
    all.sort();
    all
}

/// The binary stream that a fixture describes.
fn binary(lines: &[u8]) -> Vec<u8> {
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

fn read_framed(kind: DialectKind, media: &'static str, pieces: &[&[u8]]) -> (Vec<u8>, ReplyFacts) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    read_as(dialect_of(kind), &headers, false, pieces)
}

/// The media type of the binary framing.
const BINARY: &str = "application/vnd.amazon.eventstream";

/// The endings of fixtures, each with its media type.
const ENDINGS: [(&str, &str); 4] = [
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
                let body = if media == BINARY {
                    binary(&fixture)
                } else {
                    fixture
                };
                let (out, facts) = read_framed(kind, media, &[&body]);
                assert_eq!(out, body, "{name}");
                snapshot(kind, &format!("{name}{ending}"), &facts);
                for at in 0..=body.len() {
                    let (head, tail) = body.split_at(at);
                    let cut = read_framed(kind, media, &[head, tail]);
                    assert!(cut == (body.clone(), facts.clone()), "{kind:?} {name} at {at}");
                }
                count += 1;
            }
        }
        assert!(count > 0, "{kind:?}");
    }
}

#[test]
fn a_binary_stream_that_ends_inside_a_message_leaves_usage_unknown() {
    let (_, lines) = fixtures(BedrockConverse, ".reply.events").pop().unwrap();
    let body = binary(&lines);
    let (_, facts) = read_framed(BedrockConverse, BINARY, &[&body[..body.len() - 1]]);
    assert!(facts.usage.is_none() && !facts.complete, "{facts:?}");
}

#[test]
fn endpoints_of_each_format() {
    use EndpointKind::{CountTokens, Free, Inference, Models, Other, Unpriced};
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
        (Cohere, post, "/v2/rerank", Unpriced),
        (Cohere, post, "/v1/chat", Other),
        (Cohere, get, "/v1/models", Models),
        (Ollama, post, "/api/generate", Inference),
        (Ollama, post, "/api/pull", Other),
        (Ollama, get, "/api/tags", Models),
        (Embeddings, post, "/v1/embeddings", Inference),
        (Embeddings, post, "/v1/rerank", Unpriced),
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
        (DialectKind::Media, post, "/v1/images/generations", Unpriced),
        (DialectKind::Media, post, "/v1/audio/speech", Unpriced),
        (DialectKind::Media, post, "/v1/moderations", Free),
    ] {
        assert_eq!(
            dialect_of(kind).endpoint(method, path),
            wanted,
            "{kind:?} {method} {path}"
        );
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
        tail: "/chat/completions".to_owned(),
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
