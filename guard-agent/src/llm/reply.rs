//! The part of reading a reply that all formats share: plain JSON or a stream of events, cut anywhere.
//!
//! In: the reply's bytes. Out: the same bytes, without the one event that is to be hidden and without the tool calls
//! that the gate denies; facts at the end. On failure: without a gate bytes pass and the facts say unknown; with one,
//! what cannot be read does not pass.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::llm::eventstream;
use crate::llm::frames::Frames;
use crate::llm::gate::Unjudged;
use crate::llm::sse::{EVENT_LIMIT, Found, Scanner};
use crate::llm::values::few_values;
use crate::llm::{ReplyFacts, ReplyHead, ReplyReader, Seen};
use crate::refusal::Refusal;

pub(crate) mod calls;
mod format;
mod mode;
mod pass;
mod whole;

pub(crate) use calls::{At, Calls};
pub(crate) use format::{Edit, Format, Verdict};
use mode::{Fate, Mode};

/// Largest plain JSON reply that is kept to be read at its end. A larger one passes and its usage is unknown; under a
/// gate it does not pass.
pub(crate) const JSON_LIMIT: usize = 16 * 1024 * 1024;

/// Largest event that can be hidden, and so the most that is held back to hide one. Usage events have a few hundred
/// bytes.
pub(crate) const HOLD_LIMIT: usize = 64 * 1024;

/// Most bytes of events that are held back while a call in them is undecided.
const QUEUE_LIMIT: usize = 8 * 1024 * 1024;

