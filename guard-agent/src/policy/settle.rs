//! What becomes of a permit: how the call ended, given back to whoever holds its reservation.
//!
//! In: the outcome of a forwarded call, once, on every path; before that, how much of a stream has passed. Out: when the
//! stream ends at the latest, and how much of it is paid for. On failure: the refusal with which it ends.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::ledger::OnDisk;
use crate::llm::{ReplyFacts, Seen};
use crate::policy::Hold;
use crate::refusal::{Reason, Refusal};

/// What a permit has reserved. Consumed with the call's outcome, on every path.
pub trait Settle: Send {
    /// Books the outcome.
    fn settle(self: Box<Self>, outcome: Outcome);

    /// Nothing came of it: what was reserved is given back, and there is no call to be recorded.
    fn withdraw(self: Box<Self>) {
        self.settle(Outcome::default());
    }

    /// What has to be on disk before the call is sent; none when all of it is.
    fn on_disk(&self) -> Option<OnDisk> {
        None
    }

    /// When a stream of the reply ends at the latest; none while nothing says so.
    fn deadline(&self) -> Option<Deadline> {
        None
    }

    /// How much of a stream is paid for; none while nothing bounds it.
    fn room(&self) -> Option<Seen> {
        None
    }

    /// What the model reads at a time, at most, in tokens; none while nothing says so.
    fn window(&self) -> Option<u64> {
        None
    }

    /// The stream has taken more than that: gives how much is paid for now.
    ///
    /// # Errors
    /// The refusal with which it ends.
    fn extend(&mut self, seen: Seen) -> Result<Seen, Refusal> {
        Ok(seen)
    }
}

/// When a reply that is streamed is ended, and what the client is told then.
#[derive(Debug, Clone)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What is said in the format's own last event.
    pub refusal: Refusal,
    /// The call, for that message.
    pub id: String,
}

/// How a forwarded call ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The request (or part of it) may have reached the provider. If not, nothing can have been billed.
    pub forwarded: bool,
    /// Status of the provider's answer, if one came.
    pub status: Option<StatusCode>,
    /// What the reply held; usage `None` is unknown, never zero.
    pub facts: ReplyFacts,
    /// The client left before the reply ended.
    pub client_gone: bool,
    /// From forwarding to the first byte of the reply's body.
    pub first_token: Option<Duration>,
    /// From forwarding to the end.
    pub duration: Duration,
    /// What is reserved for a response that nobody asks for waited so long before one began.
    pub waited: Duration,
    /// Bytes of the request's body as forwarded.
    pub request_bytes: u64,
    /// Bytes of the reply's body as the provider sent them.
    pub reply_bytes: u64,
    /// The rule for which Guard ended the reply.
    pub cut: Option<Reason>,
    /// Why there was no answer, or not all of it.
    pub upstream_error: Option<String>,
}

impl Outcome {
    /// Adds what is billed and stands in the request alone, once it was answered.
    pub(crate) fn count_sent(&mut self, hold: Option<&Hold>) {
        let answered = self.status.is_some_and(|status| status.is_success()) && !self.facts.error;
        if let Some(hold) = hold.filter(|_| answered)
            && let Some(bound) = hold.bound
        {
            self.facts.usage = bound.counted(self.facts.usage, hold.price.as_deref());
        }
    }
}
