//! Amazon Bedrock's Converse: one format for all of its models, plain and as a binary event stream.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in the service's own shape.
//! Sources: docs.aws.amazon.com/bedrock/latest/APIReference (Converse, ConverseStream); botocore's service model.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;

use crate::llm::frames::Frames;
use crate::llm::reply::Reader;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, detect, eventstream, refusal_reply,
};
use crate::refusal::{Class, Refusal};

mod calls;
mod conversation;
mod request;
mod rewrite;
mod usage;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct BedrockConverse;

/// The one value of it.
pub static CONVERSE: BedrockConverse = BedrockConverse;

/// The service's error body.
#[derive(Serialize)]
struct ErrorBody {
    message: String,
    guard: refusal_reply::Details,
}

/// `/model/ID/OPERATION`: the model's id, escaped or not, and the operation.
pub(super) fn operation(path: &str) -> Option<(String, &str)> {
    let (id, operation) = path.strip_prefix("/model/")?.split_once('/')?;
    Some((detect::model_name(id)?, operation))
}

/// What a body says that is Converse's, or Amazon Nova's own, which is the same.
pub(super) fn facts(model: String, stream: bool, body: &[u8]) -> Result<RequestFacts, Malformed> {
    request::facts(model, stream, body)
}

/// What reads a reply of Converse, or of Amazon Nova's own.
pub(super) fn reply_format() -> usage::ConverseReply {
    usage::ConverseReply::default()
}

/// The framing of the service's streams.
pub(super) fn frames(media: &str) -> Option<Box<dyn Frames>> {
    let binary = media.starts_with(eventstream::MEDIA);
    binary.then(|| Box::new(eventstream::Scanner::default()) as Box<dyn Frames>)
}

/// The exception that ends a stream with a refusal.
pub(super) fn exception(refusal: &Refusal, request_id: &str) -> Bytes {
    let headers = [
        (":exception-type", "validationException"),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ];
    Bytes::from(eventstream::encode(&headers, &refuse(refusal, request_id).body))
}

/// A refusal as the service words errors: the exception's name stands in a header.
pub(super) fn refuse(refusal: &Refusal, request_id: &str) -> RefusalReply {
    let class = refusal.reason.class();
    let (code, exception) = match class {
        Class::Money | Class::Policy => (StatusCode::FORBIDDEN, "AccessDeniedException"),
        Class::Transient => (StatusCode::TOO_MANY_REQUESTS, "ThrottlingException"),
        Class::Upstream => (StatusCode::BAD_GATEWAY, "ServiceUnavailableException"),
        Class::Malformed | Class::TooLarge | Class::Misdirected | Class::Upgrade => {
            (StatusCode::BAD_REQUEST, "ValidationException")
        }
    };
    let body = ErrorBody {
        message: refusal_reply::message(refusal, request_id),
        guard: refusal_reply::Details::of(refusal),
    };
    let mut reply = refusal_reply::reply(refusal, code, "x-amzn-requestid", request_id, &body);
    if matches!(class, Class::Money | Class::Policy) {
        reply.status = code;
    }
    reply
        .headers
        .insert("x-amzn-errortype", HeaderValue::from_static(exception));
    reply
}

impl Dialect for BedrockConverse {
    fn kind(&self) -> DialectKind {
        DialectKind::BedrockConverse
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        match (method, operation(path)) {
            (&Method::POST, Some((_, "converse" | "converse-stream"))) => EndpointKind::Inference,
            (&Method::POST, Some((_, "count-tokens"))) => EndpointKind::CountTokens,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed("the path names no model".to_owned()))
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        let (model, operation) =
            operation(&place.tail).ok_or_else(|| Malformed("the path names no model".to_owned()))?;
        request::facts(model, operation == "converse-stream", body)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::ConverseReply::default(), head))
    }

    /// 403 `AccessDeniedException` for money and policy: the SDKs raise it after one attempt and show the message.
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        refuse(refusal, request_id)
    }
}
