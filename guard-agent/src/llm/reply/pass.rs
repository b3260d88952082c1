//! Forwarding a stream that is read and not changed: whole events, as they come, so that a refusal can follow at any
//! moment. A client can do nothing with an event before its end either.

use bytes::Bytes;

use crate::llm::reply::mode::Mode;
use crate::llm::reply::{Format, HOLD_LIMIT, JSON_LIMIT, Reader};
use crate::llm::sse::Found;

impl<F: Format> Reader<F> {
    /// What passes of a chunk, once it is clear how the reply comes.
    pub(super) fn go_on(&mut self, chunk: Bytes) -> Bytes {
        let gated = self.calls.gate().is_some();
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
                if gated || self.stopped {
                    Bytes::new()
                } else {
                    chunk
                }
            }
            _ if self.hide || gated || self.stopped => self.sift_events(&chunk),
            _ => self.pass_events(&chunk),
        }
    }

    /// Reads the events of a chunk; the one that is under way at its end is held back, unless it is long.
    pub(super) fn pass_events(&mut self, chunk: &Bytes) -> Bytes {
        // The second half of the CRLF that ended the event before.
        let mut ended = usize::from(self.frames.owes_lf() && chunk.first() == Some(&b'\n'));
        let mut from = 0;
        while let Some(step) = self.frames.next(chunk, from) {
            from = step.end;
            ended = step.end;
            match &step.found {
                Found::Event(data) if data.is_empty() => {}
                Found::Event(data) => drop(self.format.event(data, &mut self.calls)),
                Found::Oversize => self.format.unread(),
            }
        }
        if ended > 0 {
            (self.begun, self.spilled) = (0, false);
        }
        self.begun = self.begun.saturating_add(chunk.len() - ended);
        // What does not say that it is a stream may be anything, and is not held back.
        let hold = self.framed && !self.spilled && self.begun <= HOLD_LIMIT;
        self.spilled = !hold && self.begun > 0;
        let passing = chunk.slice(..if hold { ended } else { chunk.len() });
        let out = if self.held.is_empty() || passing.is_empty() {
            passing
        } else {
            self.held.extend_from_slice(&passing);
            self.held.split().freeze()
        };
        if hold {
            self.held
                .extend_from_slice(chunk.get(ended..).unwrap_or_default());
        }
        out
    }

    /// What the stream ends with in the place of the rest of it.
    pub(super) fn last_words(&mut self, words: Bytes) -> Bytes {
        if !std::mem::take(&mut self.spilled) {
            return words;
        }
        match self.frames.end_early() {
            Some(end) => Bytes::from([end, &words].concat()),
            // In the middle of a binary message nothing can be said.
            None => Bytes::new(),
        }
    }
}
