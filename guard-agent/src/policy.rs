//! Decides: `&Call` to `Permit` or `Refusal`.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::call::Call;
use crate::identity::Identity;
use crate::keys::Secret;
use crate::llm::provider::Provider;
use crate::llm::{BodyEdits, ReplyFacts};
use crate::refusal::Refusal;

/// Judges calls. Synchronous: a decision reads memory and appends to a journal, nothing else.
pub trait Decide: Send + Sync {
    /// Admits the call, with everything that follows from it reserved, or says why not.
    ///
    /// # Errors
    /// The refusal, recorded already.
    fn decide(&self, identity: &Identity, provider: &Provider, call: &Call) -> Result<Permit, Refusal>;
}

/// Leave to forward one call. Only this module makes one; only `forward` consumes one.
pub struct Permit {
    /// Changes to the body.
    pub(crate) edits: BodyEdits,
    /// What the provider gets to see as the credential.
    pub(crate) credential: Credential,
    /// Takes the outcome, once.
    pub(crate) settlement: Box<dyn Settle>,
}

/// The credential of a forwarded call.
pub(crate) enum Credential {
    /// Guard's key; whatever the caller presented is taken out.
    Inject {
        /// Which header.
        header: HeaderName,
        /// The key.
        secret: Secret,
    },
    /// The caller's own login, as it came.
    Pass,
}

/// What a permit has reserved. Consumed with the call's outcome, on every path.
pub trait Settle: Send {
    /// Books the outcome.
    fn settle(self: Box<Self>, outcome: Outcome);
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
    /// Bytes of the request's body as forwarded.
    pub request_bytes: u64,
    /// Bytes of the reply's body as the provider sent them.
    pub reply_bytes: u64,
    /// Why there was no answer, or not all of it.
    pub upstream_error: Option<String>,
}
