//! Embeddings of text in OpenAI's shape (Voyage's and Jina's too), and reranking as Voyage, Jina, Together and others
//! have it.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in OpenAI's shape.
//! Sources: OpenAI's SDK types (`embedding_create_params`, `create_embedding_response`); docs.voyageai.com/reference;
//! docs.mistral.ai/api; docs.together.ai/reference/rerank; jina.ai/reranker; openrouter.ai/docs (rerank).

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::reply::{Calls, Format, Reader, Verdict};
use crate::llm::request::list_of;
use crate::llm::stated::Stated;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyFacts, ReplyHead,
    ReplyReader, RequestFacts, Unit, Usage, json_strict, rerank,
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
            // Cohere's models on other hosts have the path of its second API.
            (&Method::POST, "/rerank" | "/v2/rerank") => EndpointKind::Inference,
            (
                &Method::POST,
                "/multimodalembeddings" | "/contextualizedembeddings" | "/segment" | "/classify",
            ) => EndpointKind::Unpriced,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        facts(body, None)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        if place.tail.ends_with("/rerank") {
            return rerank::facts(body, place.model.as_deref());
        }
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

/// A reply; vectors and scores are not read.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    data: Option<IgnoredAny>,
    /// Of a rerank.
    results: Option<IgnoredAny>,
    #[serde(borrow)]
    usage: Option<WireUsage<'a>>,
    /// Cohere's models have their usage in here, on other hosts too.
    meta: Option<Meta>,
    error: Option<IgnoredAny>,
    /// Mistral's and Jina's own error shape.
    detail: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireUsage<'a> {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
    search_units: Option<u64>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Billed>,
}

#[derive(Deserialize)]
struct Billed {
    search_units: Option<u64>,
}

impl Reply<'_> {
    /// What was billed: searches where those are told, and tokens otherwise.
    fn buckets(&self) -> Option<Usage> {
        let billed = self.meta.as_ref().and_then(|meta| meta.billed_units.as_ref());
        let searches = self.usage.as_ref().and_then(|usage| usage.search_units);
        if let Some(count) = searches.or(billed.and_then(|billed| billed.search_units)) {
            return Some(Usage::of_units(Unit::SearchUnit, count));
        }
        // The larger one: what a provider counts beyond the prompt is input too.
        let usage = self.usage.as_ref()?;
        let input = usage.total_tokens.max(usage.prompt_tokens)?;
        Some(Usage {
            input,
            ..Usage::default()
        })
    }
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
        let Ok(reply) = serde_json::from_slice::<Reply<'_>>(body) else {
            self.unread();
            return false;
        };
        let answered = reply.data.is_some() || reply.results.is_some();
        self.facts.error = reply.error.is_some() || (reply.detail.is_some() && !answered);
        self.facts.complete = answered || self.facts.error;
        self.facts.usage = reply.buckets();
        self.facts.reported_cost = reply.usage.and_then(|usage| {
            let stated = Stated {
                cost: usage.cost,
                ..Stated::default()
            };
            stated.amount()
        });
        self.facts.model = reply.model.map(Cow::into_owned);
        self.facts.finish = answered.then(|| "stop".to_owned());
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
