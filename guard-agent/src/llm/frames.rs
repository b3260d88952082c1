//! How a streamed reply is cut into events, whatever its framing.
//!
//! In: chunks of any size. Out: each event's data, and where in the chunk it ends. On failure: an event beyond the limit
//! is reported as oversize.

use crate::llm::sse::{Found, Scanner, Step};

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

    /// With an `event:` line where the original has one.
    fn frame(&self, raw: &[u8], name: Option<&str>, data: &[u8]) -> Vec<u8> {
        let named = raw
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .any(|line| line.starts_with(b"event:"));
        sse_event(name.filter(|_| named), data)
    }
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
