//! Images, speech, video, and what else is billed in a unit that Guard's prices do not have (reranking by search,
//! pages of text recognition).
//!
//! In: method and path. Out: `Unpriced`, so that a call is refused with the reason and not as unknown; moderation is
//! free. On failure: there is none; nothing of these bodies is read. Where an operator lists such a path, it passes.

use bytes::Bytes;
use http::Method;

use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts,
};
use crate::refusal::Refusal;

/// These endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Media;

/// The one value of it.
pub static MEDIA: Media = Media;

impl Dialect for Media {
    fn kind(&self) -> DialectKind {
        DialectKind::Media
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let tail = path.strip_prefix("/v1").unwrap_or(path);
        if method != Method::POST {
            return EndpointKind::Other;
        }
        let model_prediction = tail.starts_with("/models/") && tail.ends_with("/predictions");
        match tail {
            "/moderations" => EndpointKind::Free,
            "/images/generations"
            | "/images/edits"
            | "/images/variations"
            | "/audio/speech"
            | "/audio/transcriptions"
            | "/audio/translations"
            | "/videos"
            | "/ocr"
            | "/predictions" => EndpointKind::Unpriced,
            _ if model_prediction => EndpointKind::Unpriced,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed("this endpoint is not metered".to_owned()))
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        Err(Malformed("this body can't be changed".to_owned()))
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        COMPATIBLE.reply(head)
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        COMPATIBLE.refusal(refusal, request_id)
    }
}
