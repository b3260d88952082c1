//! What a request's body says.
//!
//! In: the body as it came. Out: the body as it is read, and its facts. On failure: the refusal.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::call::Fingerprint;
use crate::llm::detect::Endpoint;
use crate::llm::encoding::decode_request;
use crate::llm::{EndpointKind, Place, RequestFacts};
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
                EndpointKind::Inference => {
                    let place = Place {
                        content_type: content_type(headers),
                        ..endpoint.place.clone()
                    };
                    let facts = endpoint.dialect.request_at(&place, &plain);
                    Some(facts.map_err(|error| Refusal::new(Reason::Malformed, error.to_string()))?)
                }
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

/// What the body is said to be. Several headers are joined, and bytes that are no text are shown as such, so that no format
/// takes either for a type that it knows.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let all: Vec<_> = headers
        .get_all(CONTENT_TYPE)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    (!all.is_empty()).then(|| all.join(", "))
}
