//! How a streamed reply is cut into events, whatever its framing.
//!
//! In: chunks of any size. Out: each event's data, and where in the chunk it ends. On failure: an event beyond the limit
//! is reported as oversize.

use std::borrow::Cow;

use serde_json::Value;

use crate::llm::eventstream;
use crate::llm::sse::{EVENT_LIMIT, Found, Scanner, Step};

/// One framing. One value per stream.
pub(crate) trait Frames: Send {
    /// Finds the end of the next event in `chunk` from offset `from` on. `None`: the rest of the chunk was taken in and
    /// the event goes on in the next one. Call again with `from = step.end` until `None`.
    fn next<'a>(&mut self, chunk: &'a [u8], from: usize) -> Option<Step<'a>>;
    /// The stream ended inside an event: what it holds so far.
    fn take_rest(&mut self) -> Option<Found<'static>>;
    /// Whether a first LF of the next chunk belongs to the event that ended last.
    fn owes_lf(&self) -> bool {
        false
    }
    /// The bytes that end an event which is under way, so that others can follow. `None`: nothing does.
    fn end_early(&self) -> Option<&'static [u8]>;
    /// An event with other data in the frame of the one whose bytes are `raw`; `name` is the new data's `type`.
    fn frame(&self, raw: &[u8], name: Option<&str>, data: &[u8]) -> Vec<u8>;
}

impl Frames for Scanner {
    fn next<'a>(&mut self, chunk: &'a [u8], from: usize) -> Option<Step<'a>> {
        Self::next(self, chunk, from)
    }

    fn take_rest(&mut self) -> Option<Found<'static>> {
        Self::take_rest(self)
    }

    fn owes_lf(&self) -> bool {
        Self::owes_lf(self)
    }

    fn end_early(&self) -> Option<&'static [u8]> {
        Some(b"\n\n")
    }

    /// With an `event:` line where the original has one.
    fn frame(&self, raw: &[u8], name: Option<&str>, data: &[u8]) -> Vec<u8> {
        let named = raw
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .any(|line| line.starts_with(b"event:"));
        sse_event(name.filter(|_| named), data)
    }
}

impl Frames for eventstream::Scanner {
    fn next<'a>(&mut self, chunk: &'a [u8], from: usize) -> Option<Step<'a>> {
        Self::next(self, chunk, from)
    }

    /// A message that is not whole says nothing.
    fn take_rest(&mut self) -> Option<Found<'static>> {
        self.inside_event().then_some(Found::Oversize)
    }

    /// Its length stands before it.
    fn end_early(&self) -> Option<&'static [u8]> {
        None
    }

    /// The data is a union: each member becomes an event of its name.
    fn frame(&self, _raw: &[u8], _name: Option<&str>, data: &[u8]) -> Vec<u8> {
        let members = match serde_json::from_slice(data) {
            Ok(Value::Object(members)) => members,
            _ => return Vec::new(),
        };
        let each = |(name, payload): (String, Value)| {
            let headers = [
                (":event-type", name.as_str()),
                (":content-type", "application/json"),
                (":message-type", "event"),
            ];
            eventstream::encode(&headers, payload.to_string().as_bytes())
        };
        members.into_iter().flat_map(each).collect()
    }
}

/// The media type of [`Lines`].
const NDJSON: &str = "application/x-ndjson";

/// Whether a reply of this media type is lines of JSON.
pub(crate) fn is_lines(media: &str) -> bool {
    media.starts_with(NDJSON)
}

/// Whether a reply of this media type comes event by event, so that it can be ended before its end.
pub(crate) fn is_stream(media: &str) -> bool {
    media.contains("stream") || is_lines(media)
}

/// Lines of JSON, each an event.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    oversize: bool,
}

impl Frames for Lines {
    fn next<'a>(&mut self, chunk: &'a [u8], from: usize) -> Option<Step<'a>> {
        let rest = chunk.get(from..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', rest) else {
            self.oversize |= self.partial.len() + rest.len() > EVENT_LIMIT;
            if self.oversize {
                self.partial = Vec::new();
            } else {
                self.partial.extend_from_slice(rest);
            }
            return None;
        };
        let line = rest.get(..at).unwrap_or_default();
        let end = from + at + 1;
        let found = if std::mem::take(&mut self.oversize) || self.partial.len() + line.len() > EVENT_LIMIT {
            self.partial = Vec::new();
            Found::Oversize
        } else if self.partial.is_empty() {
            Found::Event(Cow::Borrowed(line.trim_ascii()))
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(line);
            Found::Event(Cow::Owned(whole.trim_ascii().to_vec()))
        };
        Some(Step { found, end })
    }

    fn take_rest(&mut self) -> Option<Found<'static>> {
        if std::mem::take(&mut self.oversize) {
            return Some(Found::Oversize);
        }
        let rest = std::mem::take(&mut self.partial).trim_ascii().to_vec();
        (!rest.is_empty()).then_some(Found::Event(Cow::Owned(rest)))
    }

    fn end_early(&self) -> Option<&'static [u8]> {
        Some(b"\n")
    }

    fn frame(&self, _raw: &[u8], _name: Option<&str>, data: &[u8]) -> Vec<u8> {
        [data, b"\n"].concat()
    }
}

/// What ends a message in [`Messages`]: a byte that no text has in it.
pub(crate) const MESSAGE_END: u8 = 0xff;

/// Messages of a socket, each fed whole and ended with [`MESSAGE_END`].
#[derive(Debug, Default)]
pub(crate) struct Messages;

impl Frames for Messages {
    fn next<'a>(&mut self, chunk: &'a [u8], from: usize) -> Option<Step<'a>> {
        let rest = chunk.get(from..)?;
        let at = memchr::memchr(MESSAGE_END, rest)?;
        let found = match rest.get(..at) {
            Some(message) if at <= EVENT_LIMIT => Found::Event(Cow::Borrowed(message)),
            _ => Found::Oversize,
        };
        Some(Step {
            found,
            end: from + at + 1,
        })
    }

    fn take_rest(&mut self) -> Option<Found<'static>> {
        None
    }

    /// Each is fed whole.
    fn end_early(&self) -> Option<&'static [u8]> {
        Some(b"")
    }

    fn frame(&self, _raw: &[u8], _name: Option<&str>, data: &[u8]) -> Vec<u8> {
        message(data)
    }
}

/// One message, ended.
pub(crate) fn message(data: &[u8]) -> Vec<u8> {
    [data, &[MESSAGE_END]].concat()
}

/// One server-sent event.
pub(crate) fn sse_event(name: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 32);
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
    out
}
