//! Embeddings of text in OpenAI's shape (Voyage's and Jina's too).
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in OpenAI's shape.
//! Sources: OpenAI's SDK types (`embedding_create_params`, `create_embedding_response`); docs.voyageai.com/reference;
//! docs.mistral.ai/api. Reranking multiplies the query by the documents and is billed by tokens or by searches, so it is
//! not read here.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::reply::{Calls, Format, Reader, Verdict};
use crate::llm::request::list_of;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyFacts, ReplyHead,
    ReplyReader, RequestFacts, Usage, json_strict,
};
use crate::refusal::Refusal;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct Embeddings;

/// The one value of it.
pub static EMBEDDINGS: Embeddings = Embeddings;

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 4] = ["model", "input", "inputs", "stream"];

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

fn facts(body: &[u8], model: Option<&str>) -> Result<RequestFacts, Malformed> {
    let (text, _) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let model = model
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .ok_or_else(|| Malformed("missing field `model`".to_owned()))?;
    let input = body.input.map_or("null", RawValue::get);
    let objects = input.starts_with('{') || list_of(body.input, b"{").is_some_and(|(_, found)| found);
    if objects {
        return Err(Malformed(
            "`input` holds something other than text or tokens; what that costs is not known".to_owned(),
        ));
    }
    Ok(RequestFacts {
        model,
        // An embedding has no output tokens.
        output_cap: Some(0),
        choices: 1,
        ..RequestFacts::default()
    })
}

impl Dialect for Embeddings {
    fn kind(&self) -> DialectKind {
        DialectKind::Embeddings
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let tail = path.strip_prefix("/v1").unwrap_or(path);
        match (method, tail) {
            (&Method::POST, "/embeddings") => EndpointKind::Inference,
            (
                &Method::POST,
                "/rerank" | "/multimodalembeddings" | "/contextualizedembeddings" | "/segment" | "/classify",
            ) => EndpointKind::Unpriced,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        facts(body, None)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        facts(body, place.model.as_deref())
    }

    /// Nothing in such a body bounds its cost.
    fn rewrite(&self, body: &Bytes, _edits: &BodyEdits) -> Result<Bytes, Malformed> {
        Ok(body.clone())
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(EmbeddingReply::default(), head))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        COMPATIBLE.refusal(refusal, request_id)
    }
}

/// A reply; vectors are not read.
#[derive(Deserialize)]
struct Reply {
    model: Option<String>,
    data: Option<IgnoredAny>,
    usage: Option<WireUsage>,
    error: Option<IgnoredAny>,
    /// Mistral's and Jina's own error shape.
    detail: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

#[derive(Debug, Default)]
struct EmbeddingReply {
    facts: ReplyFacts,
}

impl Format for EmbeddingReply {
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if self.whole(data, calls) {
            Verdict::Forward
        } else {
            Verdict::Unreadable
        }
    }

    fn whole(&mut self, body: &[u8], _calls: &mut Calls) -> bool {
        let Ok(reply) = serde_json::from_slice::<Reply>(body) else {
            self.unread();
            return false;
        };
        let answered = reply.data.is_some();
        self.facts.error = reply.error.is_some() || (reply.detail.is_some() && !answered);
        self.facts.complete = answered || self.facts.error;
        self.facts.model = reply.model;
        self.facts.finish = answered.then(|| "stop".to_owned());
        // The larger one: what a provider counts beyond the prompt is input too.
        let input = reply
            .usage
            .and_then(|usage| usage.total_tokens.max(usage.prompt_tokens));
        self.facts.usage = input.map(|input| Usage {
            input,
            ..Usage::default()
        });
        true
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        COMPATIBLE.refusal(refusal, request_id).body
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
