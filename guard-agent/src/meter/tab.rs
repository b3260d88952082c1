//! The open account of one forwarded call: what has been learnt of its reply, and what it holds until it is settled.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use crate::llm::encoding::reader_for;
use crate::llm::frames::is_stream;
use crate::llm::{Dialect, Gate, ReplyHead, ReplyReader, Seen};
use crate::policy::{Deadline, Outcome, Settle};
use crate::refusal::Refusal;
use crate::share::large::beside;

mod messages;

pub(crate) use messages::stopping;

/// The open account of one forwarded call. It is settled exactly once: by [`Tab::close`], or when it is dropped.
pub struct Tab {
    settlement: Option<Box<dyn Settle>>,
    outcome: Outcome,
    reader: Option<Box<dyn ReplyReader>>,
    dialect: &'static dyn Dialect,
    hide_usage_event: bool,
    gate: Option<Arc<dyn Gate>>,
    pub(super) deadline: Option<Deadline>,
    /// How much of a stream is paid for.
    room: Option<Seen>,
    call: String,
    began: Instant,
    /// It is held for a response that nobody has asked for, and none has begun.
    standing: bool,
}

impl Tab {
    /// Opens the account.
    pub fn open(
        settlement: Box<dyn Settle>,
        dialect: &'static dyn Dialect,
        hide_usage_event: bool,
        gate: Option<Arc<dyn Gate>>,
    ) -> Self {
        Self {
            deadline: settlement.deadline(),
            room: settlement.room(),
            call: String::new(),
            settlement: Some(settlement),
            outcome: Outcome::default(),
            reader: None,
            dialect,
            hide_usage_event,
            gate,
            began: Instant::now(),
            standing: false,
        }
    }

    /// The id of the call, which last words name.
    pub fn set_call(&mut self, id: String) {
        self.call = id;
    }

    /// The request is about to leave (or has left) for the provider.
    pub fn set_forwarded(&mut self, forwarded: bool, request_bytes: u64) {
        self.outcome.forwarded = forwarded;
        self.outcome.request_bytes = request_bytes;
    }

    /// The client is gone.
    pub fn set_client_gone(&mut self) {
        self.outcome.client_gone = true;
    }

    /// The provider failed.
    pub fn set_error(&mut self, error: String) {
        self.outcome.upstream_error = Some(error);
    }

    /// The provider's answer has begun.
    pub fn head(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.outcome.forwarded = true;
        self.outcome.status = Some(status);
        // A plain reply is whole or nothing, and its cost is spent when it begins.
        let streams = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| is_stream(&kind.to_ascii_lowercase()));
        if !streams {
            self.deadline = None;
            self.room = None;
        }
        let head = ReplyHead {
            status,
            headers,
            hide_usage_event: self.hide_usage_event,
            gate: self.gate.as_ref(),
        };
        self.reader = Some(reader_for(self.dialect, &head));
    }

    /// The next bytes of the answer; gives the bytes to forward.
    pub fn feed(&mut self, data: Bytes) -> Bytes {
        if self.outcome.first_token.is_none() && !data.is_empty() {
            self.outcome.first_token = Some(self.began.elapsed());
        }
        self.outcome.reply_bytes += data.len() as u64;
        match &mut self.reader {
            Some(reader) => reader.feed(data),
            None => data,
        }
    }

    /// Whether the client may get other bytes than the provider sends, so that the length is not the provider's.
    pub fn alters(&self) -> bool {
        self.hide_usage_event || self.gate.is_some() || self.deadline.is_some()
    }

    /// Whether the reply is decoded on its way, because its tool calls are judged.
    pub fn decodes(&self) -> bool {
        self.gate.is_some()
    }

    /// Whether the client has its last byte, although the provider may go on.
    pub(super) fn stopped(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.stopped())
    }

    /// Whether the stream has taken more than is paid for and more cannot be reserved: gives the format's own last event.
    pub(super) fn outgrown(&mut self) -> Option<Bytes> {
        let refusal = self.beyond()?;
        let call = std::mem::take(&mut self.call);
        Some(self.last_words(&refusal, &call))
    }

    /// Why no more of the stream can be paid for.
    fn beyond(&mut self) -> Option<Refusal> {
        let (room, seen) = (self.room?, self.reader.as_ref()?.seen());
        if seen.input <= room.input && seen.output <= room.output {
            return None;
        }
        match self.settlement.as_mut()?.extend(seen) {
            Ok(room) => {
                self.room = Some(room);
                None
            }
            Err(refusal) => {
                self.room = None;
                Some(refusal)
            }
        }
    }

    /// Its time is over: gives the format's own last event, and asks for no more.
    pub(super) fn expire(&mut self) -> Bytes {
        let Some(deadline) = self.deadline.take() else {
            return Bytes::new();
        };
        self.last_words(&deadline.refusal, &deadline.id)
    }

    /// Guard is being stopped: gives the format's own last event.
    pub(super) fn stop(&mut self) -> Bytes {
        let call = std::mem::take(&mut self.call);
        self.last_words(&stopping(), &call)
    }

    fn last_words(&mut self, refusal: &Refusal, id: &str) -> Bytes {
        self.outcome.cut = Some(refusal.reason);
        match &mut self.reader {
            Some(reader) => reader.cut(refusal, id),
            None => Bytes::new(),
        }
    }

    /// Whether nothing is forwarded before the end.
    pub(super) fn holds_all(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.holds_all())
    }

    /// Settles. Gives what the reader still held back, and why that stands in the place of a whole reply, if it does.
    pub fn close(mut self) -> (Bytes, Option<Refusal>) {
        let rest = self.settle();
        let replaced = self.reader.as_mut().and_then(|reader| reader.replaced());
        (rest, replaced)
    }

    fn settle(&mut self) -> Bytes {
        let Some(settlement) = self.settlement.take() else {
            return Bytes::new();
        };
        if self.standing {
            settlement.withdraw();
            return Bytes::new();
        }
        let bytes = usize::try_from(self.outcome.reply_bytes).unwrap_or(usize::MAX);
        let reader = self.reader.as_mut();
        let (rest, facts) = reader
            .map(|reader| beside(bytes, || reader.finish()))
            .unwrap_or_default();
        self.outcome.facts = facts;
        self.outcome.duration = self.began.elapsed();
        settlement.settle(std::mem::take(&mut self.outcome));
        rest
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        drop(self.settle());
    }
}