/// The reader around a format.
pub(crate) struct Reader<F> {
    format: F,
    mode: Mode,
    failed: bool,
    frames: Box<dyn Frames>,
    /// The usage event is to be hidden.
    hide: bool,
    calls: Calls,
    /// Bytes of the current event that are held back.
    held: BytesMut,
    /// The head says that this is a stream of events.
    framed: bool,
    /// A part of the current event has been forwarded.
    spilled: bool,
    /// Bytes of the current event that came in earlier chunks, held back or not.
    begun: usize,
    last: Fate,
    /// Events that wait for a call to be judged: their bytes and their data.
    queue: Vec<(Vec<u8>, Vec<u8>)>,
    queued: usize,
    /// The client has its last byte.
    stopped: bool,
    /// Why the whole reply was replaced.
    replaced: Option<Refusal>,
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
        let frames = format.frames(&media);
        let framed = frames.is_some() || media.starts_with("text/event-stream");
        let mode = if framed {
            Mode::Events
        } else if media.starts_with("application/json") {
            Mode::Json(Some(Vec::new()))
        } else {
            Mode::Undecided
        };
        // The provider's own error holds no call.
        let gate = head.gate.filter(|_| head.status.is_success()).cloned();
        Self {
            frames: frames.unwrap_or_else(|| Box::new(Scanner::default())),
            format,
            mode,
            failed: !head.status.is_success(),
            hide: head.hide_usage_event,
            calls: Calls::new(gate),
            held: BytesMut::new(),
            framed,
            spilled: false,
            begun: 0,
            last: Fate::Forwarded,
            queue: Vec::new(),
            queued: 0,
            stopped: false,
            replaced: None,
        }
    }

    fn read(&mut self, found: &Found<'_>) -> Verdict {
        match found {
            Found::Event(data) if data.is_empty() => Verdict::Forward,
            Found::Event(data) => self.format.event(data, &mut self.calls),
            Found::Oversize => {
                self.format.unread();
                Verdict::Unreadable
            }
        }
    }

    /// Reads the events of a chunk and forwards those that may pass; one may have begun in an earlier chunk.
    fn sift_events(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.held.len() + chunk.len());
        let mut frames = std::mem::replace(&mut self.frames, Box::new(Scanner::default()));
        let limit = if self.calls.gate().is_some() {
            usize::MAX
        } else {
            HOLD_LIMIT
        };
        let mut start = 0;
        if frames.owes_lf() && chunk.first() == Some(&b'\n') {
            // The second half of the CRLF that ended the event before shares that event's fate.
            start = 1;
            match (self.last, self.queue.last_mut()) {
                _ if self.stopped => {}
                (Fate::Forwarded, _) => out.extend_from_slice(b"\n"),
                (Fate::Queued, Some((raw, _))) => raw.push(b'\n'),
                (Fate::Queued | Fate::Dropped, _) => {}
            }
        }
        let mut from = 0;
        while let Some(step) = frames.next(chunk, from) {
            let part = chunk.get(start..step.end).unwrap_or_default();
            let small = self.begun + part.len() <= HOLD_LIMIT;
            let verdict = self.read(&step.found);
            self.held.extend_from_slice(part);
            let raw = self.held.split();
            let hidden = self.hide && verdict == Verdict::UsageOnly && small;
            self.last = if hidden || self.stopped {
                Fate::Dropped
            } else {
                self.place(frames.as_ref(), &raw, &step.found, verdict, &mut out)
            };
            (self.begun, self.spilled) = (0, false);
            from = step.end;
            start = step.end;
        }
        let rest = chunk.get(start..).unwrap_or_default();
        self.begun = self.begun.saturating_add(rest.len());
        if self.stopped || (limit == usize::MAX && self.begun > EVENT_LIMIT) {
            // The framing reports such an event as oversize, and then it is dropped anyway.
            self.held.clear();
        } else if self.begun > limit {
            out.extend_from_slice(&self.held.split());
            out.extend_from_slice(rest);
            self.spilled = true;
        } else {
            self.held.extend_from_slice(rest);
        }
        self.frames = frames;
        out.freeze()
    }

    /// Forwards, queues, edits or drops one event that was read.
    fn place(
        &mut self,
        frames: &dyn Frames,
        raw: &[u8],
        found: &Found<'_>,
        verdict: Verdict,
        out: &mut BytesMut,
    ) -> Fate {
        let data: &[u8] = match found {
            Found::Event(data) => data,
            Found::Oversize => b"",
        };
        let Some(gate) = self.calls.gate().cloned() else {
            out.extend_from_slice(raw);
            return Fate::Forwarded;
        };
        if data.is_empty() && matches!(found, Found::Event(_)) {
            // A comment keeps the connection alive; nothing is in it, so it need not wait.
            out.extend_from_slice(raw);
            return Fate::Forwarded;
        }
        if verdict == Verdict::Unreadable {
            let refusal = gate.unjudged(Unjudged::Reply).refusal;
            out.extend_from_slice(&self.cut(&refusal, gate.request_id()));
            return Fate::Dropped;
        }
        if let Some(refusal) = self.calls.fatal().cloned() {
            out.extend_from_slice(&self.cut(&refusal, gate.request_id()));
            return Fate::Dropped;
        }
        if self.calls.undecided() {
            self.queued += raw.len() + data.len();
            self.queue.push((raw.to_vec(), data.to_vec()));
            if self.queued <= QUEUE_LIMIT {
                return Fate::Queued;
            }
            self.calls.deny_undecided();
            self.flush(frames, out);
            return Fate::Dropped;
        }
        self.flush(frames, out);
        self.emit(frames, raw, data, out)
    }

    /// Sends what was queued: every call in it is decided.
    fn flush(&mut self, frames: &dyn Frames, out: &mut BytesMut) {
        self.queued = 0;
        for (raw, data) in std::mem::take(&mut self.queue) {
            self.emit(frames, &raw, &data, out);
        }
    }

    fn emit(&mut self, frames: &dyn Frames, raw: &[u8], data: &[u8], out: &mut BytesMut) -> Fate {
        if self.stopped {
            return Fate::Dropped;
        }
        let edit = if !self.calls.any_denied() {
            Edit::Same
        } else if !few_values(data) {
            Edit::Cannot
        } else if let Ok(event) = serde_json::from_slice(data) {
            self.format.without(event, &mut self.calls)
        } else if data.trim_ascii() == b"[DONE]" {
            Edit::Same
        } else {
            // A format passes over what it does not need (deeper nesting, other bytes than UTF-8), so it could read this.
            Edit::Cannot
        };
        match edit {
            Edit::Same => {
                out.extend_from_slice(raw);
                Fate::Forwarded
            }
            Edit::Events(events) => {
                for event in events {
                    let name = event.get("type").and_then(Value::as_str);
                    let data = event.to_string();
                    out.extend_from_slice(&frames.frame(raw, name, data.as_bytes()));
                }
                Fate::Dropped
            }
            Edit::Cannot => {
                if let Some(gate) = self.calls.gate().cloned() {
                    let refusal = gate.unjudged(Unjudged::Call).refusal;
                    out.extend_from_slice(&self.cut(&refusal, gate.request_id()));
                }
                Fate::Dropped
            }
        }
    }

    /// The stream ended: what is left of it, and what still waited.
    fn end_events(&mut self) -> Bytes {
        let rest = self.frames.take_rest();
        let verdict = rest.as_ref().map(|found| self.read(found));
        if self.calls.gate().is_none() {
            if self.hide && verdict == Some(Verdict::UsageOnly) && self.begun <= HOLD_LIMIT {
                self.held.clear();
            }
            return self.held.split().freeze();
        }
        let mut out = BytesMut::new();
        let frames = std::mem::replace(&mut self.frames, Box::new(Scanner::default()));
        self.calls.end_all();
        let raw = self.held.split();
        match (rest, verdict) {
            (Some(found), Some(verdict)) if !(self.stopped || self.hide && verdict == Verdict::UsageOnly) => {
                self.place(frames.as_ref(), &raw, &found, verdict, &mut out);
            }
            _ => {}
        }
        if let (Some(refusal), Some(gate), false) = (
            self.calls.fatal().cloned(),
            self.calls.gate().cloned(),
            self.stopped,
        ) {
            out.extend_from_slice(&self.cut(&refusal, gate.request_id()));
        }
        self.flush(frames.as_ref(), &mut out);
        out.freeze()
    }
}

