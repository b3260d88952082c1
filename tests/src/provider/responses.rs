//! OpenAI's side of responses, as <https://platform.openai.com/docs/api-reference/responses> has it.

use serde_json::{Value, json};

use super::outcome::Content;
use super::{Answer, Reply, Seen};

pub(super) fn answer(seen: &Seen, reply: &Reply) -> Answer {
    let request = seen.json();
    let model = request["model"].as_str().unwrap_or_default().to_owned();
    let id = format!("resp_lab{:06}", seen.number);
    let tool = called(&request, reply);
    let mut answer = Answer::json(200, Value::Null);
    answer.content = if request["stream"].as_bool() == Some(true) {
        Content::Events(stream(&id, &model, reply, tool))
    } else {
        Content::Json(whole(&id, &model, reply, tool, "completed"))
    };
    answer.billed_model = Some(model);
    answer
}

/// A call of a tool: with JSON arguments, or with free text where the request declares a custom tool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    name: &'a str,
    input: &'a str,
    custom: bool,
}

/// The call that the script asks for, as the request wants it.
pub(super) fn called<'a>(request: &Value, reply: &'a Reply) -> Option<Call<'a>> {
    let (name, input) = reply.tool.as_ref()?;
    let custom = is_custom(request, name);
    Some(Call { name, input, custom })
}

impl Call<'_> {
    /// Its item, event and field.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        if self.custom {
            ("custom_tool_call", "response.custom_tool_call_input", "input")
        } else {
            ("function_call", "response.function_call_arguments", "arguments")
        }
    }
}

/// Whether a custom tool of this name is declared anywhere in the request: clients nest them in namespaces and items.
fn is_custom(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|value| is_custom(value, name)),
        Value::Object(map) => {
            let here = value["type"] == "custom" && value["name"] == name;
            here || map.values().any(|value| is_custom(value, name))
        }
        _ => false,
    }
}

pub(super) fn whole(id: &str, model: &str, reply: &Reply, tool: Option<Call<'_>>, status: &str) -> Value {
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
        json!([item(reply, tool, "completed")])
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

fn item(reply: &Reply, tool: Option<Call<'_>>, status: &str) -> Value {
    let done = status == "completed";
    match tool {
        Some(call) => {
            let (kind, _, field) = call.words();
            json!({
                "id": "fc_lab", "type": kind, "call_id": "call_lab", "name": call.name, "status": status,
                field: if done { call.input } else { "" },
            })
        }
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

pub(super) fn stream(id: &str, model: &str, reply: &Reply, tool: Option<Call<'_>>) -> Vec<String> {
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
        json!({"response": whole(id, model, reply, tool, "in_progress")}),
    );
    tell(
        "response.output_item.added",
        json!({"output_index": 0, "item": item(reply, tool, "in_progress")}),
    );
    if let Some(call) = tool {
        let (_, event, field) = call.words();
        tell(
            &format!("{event}.delta"),
            json!({"item_id": "fc_lab", "output_index": 0, "delta": call.input}),
        );
        tell(
            &format!("{event}.done"),
            json!({"item_id": "fc_lab", "output_index": 0, field: call.input}),
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
        json!({"output_index": 0, "item": item(reply, tool, "completed")}),
    );
    tell(
        "response.completed",
        json!({"response": whole(id, model, reply, tool, "completed")}),
    );
    events
}
