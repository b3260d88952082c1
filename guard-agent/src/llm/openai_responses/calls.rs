//! Takes denied tool calls out of a response.
//!
//! In: one event, or a whole response, in which every call is decided. Out: the same without the denied ones: a message
//! in the place of each, or nothing and the others renumbered. On failure: `Cannot`.

use serde_json::{Value, json};

use crate::llm::reply::{At, Calls, Edit};

/// The event or response without its denied calls.
pub(super) fn without(mut event: Value, calls: &mut Calls) -> Edit {
    let kind = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if event.get("object").and_then(Value::as_str) == Some("response") {
        whole(&mut event, calls);
        return Edit::Events(vec![event]);
    }
    if let Some(response) = event.get_mut("response") {
        whole(response, calls);
        return Edit::Events(vec![event]);
    }
    let index = event.get("output_index").and_then(Value::as_u64);
    // A piece of a call whose place is not told is read as one of the first.
    let piece = ["item", "delta", "arguments", "input"]
        .iter()
        .any(|part| event.get(*part).is_some());
    let Some(index) = index.or(piece.then_some(0)) else {
        return Edit::Same;
    };
    let at = At { choice: 0, index };
    if calls.is_denied(at) {
        let place = index.saturating_sub(calls.stripped_before(at));
        return match (kind.as_str(), calls.note(at)) {
            ("response.output_item.added", Some(note)) => Edit::Events(said(&event, place, &note)),
            _ => Edit::Events(Vec::new()),
        };
    }
    let gone = calls.stripped_before(at);
    if gone == 0 {
        return Edit::Same;
    }
    if let Some(number) = event.get_mut("output_index") {
        *number = Value::from(index.saturating_sub(gone));
    }
    Edit::Events(vec![event])
}

/// The events of a message that stands in a call's place.
fn said(begun: &Value, index: u64, note: &str) -> Vec<Value> {
    let sequence = begun.get("sequence_number").cloned().unwrap_or_default();
    let id = format!("msg_guard_{index}");
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let item = |status: &str, content: Value| json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content});
    let event = |kind: &str, rest: Value| {
        let mut event = json!({"type": kind, "sequence_number": sequence, "output_index": index});
        if let (Some(event), Value::Object(rest)) = (event.as_object_mut(), rest) {
            event.extend(rest);
        }
        event
    };
    vec![
        event(
            "response.output_item.added",
            json!({"item": item("in_progress", json!([]))}),
        ),
        event(
            "response.content_part.added",
            json!({"item_id": id, "content_index": 0, "part": part("")}),
        ),
        event(
            "response.output_text.delta",
            json!({"item_id": id, "content_index": 0, "delta": note, "logprobs": []}),
        ),
        event(
            "response.output_text.done",
            json!({"item_id": id, "content_index": 0, "text": note, "logprobs": []}),
        ),
        event(
            "response.content_part.done",
            json!({"item_id": id, "content_index": 0, "part": part(note)}),
        ),
        event(
            "response.output_item.done",
            json!({"item": item("completed", json!([part(note)]))}),
        ),
    ]
}

/// The response without its denied calls.
pub(super) fn without_in_whole(mut response: Value, calls: &mut Calls) -> Edit {
    whole(&mut response, calls);
    Edit::Events(vec![response])
}

/// A response's own list of what it put out.
fn whole(response: &mut Value, calls: &mut Calls) {
    let Some(Value::Array(items)) = response.get_mut("output") else {
        return;
    };
    let mut kept = Vec::with_capacity(items.len());
    for (index, item) in (0..).zip(std::mem::take(items)) {
        let at = At { choice: 0, index };
        if !calls.is_denied(at) {
            kept.push(item);
        } else if let Some(note) = calls.message(at) {
            kept.push(json!({
                "id": format!("msg_guard_{index}"), "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": note, "annotations": []}],
            }));
        }
    }
    *items = kept;
}
