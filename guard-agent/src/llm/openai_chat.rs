//! OpenAI chat completions, and every provider that speaks them.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in this format's own shape.
//! Sources: OpenAI's API reference and SDK types (`chat.completion_create_params`, `completion_usage`); the other
//! providers' references where a comment names them.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::llm::reply::Reader;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, Takes, detect, note, refusal_reply,
};
use crate::refusal::{Class, Refusal};

mod calls;
pub(in crate::llm) mod conversation;
mod request;
mod rewrite;
mod usage;

/// The field by which a provider takes an output cap when the client set none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapField {
    /// `max_completion_tokens`: OpenAI, whose reasoning models refuse `max_tokens`, and those who followed.
    MaxCompletionTokens,
    /// `max_tokens`: everybody else. Some of them ignore the newer name, which would leave the output without a cap.
    MaxTokens,
}

/// This format, in the flavour of a group of providers.
#[derive(Debug, Clone, Copy)]
pub struct OpenaiChat {
    cap_field: CapField,
}

/// The flavour of OpenAI itself.
pub static OPENAI: OpenaiChat = OpenaiChat {
    cap_field: CapField::MaxCompletionTokens,
};

/// The flavour of providers that know only `max_tokens`.
pub static COMPATIBLE: OpenaiChat = OpenaiChat {
    cap_field: CapField::MaxTokens,
};

#[derive(Serialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Serialize)]
struct ErrorObject {
    message: String,
    r#type: &'static str,
    param: Option<&'static str>,
    code: String,
    details: refusal_reply::Details,
}

impl Dialect for OpenaiChat {
    fn kind(&self) -> DialectKind {
        DialectKind::OpenaiChat
    }

    /// `/v1` is OpenAI's; Perplexity, DeepSeek and providers with a base path of their own have the bare form too, and
    /// DeepSeek has `/beta`.
    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let tail = path
            .strip_prefix("/v1")
            .or_else(|| path.strip_prefix("/beta"))
            .unwrap_or(path);
        match *method {
            Method::POST if tail == "/chat/completions" => EndpointKind::Inference,
            Method::GET if detect::is_models(tail) => EndpointKind::Models,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(body, self.cap_field, None)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(body, self.cap_field, place.model.as_deref())
    }

    fn takes(&self, body: &[u8]) -> Takes {
        note::takes(body, &note::CHAT)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits, self.cap_field)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::ChatReply::default(), head))
    }

    /// 400 for money and policy: the one status at which every measured client stops after one attempt and shows the
    /// message (402, 403 and 451 cost Codex six).
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        let body = ErrorBody {
            error: ErrorObject {
                message: refusal_reply::message(refusal, request_id),
                r#type: match refusal.reason.class() {
                    Class::Transient => "rate_limit_error",
                    Class::Upstream => "server_error",
                    _ => "invalid_request_error",
                },
                param: None,
                code: refusal.reason.code(),
                details: refusal_reply::Details::of(refusal),
            },
        };
        refusal_reply::reply(
            refusal,
            StatusCode::BAD_REQUEST,
            "x-request-id",
            request_id,
            &body,
        )
    }
}
