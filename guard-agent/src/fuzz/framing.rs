//! How streams are cut into events.

use std::borrow::Cow;

use super::{alike, controls, pieces};
use crate::llm::eventstream;
use crate::llm::frames::{Frames, Lines};
use crate::llm::sse::{Found, Scanner};

/// Everything that a framing finds: data and the place behind it, in the whole stream.
fn found(frames: &mut dyn Frames, pieces: &[&[u8]]) -> Vec<(Option<Vec<u8>>, usize)> {
    let mut all = Vec::new();
    let mut before = 0;
    let owned = |found: Found<'_>| match found {
        Found::Event(data) => Some(data.into_owned()),
        Found::Oversize => None,
    };
    for piece in pieces {
        let mut from = 0;
        while let Some(step) = frames.next(piece, from) {
            assert!(
                step.end > from && step.end <= piece.len(),
                "a step that leads nowhere"
            );
            from = step.end;
            all.push((owned(step.found), before + step.end));
        }
        before += piece.len();
    }
    all.extend(frames.take_rest().map(|rest| (owned(rest), before)));
    all
}

fn data_only(found: &[(Option<Vec<u8>>, usize)]) -> Vec<Option<&[u8]>> {
    found.iter().map(|(data, _)| data.as_deref()).collect()
}

/// Server-sent events against the standard's own words (WHATWG HTML §9.2.6), line by line.
pub(super) fn sse(input: &[u8]) {
    let Some((&how, rest)) = input.split_first() else {
        return;
    };
    let whole = found(&mut Scanner::default(), &[rest]);
    let cut = found(&mut Scanner::default(), &pieces(rest, how));
    // Where an event ended between CR and LF, the LF is counted with it or not; what it says is the same.
    alike(&data_only(&whole), &data_only(&cut), "in pieces");
    let wanted = standard(rest);
    let told: Vec<&[u8]> = whole.iter().filter_map(|(data, _)| data.as_deref()).collect();
    let told: Vec<&[u8]> = told.into_iter().filter(|data| !data.is_empty()).collect();
    let wanted: Vec<&[u8]> = wanted
        .iter()
        .map(Vec::as_slice)
        .filter(|data| !data.is_empty())
        .collect();
    alike(&wanted, &told, "the standard says");
}

/// What the standard makes of a stream; an event at the end without its empty line counts too.
fn standard(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(stream);
    let mut text = Vec::with_capacity(stream.len());
    let mut bytes = stream.iter().peekable();
    while let Some(&byte) = bytes.next() {
        if byte == b'\r' {
            bytes.next_if(|next| **next == b'\n');
        }
        text.push(if byte == b'\r' { b'\n' } else { byte });
    }
    let mut events = Vec::new();
    let mut data: Option<Vec<u8>> = None;
    for line in text.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if field == b"data" {
            let joined = data.as_mut().map(|data| data.push(b'\n'));
            let data = data.get_or_insert_default();
            debug_assert!(joined.is_some() || data.is_empty());
            data.extend_from_slice(value);
        }
    }
    events.extend(data);
    events
}

/// Binary messages: arbitrary bytes, or (bit 0) sound messages around arbitrary payloads.
pub(super) fn event_stream(input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    let mut stream = Cow::Borrowed(rest);
    let mut wanted = Vec::new();
    if mode & 1 == 1 {
        let mut made = Vec::new();
        for (number, payload) in rest.split(|byte| *byte == b'\n').enumerate() {
            let name = if number % 2 == 0 {
                "delta"
            } else {
                "otherException"
            };
            let kind = if number % 2 == 0 {
                ":event-type"
            } else {
                ":exception-type"
            };
            made.extend(eventstream::encode(&[("x", "y"), (kind, name)], payload));
            let payload = if payload.is_empty() { b"{}" } else { payload };
            wanted.push(Some(
                [format!("{{\"{name}\":").as_bytes(), payload, b"}"].concat(),
            ));
        }
        stream = Cow::Owned(made);
    }
    let whole = found(&mut eventstream::Scanner::default(), &[&stream]);
    let cut = found(&mut eventstream::Scanner::default(), &pieces(&stream, how));
    alike(&data_only(&whole), &data_only(&cut), "in pieces");
    if mode & 1 == 1 {
        let told: Vec<Option<Vec<u8>>> = whole.into_iter().map(|(data, _)| data).collect();
        alike(&wanted, &told, "what was sent");
    }
}

/// Lines, each an event.
pub(super) fn lines(input: &[u8]) {
    let Some((&how, rest)) = input.split_first() else {
        return;
    };
    let whole = found(&mut Lines::default(), &[rest]);
    alike(
        &whole,
        &found(&mut Lines::default(), &pieces(rest, how)),
        "in pieces",
    );
    let mut wanted: Vec<Option<&[u8]>> = rest
        .split(|byte| *byte == b'\n')
        .map(|line| Some(line.trim_ascii()))
        .collect();
    // What stands behind the last end of a line is an event only if there is something.
    wanted.pop_if(|last| *last == Some(b""));
    alike(&wanted, &data_only(&whole), "the lines are");
}
