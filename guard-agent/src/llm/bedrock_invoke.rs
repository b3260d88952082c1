//! Amazon Bedrock's InvokeModel: each maker's own body, plain and in a binary event stream.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in the service's own shape.
//! Bodies of Anthropic's models and of Amazon's Nova are read; another maker's body is refused with the advice to use
//! Converse, because what it asks for (and so what it may cost) is not known.
//! Sources: docs.aws.amazon.com/bedrock/latest/APIReference (InvokeModel, InvokeModelWithResponseStream) and
//! …/userguide/model-parameters.html.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::llm::bedrock_converse::{CONVERSE, operation, refuse};
use crate::llm::reply::Reader;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, anthropic, bedrock_converse,
};
use crate::refusal::Refusal;

mod usage;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct BedrockInvoke;

/// The one value of it.
pub static INVOKE: BedrockInvoke = BedrockInvoke;

/// Whether a body is Amazon's Nova's, which is that of Converse with a mark of its own.
fn is_nova(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marked {
        schema_version: Option<IgnoredAny>,
        inference_config: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Marked>(body)
        .is_ok_and(|body| body.schema_version.is_some() || body.inference_config.is_some())
}

/// Whether a body is Anthropic's.
fn is_anthropic(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Marked {
        anthropic_version: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Marked>(body).is_ok_and(|body| body.anthropic_version.is_some())
}

fn unknown() -> Malformed {
    Malformed(
        "InvokeModel is read for the bodies of Anthropic's and Amazon Nova's models only; use Converse for this model"
            .to_owned(),
    )
}

impl Dialect for BedrockInvoke {
    fn kind(&self) -> DialectKind {
        DialectKind::BedrockInvoke
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        match (method, operation(path)) {
            (&Method::POST, Some((_, "invoke" | "invoke-with-response-stream"))) => EndpointKind::Inference,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, _body: &[u8]) -> Result<RequestFacts, Malformed> {
        Err(Malformed("the path names no model".to_owned()))
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        let (model, operation) =
            operation(&place.tail).ok_or_else(|| Malformed("the path names no model".to_owned()))?;
        let stream = operation == "invoke-with-response-stream";
        if is_anthropic(body) {
            let mut facts = anthropic::hosted(body, &model)?;
            facts.stream = stream;
            return Ok(facts);
        }
        if is_nova(body) {
            return bedrock_converse::facts(model, stream, body);
        }
        Err(unknown())
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        if is_anthropic(body) {
            return anthropic::ANTHROPIC.rewrite(body, edits);
        }
        if is_nova(body) {
            return CONVERSE.rewrite(body, edits);
        }
        Err(unknown())
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(usage::InvokeReply::new(head.headers), head))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        refuse(refusal, request_id)
    }
}
