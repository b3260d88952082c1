//! The account of a call whose reply comes in messages of a socket instead of a body.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;

use super::Tab;
use crate::llm::{Gate, ReplyReader, Seen};
use crate::refusal::{Reason, Refusal};

/// Seconds after which another Guard serves.
const RESTART: u32 = 2;

impl Tab {
    /// The request has left, and its reply is read so. There is no head: what is refused is told in a message.
    pub fn begin_messages(&mut self, reader: impl FnOnce(Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader>) {
        self.outcome.forwarded = true;
        self.outcome.status = Some(StatusCode::OK);
        self.reader = Some(reader(self.gate.as_ref()));
    }

    /// Nobody has asked for what this pays for, and it may never be.
    pub fn stand(&mut self) {
        self.standing = true;
    }

    /// The provider has begun by itself what this pays for, after so many bytes of input.
    pub fn begin_standing(&mut self, bytes: u64) {
        self.standing = false;
        self.outcome.waited = self.began.elapsed();
        self.began = Instant::now();
        self.set_forwarded(true, bytes);
    }

    /// Tokens of input, as many of them as the model can read at a time.
    pub fn readable(&self, input: u64) -> u64 {
        let window = self
            .settlement
            .as_ref()
            .and_then(|settlement| settlement.window());
        window.map_or(input, |window| input.min(window))
    }

    /// Has what is paid for be so much more: another reading, or more in one.
    ///
    /// # Errors
    /// The refusal: it stays what it was.
    pub fn reserve_more(&mut self, more: Seen) -> Result<(), Refusal> {
        let input = self.readable(more.input);
        if input == 0 && more.output == 0 {
            return Ok(());
        }
        let (Some(room), Some(settlement)) = (self.room, self.settlement.as_mut()) else {
            return Ok(());
        };
        self.room = Some(settlement.extend(Seen {
            input: room.input.saturating_add(input),
            output: room.output.saturating_add(more.output),
        })?);
        Ok(())
    }

    /// What the provider is to be told in the place of a denied call's result.
    pub fn answers(&mut self) -> Option<String> {
        self.reader.as_mut()?.answers()
    }

    /// Whether nothing more of the reply is forwarded, although the provider may go on.
    pub fn stopped_messages(&self) -> bool {
        self.stopped()
    }

    /// The provider refused the request with this status before it began to reply.
    pub fn refused_by_provider(&mut self, status: StatusCode) {
        self.outcome.status = Some(status);
    }

    /// The socket was opened; the calls on it have accounts of their own.
    pub fn switched(mut self, status: StatusCode) {
        self.outcome.forwarded = true;
        self.outcome.status = Some(status);
        drop(self.close());
    }

    /// When the reply is ended at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.as_ref().map(|deadline| deadline.at)
    }

    /// Its time is over: gives the format's own last message.
    pub fn expire_messages(&mut self) -> Bytes {
        match self.deadline.take() {
            Some(deadline) => self.last_message(&deadline.refusal, &deadline.id),
            None => Bytes::new(),
        }
    }

    /// The same as over HTTP: more than is paid for, and no more can be reserved.
    pub fn outgrown_messages(&mut self) -> Option<Bytes> {
        let refusal = self.beyond()?;
        let call = std::mem::take(&mut self.call);
        Some(self.last_message(&refusal, &call))
    }

    /// Guard is being stopped: gives the format's own last message.
    pub fn stop_messages(&mut self) -> Bytes {
        let call = std::mem::take(&mut self.call);
        self.last_message(&stopping(), &call)
    }

    fn last_message(&mut self, refusal: &Refusal, id: &str) -> Bytes {
        self.outcome.cut = Some(refusal.reason);
        match &mut self.reader {
            Some(reader) => reader.cut(refusal, id),
            None => Bytes::new(),
        }
    }
}

/// Why a reply ends that outlasts Guard.
pub(crate) fn stopping() -> Refusal {
    let mut refusal = Refusal::new(
        Reason::Stopping,
        "The host's firewall is being restarted, and this reply did not end in time. Send the request again.",
    );
    refusal.retry_after = Some(RESTART);
    refusal
}
