//! Takes denied tool calls out of a chat completions reply.
//!
//! In: one chunk, or a whole reply, in which every call is decided. Out: the same without the denied ones: text in their
//! place, the others renumbered, and an end that says `stop` when no call is left. On failure: `Cannot`.

use serde_json::{Map, Value};

use crate::llm::reply::{At, Calls, Edit};

/// The place of the one call in `function_call`, the form of 2023.
pub(super) const LEGACY: u64 = u64::MAX;

/// The chunk or reply without its denied calls.
pub(super) fn without(mut event: Value, calls: &mut Calls) -> Edit {
    let Some(choices) = event.get_mut("choices").and_then(Value::as_array_mut) else {
        return Edit::Same;
    };
    let mut changed = false;
    for (position, choice) in (0..).zip(choices) {
        let number = choice.get("index").and_then(Value::as_u64).unwrap_or(position);
        for part in ["delta", "message"] {
            if let Some(answer) = choice.get_mut(part).and_then(Value::as_object_mut) {
                changed |= answer_without(answer, number, calls);
            }
        }
        let calling = matches!(
            choice.get("finish_reason").and_then(Value::as_str),
            Some("tool_calls" | "function_call")
        );
        if calling && calls.none_left(number) {
            if let Some(reason) = choice.get_mut("finish_reason") {
                *reason = Value::from("stop");
            }
            changed = true;
        }
    }
    if changed {
        Edit::Events(vec![event])
    } else {
        Edit::Same
    }
}

fn answer_without(answer: &mut Map<String, Value>, choice: u64, calls: &mut Calls) -> bool {
    let mut changed = false;
    let mut notes = Vec::new();
    if let Some(Value::Array(list)) = answer.get_mut("tool_calls") {
        let mut kept = Vec::with_capacity(list.len());
        for (position, mut call) in (0..).zip(std::mem::take(list)) {
            let index = call.get("index").and_then(Value::as_u64).unwrap_or(position);
            let at = At { choice, index };
            if calls.is_denied(at) {
                changed = true;
                notes.extend(calls.note(at));
                continue;
            }
            let before = calls.denied_before(at);
            if let Some(number) = call.get_mut("index").filter(|_| before > 0) {
                *number = Value::from(index.saturating_sub(before));
                changed = true;
            }
            kept.push(call);
        }
        if kept.is_empty() {
            answer.remove("tool_calls");
        } else {
            *list = kept;
        }
    }
    let at = At {
        choice,
        index: LEGACY,
    };
    if answer.get("function_call").is_some_and(|call| !call.is_null()) && calls.is_denied(at) {
        answer.remove("function_call");
        notes.extend(calls.note(at));
        changed = true;
    }
    if !notes.is_empty() {
        let before = answer.get("content").and_then(Value::as_str).unwrap_or_default();
        let mut text = before.to_owned();
        for note in notes {
            // What came before may stand in earlier chunks.
            text.push('\n');
            text.push_str(&note);
        }
        answer.insert("content".to_owned(), Value::from(text));
    }
    changed
}
