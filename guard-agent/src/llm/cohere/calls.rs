//! Takes denied tool calls out of a reply of Cohere's.
//!
//! In: one event, or a whole reply, in which every call is decided. Out: the same without the denied ones: a text in
//! their place, or nothing and the others renumbered; and an end that says `COMPLETE` when no call is left. On failure:
//! `Cannot`.

use serde_json::{Value, json};

use crate::llm::reply::{At, Calls, Edit};

/// The event or reply without its denied calls.
pub(super) fn without(mut event: Value, calls: &mut Calls) -> Edit {
    let kind = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    // Whatever the event is called: what is in it was read as a call.
    let has_call = event
        .pointer("/delta/message/tool_calls")
        .is_some_and(|calls| !calls.is_null() && *calls != json!([]));
    match kind.as_str() {
        "tool-call-start" | "tool-call-delta" | "tool-call-end" => {}
        _ if has_call => {}
        "message-end" => {
            let reason = event.pointer_mut("/delta/finish_reason");
            return if ended(reason, calls) {
                Edit::Events(vec![event])
            } else {
                Edit::Same
            };
        }
        _ if event.get("message").is_some_and(Value::is_object) => {
            whole(&mut event, calls);
            return Edit::Events(vec![event]);
        }
        _ => return Edit::Same,
    }
    let index = event.get("index").and_then(Value::as_u64).unwrap_or(0);
    let at = At { choice: 0, index };
    if calls.is_denied(at) {
        return Edit::Events(calls.note(at).map_or_else(Vec::new, |note| said(index, &note)));
    }
    // A text stands beside the calls, not among them.
    let place = index.saturating_sub(calls.denied_before(at));
    if place == index {
        return Edit::Same;
    }
    if let Some(number) = event.get_mut("index") {
        *number = Value::from(place);
    }
    Edit::Events(vec![event])
}

fn said(index: u64, note: &str) -> Vec<Value> {
    let content = |text: &str| json!({"message": {"content": {"type": "text", "text": text}}});
    vec![
        json!({"type": "content-start", "index": index, "delta": content("")}),
        json!({"type": "content-delta", "index": index, "delta": {"message": {"content": {"text": note}}}}),
        json!({"type": "content-end", "index": index}),
    ]
}

/// The reply without its denied calls.
pub(super) fn without_in_whole(mut reply: Value, calls: &mut Calls) -> Edit {
    whole(&mut reply, calls);
    Edit::Events(vec![reply])
}

fn whole(reply: &mut Value, calls: &mut Calls) {
    let mut notes = Vec::new();
    if let Some(Value::Array(list)) = reply.pointer_mut("/message/tool_calls") {
        let mut kept = Vec::with_capacity(list.len());
        for (index, call) in (0..).zip(std::mem::take(list)) {
            let at = At { choice: 0, index };
            if calls.is_denied(at) {
                notes.extend(calls.note(at));
            } else {
                kept.push(call);
            }
        }
        *list = kept;
    }
    if let Some(Value::Object(message)) = reply.get_mut("message")
        && !notes.is_empty()
    {
        let texts = notes.iter().map(|note| json!({"type": "text", "text": note}));
        match message.get_mut("content") {
            Some(Value::Array(content)) => content.extend(texts),
            _ => drop(message.insert("content".to_owned(), texts.collect())),
        }
    }
    ended(reply.get_mut("finish_reason"), calls);
}

/// Says `COMPLETE` where the reply ended for calls of which none is left.
fn ended(reason: Option<&mut Value>, calls: &Calls) -> bool {
    match reason {
        Some(reason) if reason.as_str() == Some("TOOL_CALL") && calls.none_left(0) => {
            *reason = Value::from("COMPLETE");
            true
        }
        _ => false,
    }
}
