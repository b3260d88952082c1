//! Google's side of generateContent, as <https://ai.google.dev/api/generate-content> has it.

use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let versions = ["/v1beta/models/", "/v1/models/"];
    let Some((model, operation)) = versions
        .iter()
        .find_map(|base| path.strip_prefix(base))
        .and_then(|rest| rest.rsplit_once(':'))
        .filter(|_| seen.method == Method::POST)
    else {
        return error(
            404,
            "NOT_FOUND",
            &format!("no such method: {} {path}", seen.method),
        );
    };
    let mut answer = Answer::json(200, Value::Null);
    answer.content = match operation {
        "generateContent" => Content::Json(chunk(model, parts(reply, &reply.text()), reply, true)),
        "streamGenerateContent" => {
            let chunks = stream(model, reply);
            if query.split('&').any(|pair| pair == "alt=sse") {
                // Google separates its events with CRLF.
                Content::Events(
                    chunks
                        .iter()
                        .map(|chunk| format!("data: {chunk}\r\n\r\n"))
                        .collect(),
                )
            } else {
                Content::Json(Value::Array(chunks))
            }
        }
        "countTokens" => return Answer::json(200, json!({"totalTokens": 7})),
        _ => return error(404, "NOT_FOUND", "no such method"),
    };
    answer.billed_model = Some(model.to_owned());
    answer
}

pub(super) fn unauthorized() -> Answer {
    error(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
    )
}

fn error(code: u16, status: &str, message: &str) -> Answer {
    Answer::json(
        code,
        json!({"error": {"code": code, "message": message, "status": status}}),
    )
}

fn parts(reply: &Reply, text: &str) -> Value {
    match &reply.tool {
        Some((name, arguments)) => {
            let args: Value = serde_json::from_str(arguments).unwrap_or_default();
            json!([{"functionCall": {"name": name, "args": args}}])
        }
        None => json!([{"text": text}]),
    }
}

fn chunk(model: &str, parts: Value, reply: &Reply, last: bool) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    let mut chunk = json!({"candidates": [candidate], "modelVersion": model, "responseId": "lab"});
    if let Some(tokens) = reply.stated() {
        let (prompt, thoughts) = (tokens.input + tokens.cached, tokens.reasoning);
        let said = if last { tokens.output - thoughts } else { 1 };
        chunk["usageMetadata"] = json!({
            "promptTokenCount": prompt, "cachedContentTokenCount": tokens.cached,
            "candidatesTokenCount": said, "thoughtsTokenCount": thoughts,
            "totalTokenCount": prompt + said + thoughts,
        });
    }
    chunk
}

/// Running totals in every chunk, as the real one sends them.
fn stream(model: &str, reply: &Reply) -> Vec<Value> {
    if reply.tool.is_some() {
        return vec![chunk(model, parts(reply, ""), reply, true)];
    }
    let count = reply.words.len();
    let each =
        |(number, word): (usize, &String)| chunk(model, parts(reply, word), reply, number + 1 == count);
    reply.words.iter().enumerate().map(each).collect()
}
