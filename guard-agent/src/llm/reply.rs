//! The part of reading a reply that all formats share: plain JSON or an event stream, cut anywhere.
//!
//! In: the reply's bytes. Out: the same bytes, without the one event that is to be hidden; facts at the end.
//! On failure: bytes pass, facts say unknown.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;

use crate::llm::sse::{Found, Scanner};
use crate::llm::{ReplyFacts, ReplyHead, ReplyReader, eventstream};

/// Largest plain JSON reply that is kept to be read at its end. A larger one passes and its usage is unknown.
pub(crate) const JSON_LIMIT: usize = 16 * 1024 * 1024;

/// Largest event that can be hidden, and so the most that is ever held back. Usage events have a few hundred bytes.
pub(crate) const HOLD_LIMIT: usize = 64 * 1024;

/// Most tool names kept from one reply.
const TOOL_LIMIT: usize = 256;

/// Longest tool name kept; both providers allow 128 characters or fewer.
const TOOL_NAME_LIMIT: usize = 256;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client gets it.
    Forward,
    /// It only says what the client did not ask for.
    UsageOnly,
}

/// What a format reads from a reply.
pub(crate) trait Format: Send {
    /// Takes the data of one event of a stream.
    fn event(&mut self, data: &[u8]) -> Verdict;
    /// Takes a whole plain JSON reply.
    fn whole(&mut self, body: &[u8]);
    /// Something could not be read, so what it said about usage is unknown.
    fn unread(&mut self);
    /// What was learnt.
    fn facts(&mut self) -> ReplyFacts;
}

/// Adds a tool's name, once, within bounds.
pub(crate) fn note_tool(tools: &mut Vec<String>, name: &str) {
    let known = tools.iter().any(|tool| tool == name);
    if !name.is_empty() && name.len() <= TOOL_NAME_LIMIT && tools.len() < TOOL_LIMIT && !known {
        tools.push(name.to_owned());
    }
}

/// How the reply comes.
enum Mode {
    /// Not clear from the head: the first byte decides.
    Undecided,
    /// One JSON value. `None`: it outgrew the limit.
    Json(Option<Vec<u8>>),
    /// An event stream.
    Events,
    /// Amazon's binary event stream.
    Binary,
}

/// The reader around a format.
pub(crate) struct Reader<F> {
    format: F,
    mode: Mode,
    failed: bool,
    scanner: Scanner,
    binary: eventstream::Scanner,
    /// The usage event is to be hidden.
    hide: bool,
    /// Bytes of the current event that are held back (only when hiding).
    held: BytesMut,
    /// Bytes of the current event that came in earlier chunks, held back or not.
    begun: usize,
    /// The event before was hidden.
    hid: bool,
}

impl<F: Format> Reader<F> {
    /// A reader for a reply that begins with `head`.
    pub(crate) fn new(format: F, head: &ReplyHead<'_>) -> Self {
        let media = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media = media.to_ascii_lowercase();
        let mode = if media.starts_with("text/event-stream") {
            Mode::Events
        } else if media.starts_with("application/vnd.amazon.eventstream") {
            Mode::Binary
        } else if media.starts_with("application/json") {
            Mode::Json(Some(Vec::new()))
        } else {
            Mode::Undecided
        };
        Self {
            format,
            mode,
            failed: !head.status.is_success(),
            scanner: Scanner::default(),
            binary: eventstream::Scanner::default(),
            hide: head.hide_usage_event,
            held: BytesMut::new(),
            begun: 0,
            hid: false,
        }
    }

    fn read(&mut self, found: Found<'_>) -> Verdict {
        match found {
            Found::Event(data) if data.is_empty() => Verdict::Forward,
            Found::Event(data) => self.format.event(&data),
            Found::Oversize => {
                self.format.unread();
                Verdict::Forward
            }
        }
    }

    /// Reads the events of a chunk; every byte is forwarded.
    fn pass_events(&mut self, chunk: &[u8]) {
        let mut scanner = std::mem::take(&mut self.scanner);
        let mut from = 0;
        while let Some(step) = scanner.next(chunk, from) {
            from = step.end;
            self.read(step.found);
        }
        self.scanner = scanner;
    }

    /// Reads the messages of a chunk; every byte is forwarded.
    fn pass_messages(&mut self, chunk: &[u8]) {
        let mut scanner = std::mem::take(&mut self.binary);
        let mut from = 0;
        while let Some(step) = scanner.next(chunk, from) {
            from = step.end;
            self.read(step.found);
        }
        self.binary = scanner;
    }

    /// Reads the events of a chunk and drops the usage event, which may have begun in an earlier chunk.
    fn hide_events(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.held.len() + chunk.len());
        let mut scanner = std::mem::take(&mut self.scanner);
        let mut start = 0;
        if scanner.owes_lf() && chunk.first() == Some(&b'\n') {
            // The second half of the CRLF that ended the event before shares that event's fate.
            start = 1;
            if !self.hid {
                out.extend_from_slice(b"\n");
            }
        }
        let mut from = 0;
        while let Some(step) = scanner.next(chunk, from) {
            let part = chunk.get(start..step.end).unwrap_or_default();
            let small = self.begun + part.len() <= HOLD_LIMIT;
            self.hid = self.read(step.found) == Verdict::UsageOnly && small;
            if self.hid {
                self.held.clear();
            } else {
                out.extend_from_slice(&self.held.split());
                out.extend_from_slice(part);
            }
            self.begun = 0;
            from = step.end;
            start = step.end;
        }
        let rest = chunk.get(start..).unwrap_or_default();
        self.begun += rest.len();
        if self.begun > HOLD_LIMIT {
            out.extend_from_slice(&self.held.split());
            out.extend_from_slice(rest);
        } else {
            self.held.extend_from_slice(rest);
        }
        self.scanner = scanner;
        out.freeze()
    }
}

impl<F: Format> ReplyReader for Reader<F> {
    fn feed(&mut self, chunk: Bytes) -> Bytes {
        if let Mode::Undecided = self.mode {
            match chunk.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => return chunk,
                Some(b'{' | b'[') => self.mode = Mode::Json(Some(Vec::new())),
                Some(_) => self.mode = Mode::Events,
            }
        }
        match &mut self.mode {
            Mode::Json(kept) => {
                if kept
                    .as_ref()
                    .is_some_and(|body| body.len() + chunk.len() > JSON_LIMIT)
                {
                    *kept = None;
                }
                if let Some(body) = kept {
                    body.extend_from_slice(&chunk);
                }
                chunk
            }
            Mode::Binary => {
                self.pass_messages(&chunk);
                chunk
            }
            _ if self.hide => self.hide_events(&chunk),
            _ => {
                self.pass_events(&chunk);
                chunk
            }
        }
    }

    fn finish(&mut self) -> (Bytes, ReplyFacts) {
        match std::mem::replace(&mut self.mode, Mode::Undecided) {
            Mode::Json(Some(body)) => self.format.whole(&body),
            Mode::Json(None) => self.format.unread(),
            Mode::Undecided => {}
            Mode::Binary if self.binary.inside_event() => self.format.unread(),
            Mode::Binary => {}
            Mode::Events => {
                if let Some(found) = self.scanner.take_rest() {
                    let verdict = self.read(found);
                    if self.hide && verdict == Verdict::UsageOnly && self.begun <= HOLD_LIMIT {
                        self.held.clear();
                    }
                }
            }
        }
        let mut facts = self.format.facts();
        facts.error |= self.failed;
        (self.held.split().freeze(), facts)
    }
}
