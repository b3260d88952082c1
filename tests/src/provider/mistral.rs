//! Mistral's side of chat completions, as <https://docs.mistral.ai/api> has it: OpenAI's format, with the usage in the
//! last chunk that has a choice, whoever asked for it, and a tool call whole in one chunk.

use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

const CREATED: u64 = 1_790_000_000;

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let request = seen.json();
    let path = seen.path.split('?').next().unwrap_or_default();
    if seen.method != Method::POST || path != "/v1/chat/completions" {
        return Answer::json(
            404,
            json!({"message": "no Route matched with those values", "request_id": "lab"}),
        );
    }
    let Some(model) = request["model"].as_str().map(str::to_owned) else {
        return Answer::json(
            422,
            json!({"object": "error", "message": "model: Field required", "type": "invalid_request_error", "code": null}),
        );
    };
    let mut answer = Answer::json(200, Value::Null);
    answer.content = if request["stream"].as_bool() == Some(true) {
        Content::Events(stream(&model, reply))
    } else {
        let mut body = base(&model, "chat.completion");
        body["choices"] = json!([{"index": 0, "message": message(reply), "finish_reason": finish(reply)}]);
        body["usage"] = usage(reply);
        Content::Json(body)
    };
    answer.billed_model = Some(model);
    answer
}

pub(super) fn unauthorized() -> Answer {
    Answer::json(401, json!({"detail": "Unauthorized"}))
}

fn base(model: &str, object: &str) -> Value {
    json!({"id": "cmpl-lab", "object": object, "created": CREATED, "model": model})
}

fn message(reply: &Reply) -> Value {
    match &reply.tool {
        Some((name, arguments)) => json!({"role": "assistant", "content": "", "tool_calls": [
            {"id": "labcall01", "function": {"name": name, "arguments": arguments}, "index": 0}
        ]}),
        None => json!({"role": "assistant", "content": reply.text(), "tool_calls": null}),
    }
}

fn finish(reply: &Reply) -> &'static str {
    if reply.tool.is_some() {
        "tool_calls"
    } else {
        "stop"
    }
}

fn usage(reply: &Reply) -> Value {
    let Some(tokens) = reply.stated() else {
        return Value::Null;
    };
    let prompt = tokens.input + tokens.cached;
    json!({
        "prompt_tokens": prompt, "completion_tokens": tokens.output, "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    })
}

fn stream(model: &str, reply: &Reply) -> Vec<String> {
    let chunk = |delta: Value, last: bool| {
        let mut body = base(model, "chat.completion.chunk");
        let finish = last.then(|| finish(reply));
        body["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        if last {
            body["usage"] = usage(reply);
        }
        format!("data: {body}\n\n")
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), false)];
    if reply.tool.is_some() {
        events.push(chunk(message(reply), true));
    } else {
        events.extend(
            reply
                .words
                .iter()
                .map(|word| chunk(json!({"content": word}), false)),
        );
        events.push(chunk(json!({"content": ""}), true));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}
