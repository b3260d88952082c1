//! Arguments of a tool call, as hashes: equal, equal but for digits, close.
//!
//! In: the arguments as they stand in the body. Out: a [`Digest`]. On failure: what is not JSON, or is larger than is
//! taken apart, is hashed as text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::{Arguments, hash};

/// Largest text that is taken apart; a longer one is compared as it is written.
const PARSED: usize = 64 * 1024;
/// Bytes at the beginning and at the end of a text that its shape and sketch are made of.
const LOOKED_AT: usize = 16 * 1024;
/// Pairs of words that a sketch is made of.
const PAIRS: usize = 256;
/// Fewer pairs than this say little: such arguments have no sketch.
const FEWEST_PAIRS: usize = 16;
/// Bits in which two sketches may differ and still be close: one word of thirty changed moves about three.
pub(super) const CLOSE: u32 = 3;

/// Words that a tool that waits or polls has in its name.
const WAITING: [&str; 10] = [
    "wait",
    "sleep",
    "poll",
    "status",
    "watch",
    "monitor",
    "tail",
    "pending",
    "progress",
    "heartbeat",
];

/// One call's arguments.
pub(super) struct Digest {
    pub(super) exact: u64,
    pub(super) shape: u64,
    pub(super) sketch: Option<u64>,
    pub(super) waits: bool,
}

/// Takes the arguments apart.
pub(super) fn digest(arguments: &Arguments<'_>) -> Digest {
    let (raw, text): (&str, Cow<'_, str>) = match *arguments {
        Arguments::Json(raw) => (raw, Cow::Borrowed(raw)),
        Arguments::Quoted(raw) if raw.len() <= PARSED => {
            let inside = serde_json::from_str::<String>(raw);
            (raw, inside.map_or(Cow::Borrowed(raw), Cow::Owned))
        }
        Arguments::Quoted(raw) => (raw, Cow::Borrowed(raw)),
    };
    let parsed = (raw.len() <= PARSED)
        .then(|| serde_json::from_str::<Value>(&text).ok())
        .flatten();
    let text = parsed
        .as_ref()
        .map_or(text, |value| Cow::Owned(value.to_string()));
    let exact = parsed.as_ref().map_or_else(|| hash(&*text), canonical);
    let (head, tail) = ends(&text);
    Digest {
        exact,
        shape: shape(&text),
        sketch: sketch(words(head).chain(words(tail))),
        // Shell tools: the waiting is in the command.
        waits: words(head).any(|word| word == "sleep" || word == "wait"),
    }
}

/// Whether a tool's name says that it waits or polls.
pub(super) fn is_waiting(name: &str) -> bool {
    parts_of_name(name).any(|part| WAITING.contains(&part.to_ascii_lowercase().as_str()))
}

/// `checkBuildStatus`, `check_build_status` → check, build, status.
fn parts_of_name(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).flat_map(|part| {
        let mut begin = 0;
        let humps = part
            .char_indices()
            .skip(1)
            .filter(|(_, c)| c.is_ascii_uppercase());
        let ends: Vec<usize> = humps.map(|(at, _)| at).chain([part.len()]).collect();
        ends.into_iter().filter_map(move |end| {
            let piece = part.get(begin..end);
            begin = end;
            piece
        })
    })
}

/// Hashes a JSON value so that the order of names and the white space do not count.
fn canonical(value: &Value) -> u64 {
    fn walk(value: &Value, into: &mut DefaultHasher) {
        match value {
            Value::Null => 0_u8.hash(into),
            Value::Bool(bool) => (1_u8, bool).hash(into),
            Value::Number(number) => (2_u8, number.to_string()).hash(into),
            Value::String(text) => (3_u8, text).hash(into),
            Value::Array(items) => {
                (4_u8, items.len()).hash(into);
                items.iter().for_each(|item| walk(item, into));
            }
            Value::Object(members) => {
                // Sorted here, so that it does not hang on a feature of the JSON library.
                let sorted: BTreeMap<&String, &Value> = members.iter().collect();
                (5_u8, sorted.len()).hash(into);
                for (name, member) in sorted {
                    name.hash(into);
                    walk(member, into);
                }
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    walk(value, &mut hasher);
    hasher.finish()
}

/// A hash that leaves out digits, letter case, white space and punctuation.
pub(super) fn shape(text: &str) -> u64 {
    let (head, tail) = ends(text);
    let mut hasher = DefaultHasher::new();
    // How long it is counts by its order of magnitude only: the digits left out may be more or fewer.
    (text.len() > 2 * LOOKED_AT).hash(&mut hasher);
    for byte in head.bytes().chain(tail.bytes()) {
        if byte.is_ascii_alphabetic() || !byte.is_ascii() {
            byte.to_ascii_lowercase().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// The beginning and the end of a long text; the whole of a short one.
fn ends(text: &str) -> (&str, &str) {
    if text.len() <= 2 * LOOKED_AT {
        return (text, "");
    }
    let head = text.floor_char_boundary(LOOKED_AT);
    let tail = text.ceil_char_boundary(text.len() - LOOKED_AT);
    (
        text.get(..head).unwrap_or_default(),
        text.get(tail..).unwrap_or_default(),
    )
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Moses Charikar's similarity hash over pairs of neighbouring words: each pair votes on each bit.
fn sketch<'t>(words: impl Iterator<Item = &'t str>) -> Option<u64> {
    let words: Vec<&str> = words.collect();
    let count = words.len().saturating_sub(1);
    if count < FEWEST_PAIRS {
        return None;
    }
    // Spread over the whole text when there are more.
    let stride = count.div_ceil(PAIRS);
    let mut votes = [0_i32; 64];
    for pair in words.windows(2).step_by(stride) {
        let bits = hash(pair);
        for (bit, vote) in votes.iter_mut().enumerate() {
            *vote += if bits >> bit & 1 == 1 { 1 } else { -1 };
        }
    }
    let ones = votes.iter().enumerate().filter(|(_, vote)| **vote > 0);
    Some(ones.fold(0, |sketch, (bit, _)| sketch | 1 << bit))
}
