//! Takes denied function calls out of a Gemini reply.
//!
//! In: one chunk, a whole reply, or a list of chunks, in which every call is decided. Out: the same with a text in the
//! place of each denied call, or nothing. On failure: there is none.

use serde_json::{Value, json};

use crate::llm::gemini::usage::Places;
use crate::llm::reply::{Calls, Edit};

/// The chunk or reply without its denied calls. Chunks come in the order in which they were read, so calls are counted
/// again as they were then.
pub(super) fn without(mut event: Value, calls: &mut Calls, places: &mut Places) -> Edit {
    let changed = match &mut event {
        Value::Array(chunks) => chunks.iter_mut().fold(false, |changed, chunk| {
            chunk_without(chunk, calls, places) | changed
        }),
        chunk => chunk_without(chunk, calls, places),
    };
    if changed {
        Edit::Events(vec![event])
    } else {
        Edit::Same
    }
}

fn chunk_without(chunk: &mut Value, calls: &mut Calls, places: &mut Places) -> bool {
    let Some(Value::Array(candidates)) = chunk.get_mut("candidates") else {
        return false;
    };
    let mut changed = false;
    for (position, candidate) in (0..).zip(candidates) {
        let choice = candidate.get("index").and_then(Value::as_u64).unwrap_or(position);
        let Some(Value::Array(parts)) = candidate
            .get_mut("content")
            .and_then(|content| content.get_mut("parts"))
        else {
            continue;
        };
        let mut kept = Vec::with_capacity(parts.len());
        for part in std::mem::take(parts) {
            let Some(call) = part.get("functionCall").filter(|call| !call.is_null()) else {
                kept.push(part);
                continue;
            };
            let goes_on = call.get("willContinue").and_then(Value::as_bool) == Some(true);
            let at = places.next(choice, call.get("name").and_then(Value::as_str), goes_on);
            if !calls.is_denied(at) {
                kept.push(part);
                continue;
            }
            changed = true;
            if let Some(note) = calls.note(at) {
                kept.push(json!({"text": note}));
            }
        }
        // A client may expect a part where the model has said something.
        if kept.is_empty() {
            kept.push(json!({"text": ""}));
        }
        *parts = kept;
    }
    changed
}
