//! Amazon's side of Converse and InvokeModel, as <https://docs.aws.amazon.com/bedrock/latest/APIReference> has it.

use guard_agent::llm::eventstream::encode;
use http::Method;
use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let parts: Vec<&str> = seen.path.split('/').collect();
    let ["", "model", model, operation] = parts[..] else {
        return Answer::json(404, json!({"message": "no such operation"}));
    };
    if seen.method != Method::POST {
        return Answer::json(405, json!({"message": "no such method"}));
    }
    let mut answer = Answer::json(200, Value::Null);
    answer.content = match operation {
        "converse" => Content::Json(json!({
            "output": {"message": {"role": "assistant", "content": [block(reply)]}},
            "stopReason": stop(reply), "usage": usage(reply), "metrics": {"latencyMs": 5},
        })),
        "converse-stream" => Content::Frames(stream(reply)),
        "invoke" => Content::Json(claude(reply)),
        _ => return Answer::json(404, json!({"message": "no such operation"})),
    };
    answer
        .headers
        .push(("x-amzn-requestid", format!("lab-{:06}", seen.number)));
    answer.billed_model = Some(model.replace("%3A", ":"));
    answer
}

fn stop(reply: &Reply) -> &'static str {
    if reply.tool.is_some() {
        "tool_use"
    } else {
        "end_turn"
    }
}

fn input(reply: &Reply) -> Value {
    let arguments = reply.tool.as_ref().map(|(_, arguments)| arguments.as_str());
    serde_json::from_str(arguments.unwrap_or("{}")).unwrap_or_default()
}

fn block(reply: &Reply) -> Value {
    match &reply.tool {
        Some((name, _)) => json!({"toolUse": {"toolUseId": "tool_lab", "name": name, "input": input(reply)}}),
        None => json!({"text": reply.text()}),
    }
}

fn usage(reply: &Reply) -> Value {
    let tokens = reply.stated().unwrap_or_default();
    json!({
        "inputTokens": tokens.input, "outputTokens": tokens.output,
        "totalTokens": tokens.input + tokens.cached + tokens.cache_write + tokens.output,
        "cacheReadInputTokens": tokens.cached, "cacheWriteInputTokens": tokens.cache_write,
    })
}

/// The answer in Anthropic's own words.
fn claude(reply: &Reply) -> Value {
    let tokens = reply.stated().unwrap_or_default();
    let content = match &reply.tool {
        Some((name, _)) => json!({"type": "tool_use", "id": "tool_lab", "name": name, "input": input(reply)}),
        None => json!({"type": "text", "text": reply.text()}),
    };
    json!({
        "id": "msg_bdrk_lab", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001",
        "content": [content], "stop_reason": stop(reply), "stop_sequence": null,
        "usage": {"input_tokens": tokens.input, "output_tokens": tokens.output},
    })
}

fn stream(reply: &Reply) -> Vec<Vec<u8>> {
    let event = |kind: &str, payload: Value| {
        let headers = [
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ];
        encode(&headers, payload.to_string().as_bytes())
    };
    let mut events = vec![event("messageStart", json!({"role": "assistant"}))];
    if let Some((name, arguments)) = &reply.tool {
        let start = json!({"toolUse": {"toolUseId": "tool_lab", "name": name}});
        events.push(event(
            "contentBlockStart",
            json!({"start": start, "contentBlockIndex": 0}),
        ));
        let delta = json!({"toolUse": {"input": arguments}});
        events.push(event(
            "contentBlockDelta",
            json!({"delta": delta, "contentBlockIndex": 0}),
        ));
    } else {
        for word in &reply.words {
            events.push(event(
                "contentBlockDelta",
                json!({"delta": {"text": word}, "contentBlockIndex": 0}),
            ));
        }
    }
    events.push(event("contentBlockStop", json!({"contentBlockIndex": 0})));
    events.push(event("messageStop", json!({"stopReason": stop(reply)})));
    events.push(event(
        "metadata",
        json!({"usage": usage(reply), "metrics": {"latencyMs": 5}}),
    ));
    events
}
