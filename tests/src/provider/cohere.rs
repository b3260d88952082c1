//! Cohere's side of chat and rerank, as <https://docs.cohere.com/reference/chat> and `…/rerank` have them.

use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    if seen.method == Method::POST && seen.path == "/v2/rerank" {
        return rerank(seen);
    }
    if seen.method != Method::POST || seen.path != "/v2/chat" {
        return Answer::json(404, json!({"message": "not found"}));
    }
    let request = seen.json();
    let mut answer = Answer::json(200, Value::Null);
    answer.content = if request["stream"].as_bool() == Some(true) {
        Content::Events(stream(reply))
    } else {
        let message = match &reply.tool {
            Some(_) => json!({"role": "assistant", "tool_plan": "", "tool_calls": [call(reply)]}),
            None => json!({"role": "assistant", "content": [{"type": "text", "text": reply.text()}]}),
        };
        Content::Json(
            json!({"id": "lab", "message": message, "finish_reason": finish(reply), "usage": usage(reply)}),
        )
    };
    answer.billed_model = request["model"].as_str().map(str::to_owned);
    answer
}

/// A search unit is a query with up to a hundred (short) documents; no tokens are told.
fn rerank(seen: &Seen) -> Answer {
    let request = seen.json();
    let documents = request["documents"].as_array().map_or(0, Vec::len);
    let result = |index| json!({"index": index, "relevance_score": 0.5});
    let mut answer = Answer::json(
        200,
        json!({"id": "lab", "results": (0..documents).map(result).collect::<Vec<_>>(),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": documents.div_ceil(100)}}}),
    );
    answer.billed_model = request["model"].as_str().map(str::to_owned);
    answer
}

pub(super) fn unauthorized() -> Answer {
    Answer::json(401, json!({"message": "invalid api token"}))
}

fn finish(reply: &Reply) -> &'static str {
    if reply.tool.is_some() {
        "TOOL_CALL"
    } else {
        "COMPLETE"
    }
}

fn call(reply: &Reply) -> Value {
    let (name, arguments) = reply.tool.clone().unwrap_or_default();
    json!({"id": "call_lab", "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// What is billed is less than what the model read.
fn usage(reply: &Reply) -> Value {
    let Some(tokens) = reply.stated() else {
        return Value::Null;
    };
    json!({
        "billed_units": {"input_tokens": tokens.input, "output_tokens": tokens.output},
        "tokens": {"input_tokens": tokens.input + 500, "output_tokens": tokens.output + 5},
    })
}

fn stream(reply: &Reply) -> Vec<String> {
    let event = |kind: &str, rest: Value| {
        let mut event = json!({"type": kind});
        if let (Some(event), Value::Object(rest)) = (event.as_object_mut(), rest) {
            event.extend(rest);
        }
        format!("event: {kind}\ndata: {event}\n\n")
    };
    let mut events = vec![event(
        "message-start",
        json!({"id": "lab", "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}}),
    )];
    if reply.tool.is_some() {
        let delta = json!({"message": {"tool_calls": call(reply)}});
        events.push(event("tool-call-start", json!({"index": 0, "delta": delta})));
        events.push(event("tool-call-end", json!({"index": 0})));
    } else {
        let content = |text: &str| json!({"message": {"content": {"type": "text", "text": text}}});
        events.push(event("content-start", json!({"index": 0, "delta": content("")})));
        for word in &reply.words {
            let delta = json!({"message": {"content": {"text": word}}});
            events.push(event("content-delta", json!({"index": 0, "delta": delta})));
        }
        events.push(event("content-end", json!({"index": 0})));
    }
    let delta = json!({"finish_reason": finish(reply), "usage": usage(reply)});
    events.push(event("message-end", json!({"id": "lab", "delta": delta})));
    events
}
