//! Anthropic messages on Vertex AI: the model and whether to stream stand in the path, as with Google's own models.

use bytes::Bytes;
use http::Method;

use crate::llm::anthropic::{ANTHROPIC, hosted};
use crate::llm::gemini::request::Operation;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts,
};
use crate::refusal::Refusal;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct AnthropicVertex;

/// The one value of it.
pub static VERTEX: AnthropicVertex = AnthropicVertex;

impl Dialect for AnthropicVertex {
    fn kind(&self) -> DialectKind {
        DialectKind::AnthropicVertex
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let Some(operation) = Operation::read(path).filter(|_| method == Method::POST) else {
            return EndpointKind::Other;
        };
        match (operation.model.as_str(), operation.method.as_str()) {
            ("count-tokens", "rawPredict") => EndpointKind::CountTokens,
            (_, "rawPredict" | "streamRawPredict") => EndpointKind::Inference,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed("the path names no model".to_owned()))
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        let operation =
            Operation::read(&place.tail).ok_or_else(|| Malformed("the path names no model".to_owned()))?;
        let mut facts = hosted(body, &operation.model)?;
        facts.stream |= operation.method == "streamRawPredict";
        // Its replies name none. Whatever the body says, it is the path that chooses.
        facts.region = place.region.clone();
        Ok(facts)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        ANTHROPIC.rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        ANTHROPIC.reply(head)
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        ANTHROPIC.refusal(refusal, request_id)
    }
}
