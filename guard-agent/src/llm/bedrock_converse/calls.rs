//! Takes denied tool calls out of a Converse reply.
//!
//! In: one event (a union), or a whole reply, in which every call is decided. Out: the same without the denied ones: text
//! in the place of each, or nothing and the others renumbered; and an end that says `end_turn` when no call is left.
//! On failure: `Cannot`.

use serde_json::{Value, json};

use crate::llm::reply::{At, Calls, Edit};

/// The event or reply without its denied calls.
pub(super) fn without(mut event: Value, calls: &mut Calls) -> Edit {
    if event.get("output").is_some() {
        whole(&mut event, calls);
        return Edit::Events(vec![event]);
    }
    if let Some(stop) = event.get_mut("messageStop") {
        return if ended(stop.get_mut("stopReason"), calls) {
            Edit::Events(vec![event])
        } else {
            Edit::Same
        };
    }
    for name in ["contentBlockStart", "contentBlockDelta", "contentBlockStop"] {
        let Some(block) = event.get_mut(name) else {
            continue;
        };
        // As it is read where it is not told.
        let index = block
            .get("contentBlockIndex")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let at = At { choice: 0, index };
        let place = index.saturating_sub(calls.stripped_before(at));
        if calls.is_denied(at) {
            return match (name, calls.note(at)) {
                // A text has no start of its own in this format.
                ("contentBlockStart", Some(note)) => Edit::Events(vec![json!({
                    "contentBlockDelta": {"delta": {"text": note}, "contentBlockIndex": place}
                })]),
                ("contentBlockStop", _) if !calls.is_stripped(at) => moved(event, name, place),
                _ => Edit::Events(Vec::new()),
            };
        }
        return if place == index {
            Edit::Same
        } else {
            moved(event, name, place)
        };
    }
    Edit::Same
}

fn moved(mut event: Value, name: &str, place: u64) -> Edit {
    if let Some(number) = event
        .get_mut(name)
        .and_then(|block| block.get_mut("contentBlockIndex"))
    {
        *number = Value::from(place);
    }
    Edit::Events(vec![event])
}

fn whole(reply: &mut Value, calls: &mut Calls) {
    if let Some(Value::Array(blocks)) = reply.pointer_mut("/output/message/content") {
        let mut kept = Vec::with_capacity(blocks.len());
        for (index, block) in (0..).zip(std::mem::take(blocks)) {
            let at = At { choice: 0, index };
            if !calls.is_denied(at) {
                kept.push(block);
            } else if let Some(note) = calls.note(at) {
                kept.push(json!({"text": note}));
            }
        }
        *blocks = kept;
    }
    ended(reply.get_mut("stopReason"), calls);
}

/// Says `end_turn` where the reply ended for calls of which none is left.
fn ended(stop: Option<&mut Value>, calls: &Calls) -> bool {
    match stop {
        Some(reason) if reason.as_str() == Some("tool_use") && calls.none_left(0) => {
            *reason = Value::from("end_turn");
            true
        }
        _ => false,
    }
}
