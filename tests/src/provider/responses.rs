//! OpenAI's side of responses, as <https://platform.openai.com/docs/api-reference/responses> has it.

use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let request = seen.json();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    let id = format!("resp_lab{:06}", seen.number);
    let mut answer = Answer::json(200, Value::Null);
    answer.content = if request["stream"].as_bool() == Some(true) {
        Content::Events(stream(&id, &model, reply))
    } else {
        Content::Json(whole(&id, &model, reply, "completed"))
    };
    answer.billed_model = Some(model);
    answer
}

pub(super) fn whole(id: &str, model: &str, reply: &Reply, status: &str) -> Value {
    let done = status == "completed";
    let usage = reply.stated().filter(|_| done).map(|tokens| {
        let input = tokens.input + tokens.cached;
        json!({
            "input_tokens": input, "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output, "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": input + tokens.output,
        })
    });
    let output = if done {
        json!([item(reply, "completed")])
    } else {
        json!([])
    };
    json!({
        "id": id, "object": "response", "created_at": 1_790_000_000, "status": status, "error": null,
        "incomplete_details": null, "instructions": null, "max_output_tokens": null, "model": model,
        "output": output, "parallel_tool_calls": true, "previous_response_id": null, "store": true,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "truncation": "disabled",
        "service_tier": if done { "default" } else { "auto" }, "usage": usage, "metadata": {},
    })
}

fn item(reply: &Reply, status: &str) -> Value {
    let done = status == "completed";
    match &reply.tool {
        Some((name, arguments)) => json!({
            "id": "fc_lab", "type": "function_call", "call_id": "call_lab", "name": name, "status": status,
            "arguments": if done { arguments.as_str() } else { "" },
        }),
        None => {
            let content =
                json!([{"type": "output_text", "text": reply.text(), "annotations": [], "logprobs": []}]);
            json!({
                "id": "msg_lab", "type": "message", "role": "assistant", "status": status,
                "content": if done { content } else { json!([]) },
            })
        }
    }
}

pub(super) fn stream(id: &str, model: &str, reply: &Reply) -> Vec<String> {
    let mut events = Vec::new();
    let mut tell = |kind: &str, rest: Value| {
        let mut event = json!({"type": kind, "sequence_number": events.len()});
        if let (Some(event), Value::Object(rest)) = (event.as_object_mut(), rest) {
            event.extend(rest);
        }
        events.push(format!("event: {kind}\ndata: {event}\n\n"));
    };
    tell(
        "response.created",
        json!({"response": whole(id, model, reply, "in_progress")}),
    );
    tell(
        "response.output_item.added",
        json!({"output_index": 0, "item": item(reply, "in_progress")}),
    );
    if let Some((_, arguments)) = &reply.tool {
        tell(
            "response.function_call_arguments.delta",
            json!({"item_id": "fc_lab", "output_index": 0, "delta": arguments}),
        );
        tell(
            "response.function_call_arguments.done",
            json!({"item_id": "fc_lab", "output_index": 0, "arguments": arguments}),
        );
    } else {
        let place = json!({"item_id": "msg_lab", "output_index": 0, "content_index": 0});
        let with = |name: &str, value: Value| {
            let mut place = place.clone();
            place[name] = value;
            place
        };
        let part =
            |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
        tell("response.content_part.added", with("part", part("")));
        for word in &reply.words {
            let mut delta = with("delta", json!(word));
            delta["logprobs"] = json!([]);
            tell("response.output_text.delta", delta);
        }
        let mut text = with("text", json!(reply.text()));
        text["logprobs"] = json!([]);
        tell("response.output_text.done", text);
        tell("response.content_part.done", with("part", part(&reply.text())));
    }
    tell(
        "response.output_item.done",
        json!({"output_index": 0, "item": item(reply, "completed")}),
    );
    tell(
        "response.completed",
        json!({"response": whole(id, model, reply, "completed")}),
    );
    events
}
