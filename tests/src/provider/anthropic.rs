//! Anthropic's side of messages, as <https://docs.anthropic.com/en/api/messages> has it.

use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Fault, Reply, Seen, Tokens};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let path = seen.path.split('?').next().unwrap_or_default();
    let answer = match (&seen.method, path) {
        (&Method::POST, "/v1/messages") => message(seen, reply),
        (&Method::POST, "/v1/messages/count_tokens") => {
            Answer::json(200, json!({"input_tokens": reply.tokens.input}))
        }
        (&Method::GET, "/v1/models") => Answer::json(
            200,
            json!({"data": [{"type": "model", "id": "claude-haiku-4-5", "display_name": "Claude Haiku 4.5",
                "created_at": "2025-10-01T00:00:00Z"}], "has_more": false, "first_id": null, "last_id": null}),
        ),
        _ => error(seen, 404, "not_found_error", "Not found"),
    };
    named(answer, seen)
}

pub(super) fn unauthorized(seen: &Seen) -> Answer {
    named(
        error(seen, 401, "authentication_error", "invalid x-api-key"),
        seen,
    )
}

fn request_id(seen: &Seen) -> String {
    format!("req_anthropic_{:04}", seen.number)
}

fn named(mut answer: Answer, seen: &Seen) -> Answer {
    answer.headers.push(("request-id", request_id(seen)));
    answer
}

fn error(seen: &Seen, status: u16, kind: &str, message: &str) -> Answer {
    Answer::json(
        status,
        json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id(seen)}),
    )
}

fn message(seen: &Seen, reply: &Reply) -> Answer {
    let request = seen.json();
    let (Some(asked), Some(_)) = (request["model"].as_str(), request["max_tokens"].as_u64()) else {
        return error(
            seen,
            400,
            "invalid_request_error",
            "model, max_tokens: Field required",
        );
    };
    match reply.fault {
        Fault::Status(529) => return error(seen, 529, "overloaded_error", "Overloaded"),
        Fault::Status(status) => return error(seen, status, "api_error", "Internal server error"),
        _ => {}
    }
    let model = reply.model.clone().unwrap_or_else(|| asked.to_owned());
    let id = format!("msg_lab{:06}", seen.number);
    let mut answer = Answer::json(200, Value::Null);
    answer.content = if request["stream"].as_bool() == Some(true) {
        Content::Events(stream(&id, &model, reply))
    } else {
        Content::Json(plain(&id, &model, reply))
    };
    answer.billed_model = Some(model);
    answer
}

fn plain(id: &str, model: &str, reply: &Reply) -> Value {
    let block = match &reply.tool {
        Some((name, arguments)) => {
            let input: Value = serde_json::from_str(arguments).unwrap_or_default();
            json!({"type": "tool_use", "id": "toolu_lab01", "name": name, "input": input})
        }
        None => json!({"type": "text", "text": reply.text()}),
    };
    let mut body = json!({
        "id": id, "type": "message", "role": "assistant", "model": model, "content": [block],
        "stop_reason": stop_reason(reply), "stop_sequence": null,
    });
    if let Some(tokens) = reply.stated() {
        body["usage"] = usage(tokens, tokens.output);
    }
    body
}

fn stream(id: &str, model: &str, reply: &Reply) -> Vec<String> {
    let event = |body: Value| {
        format!(
            "event: {}\ndata: {body}\n\n",
            body["type"].as_str().unwrap_or_default()
        )
    };
    let mut start = json!({
        "id": id, "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": null, "stop_sequence": null,
    });
    let stated = reply.stated();
    if let Some(tokens) = stated {
        // output is a placeholder here; the last message_delta has the total
        start["usage"] = usage(tokens, tokens.output.min(1));
    }
    let mut events = vec![event(json!({"type": "message_start", "message": start}))];
    let block = match &reply.tool {
        Some((name, _)) => json!({"type": "tool_use", "id": "toolu_lab01", "name": name, "input": {}}),
        None => json!({"type": "text", "text": ""}),
    };
    events.push(event(
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
    ));
    events.push(event(json!({"type": "ping"})));
    let deltas = match &reply.tool {
        Some((_, arguments)) => vec![json!({"type": "input_json_delta", "partial_json": arguments})],
        None => reply
            .words
            .iter()
            .map(|word| json!({"type": "text_delta", "text": word}))
            .collect(),
    };
    for delta in deltas {
        events.push(event(
            json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        ));
    }
    events.push(event(json!({"type": "content_block_stop", "index": 0})));
    let mut last = json!({
        "type": "message_delta", "delta": {"stop_reason": stop_reason(reply), "stop_sequence": null},
    });
    if let Some(tokens) = stated {
        last["usage"] = json!({"output_tokens": tokens.output});
    }
    events.push(event(last));
    events.push(event(json!({"type": "message_stop"})));
    events
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.tool.is_some() {
        "tool_use"
    } else {
        "end_turn"
    }
}

fn usage(tokens: Tokens, output: u64) -> Value {
    json!({
        "input_tokens": tokens.input,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": tokens.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    })
}
