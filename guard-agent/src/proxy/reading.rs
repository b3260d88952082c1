//! What a request's body says.
//!
//! In: the body as it came. Out: the body as it is read, and its facts. On failure: the refusal.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::call::Fingerprint;
use crate::llm::detect::Endpoint;
use crate::llm::encoding::decode_request;
use crate::llm::{EndpointKind, RequestFacts};
use crate::refusal::{Reason, Refusal};
use crate::share::Room;
use crate::share::large::{LARGE, beside, turn};

/// A body that was read.
pub(super) struct Body {
    /// Decoded.
    pub plain: Bytes,
    /// As it came, if that is another.
    pub encoded: Option<Bytes>,
    pub fingerprint: Fingerprint,
    /// Of an inference call.
    pub facts: Option<RequestFacts>,
}

impl Body {
    /// Reads a body; a large one in its turn, and beside the threads that move bytes.
    pub(super) async fn read(
        endpoint: &Endpoint,
        headers: &HeaderMap,
        came: Bytes,
        limit: usize,
        room: &mut Room,
    ) -> Result<Self, Refusal> {
        let encoded = headers.contains_key(CONTENT_ENCODING);
        // What an encoded body will be is not known yet.
        let bytes = came.len().max(if encoded { LARGE } else { 0 });
        let _turn = turn(bytes).await;
        beside(bytes, || {
            let plain = decode_request(headers, &came, limit)
                .map_err(|error| Refusal::new(error.reason(), format!("{error}.")))?;
            if encoded {
                room.grow_to(came.len() + plain.len())?;
            }
            let facts = match endpoint.kind {
                EndpointKind::Inference => Some(
                    endpoint
                        .dialect
                        .request_at(&endpoint.place, &plain)
                        .map_err(|error| Refusal::new(Reason::Malformed, error.to_string()))?,
                ),
                _ => None,
            };
            Ok(Self {
                fingerprint: Fingerprint::of(&plain),
                encoded: encoded.then_some(came),
                plain,
                facts,
            })
        })
    }
}
