//! Takes denied tool calls out of a realtime response.
//!
//! In: one event in which every call is decided. Out: the same without the denied ones: a message in the place of each, or
//! nothing and the others renumbered. On failure: there is none.

use serde_json::{Value, json};

use super::reply::Places;
use crate::llm::reply::{At, Calls, Edit};

/// The event without its denied calls.
pub(super) fn without(mut event: Value, calls: &mut Calls, places: &mut Places) -> Edit {
    if let Some(response) = event.get_mut("response") {
        whole(response, calls, places);
        return Edit::Events(vec![event]);
    }
    let id = event.get("item").and_then(|item| item.get("id"));
    let id = id
        .or(event.get("item_id"))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let index = event.get("output_index").and_then(Value::as_u64);
    // A piece of a call whose place is not told is read as one of the first.
    let mut pieces = ["item", "delta", "arguments"].iter();
    if id.is_none() && index.is_none() && !pieces.any(|part| event.get(*part).is_some()) {
        return Edit::Same;
    }
    let at = places.of(id.as_deref(), index);
    if calls.is_denied(at) {
        let begins = event.get("type").and_then(Value::as_str) == Some("response.output_item.added");
        let place = at.index.saturating_sub(calls.stripped_before(at));
        return match calls.note(at).filter(|_| begins) {
            Some(note) => Edit::Events(said(&event, place, &note)),
            None => Edit::Events(Vec::new()),
        };
    }
    let gone = calls.stripped_before(At {
        choice: 0,
        index: index.unwrap_or(0),
    });
    match event.get_mut("output_index") {
        Some(number) if gone > 0 => {
            *number = Value::from(index.unwrap_or(0).saturating_sub(gone));
            Edit::Events(vec![event])
        }
        _ => Edit::Same,
    }
}

/// The id of what stands in a call's place.
fn stand_in(index: u64) -> String {
    format!("item_guard_{index}")
}

fn item(index: u64, status: &str, note: Option<&str>) -> Value {
    let content: Vec<Value> = note
        .map(|note| json!({"type": "text", "text": note}))
        .into_iter()
        .collect();
    json!({"id": stand_in(index), "object": "realtime.item", "type": "message", "role": "assistant", "status": status,
        "content": content})
}

/// The events of a message that stands in a call's place.
fn said(begun: &Value, index: u64, note: &str) -> Vec<Value> {
    let id = stand_in(index);
    let of = |name: &str| begun.get(name).cloned().unwrap_or_default();
    let event = |kind: &str, rest: Value| {
        let mut event = json!({"type": kind, "event_id": of("event_id"), "response_id": of("response_id"), "output_index": index});
        if let (Some(event), Value::Object(rest)) = (event.as_object_mut(), rest) {
            event.extend(rest);
        }
        event
    };
    let part = |text: &str| json!({"type": "text", "text": text});
    vec![
        event(
            "response.output_item.added",
            json!({"item": item(index, "in_progress", None)}),
        ),
        event(
            "response.content_part.added",
            json!({"item_id": id, "content_index": 0, "part": part("")}),
        ),
        event(
            "response.output_text.delta",
            json!({"item_id": id, "content_index": 0, "delta": note}),
        ),
        event(
            "response.output_text.done",
            json!({"item_id": id, "content_index": 0, "text": note}),
        ),
        event(
            "response.content_part.done",
            json!({"item_id": id, "content_index": 0, "part": part(note)}),
        ),
        event(
            "response.output_item.done",
            json!({"item": item(index, "completed", Some(note))}),
        ),
    ]
}

/// A response's own list of what it put out.
fn whole(response: &mut Value, calls: &Calls, places: &mut Places) {
    let Some(Value::Array(items)) = response.get_mut("output") else {
        return;
    };
    let mut kept = Vec::with_capacity(items.len());
    for (index, one) in (0..).zip(std::mem::take(items)) {
        let at = places.of(one.get("id").and_then(Value::as_str), Some(index));
        if !calls.is_denied(at) {
            kept.push(one);
        } else if let Some(note) = calls.message(at) {
            kept.push(item(index, "completed", Some(&note)));
        }
    }
    *items = kept;
}
