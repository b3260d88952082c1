//! What all calls of one socket share: who makes them, to whom, and how they are judged.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use ulid::Ulid;

use crate::call::{Call, Fingerprint, Origin, Said};
use crate::identity::Identity;
use crate::llm::provider::Provider;
use crate::llm::{Dialect, EndpointKind, RequestFacts};
use crate::policy::{Decide, Permit};
use crate::refusal::Refusal;
use crate::report::{EarlyRefusal, Report};

/// Who makes the calls on a socket, and how they are judged.
pub struct Caller {
    /// The agent.
    pub identity: Identity,
    /// Who the calls are for.
    pub provider: Arc<Provider>,
    /// The connection that the socket was opened on.
    pub origin: Origin,
    /// The format of the calls.
    pub dialect: &'static dyn Dialect,
    /// Path and query with which the socket was opened.
    pub target: Uri,
    /// The headers of that request.
    pub headers: HeaderMap,
    /// Judges calls.
    pub judge: Arc<dyn Decide>,
    /// Hears of what is not a call.
    pub report: Arc<dyn Report>,
}

impl Caller {
    /// The call that a message is. The headers were said once and hold for each, but for the count of retries.
    /// `turn`: how much was said before, where the same words later are another call.
    pub(super) fn call(&self, facts: RequestFacts, message: Bytes, turn: u64) -> Call {
        let mut said = Said::read(&self.headers, &self.target);
        said.retry_count = 0;
        Call {
            id: Ulid::new(),
            provider: self.provider.clone(),
            origin: self.origin.clone(),
            endpoint: EndpointKind::Inference,
            dialect: self.dialect,
            method: Method::GET,
            target: self.target.clone(),
            headers: HeaderMap::new(),
            said,
            facts: Some(facts),
            body_fingerprint: match turn {
                0 => Fingerprint::of(&message),
                turn => Fingerprint::of(&[&message[..], &turn.to_be_bytes()].concat()),
            },
            body: message,
            encoded_body: None,
        }
    }

    pub(super) fn decide(&self, call: &Call) -> Result<Permit, Refusal> {
        self.judge.decide(&self.identity, &self.provider, call)
    }

    /// Whether the agent may make calls at all.
    pub(super) fn standing(&self) -> Option<Refusal> {
        self.judge.standing(&self.identity)
    }

    /// Records the refusal of what never became a call; gives the id by which it is found.
    pub(super) fn refused(&self, refusal: &Refusal) -> String {
        let id = Ulid::new();
        let early = EarlyRefusal {
            id,
            identity: Some(&self.identity),
            stranger: None,
            provider: &self.provider,
            original_destination: self.origin.destination,
            method: &Method::GET,
            path: self.target.path(),
            dialect: self.dialect.kind(),
        };
        self.report.refused(&early, refusal);
        id.to_string()
    }
}
