//! Gemini, by Google AI Studio and by Vertex AI.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in Google's own shape.
//! Sources: ai.google.dev/api/generate-content, cloud.google.com/vertex-ai (`GenerateContentRequest`), the types of
//! google-genai, and google.rpc.Status for errors.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;

use crate::llm::reply::Reader;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, detect, refusal_reply,
};
use crate::refusal::{Class, Refusal};

mod calls;
mod conversation;
mod grounding;
pub(crate) mod request;
pub(in crate::llm) mod rewrite;
pub(in crate::llm) mod tools;
pub(in crate::llm) mod usage;
pub(in crate::llm) mod words;

use request::Operation;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct Gemini;

/// The one value of it.
pub static GEMINI: Gemini = Gemini;

#[derive(Serialize)]
struct ErrorBody {
    error: Status,
}

/// google.rpc.Status.
#[derive(Serialize)]
struct Status {
    code: u16,
    message: String,
    status: &'static str,
    details: [ErrorInfo; 1],
}

/// google.rpc.ErrorInfo, whose metadata are texts; the numbers stand beside it.
#[derive(Serialize)]
struct ErrorInfo {
    #[serde(rename = "@type")]
    kind: &'static str,
    reason: String,
    domain: &'static str,
    guard: refusal_reply::Details,
}

impl Dialect for Gemini {
    fn kind(&self) -> DialectKind {
        DialectKind::Gemini
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        if let Some(operation) = Operation::read(path) {
            return match (method, operation.method.as_str()) {
                (
                    &Method::POST,
                    "generateContent" | "streamGenerateContent" | "embedContent" | "batchEmbedContents",
                ) => EndpointKind::Inference,
                (&Method::POST, "countTokens" | "computeTokens") => EndpointKind::CountTokens,
                _ => EndpointKind::Other,
            };
        }
        match *method {
            Method::GET if detect::is_models(path) => EndpointKind::Models,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed("the path names no model".to_owned()))
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        let operation =
            Operation::read(&place.tail).ok_or_else(|| Malformed("the path names no model".to_owned()))?;
        request::facts(&operation, body)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::GeminiReply::default(), head))
    }

    /// 403 for money and policy: Google's clients stop after one attempt and show the message (a bare 429 is tried for
    /// minutes by Gemini CLI).
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        let class = refusal.reason.class();
        let (code, status) = match class {
            Class::Money | Class::Policy => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Class::Transient => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            Class::Upstream => (StatusCode::BAD_GATEWAY, "UNAVAILABLE"),
            Class::Malformed => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Class::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "INVALID_ARGUMENT"),
            Class::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "INVALID_ARGUMENT"),
            Class::Upgrade => (StatusCode::UPGRADE_REQUIRED, "INVALID_ARGUMENT"),
        };
        let body = ErrorBody {
            error: Status {
                code: code.as_u16(),
                message: refusal_reply::message(refusal, request_id),
                status,
                details: [ErrorInfo {
                    kind: "type.googleapis.com/google.rpc.ErrorInfo",
                    reason: refusal.reason.code().to_ascii_uppercase(),
                    domain: "guard",
                    guard: refusal_reply::Details::of(refusal),
                }],
            },
        };
        let mut reply = refusal_reply::reply(refusal, code, "x-request-id", request_id, &body);
        if matches!(class, Class::Money | Class::Policy) {
            reply.status = code;
        }
        reply
    }
}