impl<F: Format> ReplyReader for Reader<F> {
    fn feed(&mut self, mut chunk: Bytes) -> Bytes {
        let mut white = Bytes::new();
        if let Mode::Undecided = self.mode {
            let begins = chunk.iter().position(|byte| !byte.is_ascii_whitespace());
            // It says nothing, so it is no part of what is read, whether it comes by itself or not; and it is not held back
            // for what may follow.
            white = chunk.split_to(begins.unwrap_or(chunk.len()));
            if self.calls.gate().is_some() || self.stopped {
                white.clear();
            }
            match chunk.first() {
                None => return white,
                Some(b'{' | b'[') => self.mode = Mode::Json(Some(Vec::new())),
                Some(first) => {
                    // No text begins so, and every message of a binary stream does.
                    let binary = self.format.frames(eventstream::MEDIA).filter(|_| *first == 0);
                    self.framed = binary.is_some();
                    self.frames = binary.unwrap_or_else(|| Box::new(Scanner::default()));
                    self.mode = Mode::Events;
                }
            }
        }
        let rest = self.go_on(chunk);
        match (white.is_empty(), rest.is_empty()) {
            (true, _) => rest,
            (false, true) => white,
            (false, false) => [white, rest].concat().into(),
        }
    }

    fn finish(&mut self) -> (Bytes, ReplyFacts) {
        let left = match std::mem::replace(&mut self.mode, Mode::Undecided) {
            Mode::Json(body) => {
                let readable = match &body {
                    Some(body) => self.format.whole(body, &mut self.calls),
                    None => {
                        self.format.unread();
                        false
                    }
                };
                if self.stopped {
                    Bytes::new()
                } else {
                    self.judge_whole(body, readable)
                }
            }
            Mode::Undecided => Bytes::new(),
            Mode::Events => self.end_events(),
        };
        let mut facts = self.format.facts();
        facts.error |= self.failed;
        (facts.tools_called, facts.tools_denied) = self.calls.take_names();
        (left, facts)
    }

    fn cut(&mut self, refusal: &Refusal, request_id: &str) -> Bytes {
        if std::mem::replace(&mut self.stopped, true) {
            return Bytes::new();
        }
        self.queue.clear();
        self.held.clear();
        match self.mode {
            // Without a gate the reply's beginning has passed, and nothing can be said any more.
            Mode::Json(_) if self.calls.gate().is_none() => Bytes::new(),
            Mode::Json(_) | Mode::Undecided => self.format.instead(refusal, request_id),
            Mode::Events => {
                let words = self.format.last_words(refusal, request_id);
                self.last_words(words)
            }
        }
    }

    fn answers(&mut self) -> Option<String> {
        self.format.answers()
    }

    fn seen(&self) -> Seen {
        self.format.seen()
    }

    fn stopped(&self) -> bool {
        self.stopped
    }

    fn holds_all(&self) -> bool {
        self.holds_all()
    }

    fn replaced(&mut self) -> Option<Refusal> {
        self.replaced.take()
    }
}
