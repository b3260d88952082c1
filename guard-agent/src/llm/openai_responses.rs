//! OpenAI responses, over HTTP and over WebSocket: the format of Codex, of OpenAI's agents and of the ChatGPT back end.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in this format's own shape.
//! What a request says and what an event says is read in `request` and `usage` without regard to how it came, so that
//! the same can be read from the frames of a socket.
//! Sources: OpenAI's API reference and SDK types (`response_create_params`, `response_usage`, `response_stream_event`).

use bytes::Bytes;
use http::Method;

use crate::llm::openai_chat::OPENAI;
use crate::llm::reply::Reader;
use crate::llm::socket::SocketFormat;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, Takes, note,
};
use crate::refusal::Refusal;

mod calls;
mod conversation;
pub(crate) mod request;
pub(in crate::llm) mod rewrite;
pub(in crate::llm) mod socket;
pub(in crate::llm) mod tools;
pub(crate) mod usage;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct OpenaiResponses;

/// The one value of it.
pub static RESPONSES: OpenaiResponses = OpenaiResponses;

impl Dialect for OpenaiResponses {
    fn kind(&self) -> DialectKind {
        DialectKind::OpenaiResponses
    }

    /// A stored response is read, cancelled and deleted for free; counting its input is free too. Compacting one is a
    /// call of its own with usage of its own.
    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let tail = path.strip_prefix("/v1").unwrap_or(path);
        let Some(rest) = tail.strip_prefix("/responses") else {
            return EndpointKind::Other;
        };
        let mut segments = rest.split('/').skip(1);
        let (id, what, more) = (segments.next(), segments.next(), segments.next());
        match (method, id, what, more) {
            (&Method::POST, None, ..) if rest.is_empty() => EndpointKind::Inference,
            (&Method::POST, Some("compact"), None, _) => EndpointKind::Inference,
            (&Method::POST, Some("input_tokens"), None, _) => EndpointKind::CountTokens,
            (&Method::GET | &Method::DELETE, Some(_), None, _)
            | (&Method::POST, Some(_), Some("cancel"), None)
            | (&Method::GET, Some(_), Some("input_items"), None) => EndpointKind::Free,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(body, None)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(body, place.model.as_deref())
    }

    fn takes(&self, body: &[u8]) -> Takes {
        note::takes(body, &note::RESPONSES)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::ResponseReply::default(), head))
    }

    /// As in chat completions: 400 is the one status at which every measured client stops and shows the message.
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        OPENAI.refusal(refusal, request_id)
    }

    fn socket(&self, path: &str) -> Option<&'static dyn SocketFormat> {
        matches!(path, "/responses" | "/v1/responses").then_some(&socket::SOCKET)
    }
}
