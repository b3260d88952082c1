//! Anthropic messages.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in this format's own shape.
//! Sources: Anthropic's API reference and SDK types (`beta.message_create_params`, `beta_usage`).

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::llm::reply::Reader;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, Takes, detect, note, refusal_reply,
};
use crate::refusal::{Class, Refusal};

mod calls;
mod conversation;
mod request;
mod rewrite;
mod tools;
mod usage;
mod vertex;

pub use vertex::{AnthropicVertex, VERTEX};

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct AnthropicMessages;

/// The one value of it.
pub static ANTHROPIC: AnthropicMessages = AnthropicMessages;

/// What a body says whose model stands in the path, as other clouds have it.
pub(super) fn hosted(body: &[u8], model: &str) -> Result<RequestFacts, Malformed> {
    request::facts(body, Some(model))
}

/// What reads a reply of this format.
pub(super) fn reply_format() -> usage::MessageReply {
    usage::MessageReply::default()
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    r#type: &'static str,
    error: ErrorObject,
    request_id: &'a str,
}

#[derive(Serialize)]
struct ErrorObject {
    r#type: &'static str,
    message: String,
    details: refusal_reply::Details,
}

impl Dialect for AnthropicMessages {
    fn kind(&self) -> DialectKind {
        DialectKind::AnthropicMessages
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        match (method, path.strip_prefix("/v1")) {
            (&Method::POST, Some("/messages")) => EndpointKind::Inference,
            (&Method::POST, Some("/messages/count_tokens")) => EndpointKind::CountTokens,
            (&Method::GET, Some(tail)) if detect::is_models(tail) => EndpointKind::Models,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(body, None)
    }

    fn takes(&self, body: &[u8]) -> Takes {
        note::takes(body, &note::CHAT)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::MessageReply::default(), head))
    }

    /// 402 for money and 400 for policy: Claude Code stops after one attempt and shows the message, where 401 and 403
    /// read as a lost login and a bare 429 is tried for minutes.
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        let body = ErrorBody {
            r#type: "error",
            error: ErrorObject {
                r#type: match refusal.reason.class() {
                    Class::Money => "billing_error",
                    Class::Transient => "rate_limit_error",
                    Class::TooLarge => "request_too_large",
                    Class::Upstream => "api_error",
                    Class::Policy | Class::Malformed | Class::Misdirected | Class::Upgrade => {
                        "invalid_request_error"
                    }
                },
                message: refusal_reply::message(refusal, request_id),
                details: refusal_reply::Details::of(refusal),
            },
            request_id,
        };
        refusal_reply::reply(
            refusal,
            StatusCode::PAYMENT_REQUIRED,
            "request-id",
            request_id,
            &body,
        )
    }
}
