//! Cohere's second API: chat, embed and rerank (the first API's rerank too, which has the same shape).
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in Cohere's own shape.
//! Sources: docs.cohere.com/v2/reference (chat, chat-stream, embed, rerank) and the types of its SDK.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::llm::reply::Reader;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, detect, refusal_reply, rerank,
};
use crate::refusal::Refusal;

mod calls;
mod request;
mod rewrite;
mod usage;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct Cohere;

/// The one value of it.
pub static COHERE: Cohere = Cohere;

#[derive(Serialize)]
struct ErrorBody<'a> {
    id: &'a str,
    message: String,
    guard: refusal_reply::Details,
}

impl Dialect for Cohere {
    fn kind(&self) -> DialectKind {
        DialectKind::Cohere
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        match (method, path) {
            (&Method::POST, "/v2/chat" | "/v2/embed" | "/v2/rerank" | "/v1/rerank") => {
                EndpointKind::Inference
            }
            (&Method::POST, "/v1/classify") => EndpointKind::Unpriced,
            (&Method::POST, "/v1/tokenize" | "/v1/detokenize") => EndpointKind::CountTokens,
            (&Method::GET, path) if path.strip_prefix("/v1").is_some_and(detect::is_models) => {
                EndpointKind::Models
            }
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(true, body)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        if place.tail.ends_with("/rerank") {
            return rerank::facts(body, None);
        }
        request::facts(place.tail == "/v2/chat", body)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::CohereReply::default(), head))
    }

    /// 402 for money as Cohere itself has it, 400 for policy: its SDK tries neither again.
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        let body = ErrorBody {
            id: request_id,
            message: refusal_reply::message(refusal, request_id),
            guard: refusal_reply::Details::of(refusal),
        };
        refusal_reply::reply(
            refusal,
            StatusCode::PAYMENT_REQUIRED,
            "x-request-id",
            request_id,
            &body,
        )
    }
}
