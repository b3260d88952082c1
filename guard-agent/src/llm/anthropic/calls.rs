//! Takes denied tool calls out of a messages reply.
//!
//! In: one event, or a whole message, in which every call is decided. Out: the same without the denied ones: a text block
//! in the place of each, or nothing and the others renumbered; and an end that says `end_turn` when no call is left.
//! On failure: `Cannot`.

use serde_json::{Value, json};

use crate::llm::reply::{At, Calls, Edit};

/// The event or message without its denied calls.
pub(super) fn without(mut event: Value, calls: &mut Calls) -> Edit {
    let kind = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let index = event.get("index").and_then(Value::as_u64);
    let at = At {
        choice: 0,
        index: index.unwrap_or(0),
    };
    match kind.as_str() {
        "content_block_start" if calls.is_denied(at) => Edit::Events(start(at, calls)),
        "content_block_delta" if calls.is_denied(at) => Edit::Events(Vec::new()),
        "content_block_stop" if calls.is_stripped(at) => Edit::Events(Vec::new()),
        "content_block_start" | "content_block_delta" | "content_block_stop" => {
            let gone = calls.stripped_before(at);
            if gone == 0 {
                return Edit::Same;
            }
            if let Some(number) = event.get_mut("index") {
                *number = Value::from(at.index.saturating_sub(gone));
            }
            Edit::Events(vec![event])
        }
        // Whatever the event is called: what is in it was read as (more of) a call.
        _ if calls.is_denied(at)
            && (event.get("content_block").is_some_and(|block| !block.is_null())
                || event.pointer("/delta/partial_json").is_some()) =>
        {
            Edit::Events(Vec::new())
        }
        "message_delta" => {
            let stop = event
                .get_mut("delta")
                .and_then(|delta| delta.get_mut("stop_reason"));
            if ended(stop, calls) {
                Edit::Events(vec![event])
            } else {
                Edit::Same
            }
        }
        "message" => {
            whole(&mut event, calls);
            Edit::Events(vec![event])
        }
        // A head is without content; if one has some, what is denied in it was told at its place.
        "message_start" => {
            if let Some(message) = event.get_mut("message") {
                whole(message, calls);
            }
            Edit::Events(vec![event])
        }
        _ => match event.get_mut("message").filter(|message| message.is_object()) {
            Some(message) => {
                whole(message, calls);
                Edit::Events(vec![event])
            }
            None => Edit::Same,
        },
    }
}

/// The beginning of the text that stands in the call's place; nothing for one that is stripped.
fn start(at: At, calls: &mut Calls) -> Vec<Value> {
    let Some(note) = calls.note(at) else {
        return Vec::new();
    };
    let index = at.index.saturating_sub(calls.stripped_before(at));
    // Clients take the text from the delta: some drop what stands in the start.
    vec![
        json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": note}}),
    ]
}

/// The message without its denied calls.
pub(super) fn without_in_whole(mut message: Value, calls: &mut Calls) -> Edit {
    whole(&mut message, calls);
    Edit::Events(vec![message])
}

fn whole(message: &mut Value, calls: &mut Calls) {
    if let Some(Value::Array(blocks)) = message.get_mut("content") {
        let mut kept = Vec::with_capacity(blocks.len());
        for (index, block) in (0..).zip(std::mem::take(blocks)) {
            let at = At { choice: 0, index };
            if !calls.is_denied(at) {
                kept.push(block);
            } else if let Some(note) = calls.note(at) {
                kept.push(json!({"type": "text", "text": note}));
            }
        }
        *blocks = kept;
    }
    ended(message.get_mut("stop_reason"), calls);
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
