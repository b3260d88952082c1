//! OpenAI's side of chat completions, as <https://platform.openai.com/docs/api-reference/chat> has it.

use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Fault, Reply, Seen, Tokens, media, responses};

const CREATED: u64 = 1_790_000_000;

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let path = seen.path.split('?').next().unwrap_or_default();
    let media = media::answer(path, seen, reply).filter(|_| seen.method == Method::POST);
    if let Some(answer) = media {
        return named(answer, seen);
    }
    let answer = match (&seen.method, path) {
        (&Method::POST, "/v1/chat/completions") => completion(seen, reply),
        (&Method::POST, "/v1/responses") => responses::answer(seen, reply),
        (&Method::POST, "/v1/embeddings") => embedding(seen, reply),
        (&Method::POST, "/v1/completions") => continuation(seen, reply),
        (&Method::POST, "/v1/moderations") => Answer::json(
            200,
            json!({"id": "modr-lab", "model": "omni-moderation-latest", "results": [{
                "flagged": false, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}]}),
        ),
        (&Method::GET, "/v1/models") => Answer::json(
            200,
            json!({"object": "list", "data": [
                {"id": "gpt-5", "object": "model", "created": CREATED, "owned_by": "system"},
                {"id": "gpt-5-mini", "object": "model", "created": CREATED, "owned_by": "system"},
            ]}),
        ),
        (method, path) => error(
            404,
            "invalid_request_error",
            None,
            &format!("Invalid URL ({method} {path})"),
        ),
    };
    named(answer, seen)
}

pub(super) fn unauthorized(seen: &Seen) -> Answer {
    let shown: String = seen.credential().unwrap_or_default().chars().take(8).collect();
    let message = format!("Incorrect API key provided: {shown}***.");
    named(
        error(401, "invalid_request_error", Some("invalid_api_key"), &message),
        seen,
    )
}

fn named(mut answer: Answer, seen: &Seen) -> Answer {
    answer
        .headers
        .push(("x-request-id", format!("req_openai_{:04}", seen.number)));
    answer.headers.push(("openai-version", "2020-10-01".to_owned()));
    answer
}

fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Answer {
    Answer::json(
        status,
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
    )
}

fn completion(seen: &Seen, reply: &Reply) -> Answer {
    let request = seen.json();
    let Some(asked) = request["model"].as_str() else {
        return error(
            400,
            "invalid_request_error",
            None,
            "you must provide a model parameter",
        );
    };
    if let Fault::Status(status) = reply.fault {
        return error(
            status,
            "server_error",
            None,
            "The server had an error while processing your request.",
        );
    }
    let model = reply.model.clone().unwrap_or_else(|| asked.to_owned());
    let id = format!("chatcmpl-lab{:06}", seen.number);
    let content = if request["stream"].as_bool() == Some(true) {
        let counted = request["stream_options"]["include_usage"].as_bool() == Some(true);
        Content::Events(stream(&id, &model, reply, counted))
    } else {
        Content::Json(plain(&id, &model, reply))
    };
    let mut answer = Answer::json(200, Value::Null);
    answer.content = content;
    answer.billed_model = Some(model);
    answer
}

fn embedding(seen: &Seen, reply: &Reply) -> Answer {
    let model = seen.json()["model"].as_str().unwrap_or_default().to_owned();
    let mut answer = Answer::json(
        200,
        json!({
            "object": "list", "model": model,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
            "usage": {"prompt_tokens": reply.tokens.input, "total_tokens": reply.tokens.input},
        }),
    );
    answer.billed_model = Some(model);
    answer
}

/// The older completions: a prompt's continuation.
fn continuation(seen: &Seen, reply: &Reply) -> Answer {
    let request = seen.json();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    let part = |text: &str, finish: Value, usage: Value| {
        json!({"id": "cmpl-lab", "object": "text_completion", "created": CREATED, "model": model,
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": finish}], "usage": usage})
    };
    let counted = reply.stated().map_or(Value::Null, usage);
    let mut answer = Answer::json(200, Value::Null);
    answer.content = if request["stream"].as_bool() == Some(true) {
        let words = reply
            .words
            .iter()
            .map(|word| part(word, Value::Null, Value::Null));
        let last = part("", json!("stop"), Value::Null);
        let asked = request["stream_options"]["include_usage"].as_bool() == Some(true);
        let mut end = part("", Value::Null, counted);
        end["choices"] = json!([]);
        let all = words.chain([last]).chain(asked.then_some(end));
        let events = all.map(|event| format!("data: {event}\n\n"));
        Content::Events(events.chain(["data: [DONE]\n\n".to_owned()]).collect())
    } else {
        Content::Json(part(&reply.text(), json!("stop"), counted))
    };
    answer.billed_model = Some(model.clone());
    answer
}

fn plain(id: &str, model: &str, reply: &Reply) -> Value {
    let message = match &reply.tool {
        Some((name, arguments)) => json!({
            "role": "assistant", "content": null, "refusal": null, "tool_calls": [
                {"id": "call_lab01", "type": "function", "function": {"name": name, "arguments": arguments}}
            ]
        }),
        None => json!({"role": "assistant", "content": reply.text(), "refusal": null, "annotations": []}),
    };
    let mut body = json!({
        "id": id, "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish(reply)}],
        "service_tier": "default", "system_fingerprint": null,
    });
    if let Some(tokens) = reply.stated() {
        body["usage"] = usage(tokens);
    }
    body
}

fn stream(id: &str, model: &str, reply: &Reply, counted: bool) -> Vec<String> {
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut body = json!({
            "id": id, "object": "chat.completion.chunk", "created": CREATED, "model": model,
            "service_tier": "default", "system_fingerprint": null, "choices": choices,
        });
        // the field exists only in streams that were asked to count
        if counted {
            body["usage"] = usage.unwrap_or(Value::Null);
        }
        format!("data: {body}\n\n")
    };
    let choice = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    let mut events = Vec::new();
    if let Some((name, arguments)) = &reply.tool {
        let call = json!({"index": 0, "id": "call_lab01", "type": "function",
            "function": {"name": name, "arguments": ""}});
        let delta = json!({"role": "assistant", "content": null, "tool_calls": [call], "refusal": null});
        events.push(chunk(choice(delta, Value::Null), None));
        let part = json!({"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]});
        events.push(chunk(choice(part, Value::Null), None));
    } else {
        let first = json!({"role": "assistant", "content": "", "refusal": null});
        events.push(chunk(choice(first, Value::Null), None));
        for word in &reply.words {
            events.push(chunk(choice(json!({"content": word}), Value::Null), None));
        }
    }
    events.push(chunk(choice(json!({}), finish(reply).into()), None));
    if counted && let Some(tokens) = reply.stated() {
        events.push(chunk(json!([]), Some(usage(tokens))));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn finish(reply: &Reply) -> &'static str {
    if reply.tool.is_some() {
        "tool_calls"
    } else {
        "stop"
    }
}

fn usage(tokens: Tokens) -> Value {
    let prompt = tokens.input + tokens.cached;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": tokens.output,
        "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}
