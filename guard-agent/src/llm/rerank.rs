//! Reranking: a query and the documents that are to be put in order. Cohere's shape, which Voyage, Jina, Together,
//! Fireworks and the gateways share as far as it decides what a call costs.
//!
//! In: the body. Out: its facts, with the most that it can be billed for. On failure: `Malformed`: a body that can be read
//! in two ways, or that holds something other than text.
//!
//! **By the search.** "A single search unit is defined as one query with up to 100 documents"; a document that is longer
//! than 500 tokens, the query's among them, counts as several (cohere.com/pricing, docs.cohere.com/docs/rerank-overview).
//! A token has at least one byte, so a document has at most as many pieces as its bytes fill; a query so long that next
//! to nothing is left for the document leaves at least [`LEAST_PIECE`].
//!
//! **By tokens.** The query counts once for each document (docs.voyageai.com/docs/faq: "the number of query tokens × the
//! number of documents + sum of the number of tokens in all documents"), and once for each piece of a long one.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::llm::bound::Bound;
use crate::llm::json_strict::Key;
use crate::llm::{Malformed, RequestFacts, Unit, Units, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 4] = ["model", "query", "documents", "stream"];

/// Tokens of one piece, with the query.
const PIECE: u64 = 500;
/// Tokens of the document in one piece, however long the query is.
const LEAST_PIECE: u64 = 50;
/// Pieces in one search unit.
const PIECES: u64 = 100;
/// Tokens by which a provider marks where query and document begin and end, in each pair of them.
const MARKS: u64 = 16;

/// Members of a document that hold something other than text.
const NOT_TEXT: [&str; 7] = ["image", "images", "image_url", "video", "audio", "file", "pdf"];

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    #[serde(borrow)]
    documents: Option<&'a RawValue>,
}

/// The documents of a request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Documents {
    bytes: u64,
    /// Into how many pieces a provider may divide them.
    pieces: u64,
    not_text: bool,
}

/// Reads a whole body. `model`: the one that the path names.
pub(super) fn facts(body: &[u8], model: Option<&str>) -> Result<RequestFacts, Malformed> {
    let missing = |name: &str| Malformed(format!("missing field `{name}`"));
    let (text, _) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let model = model
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .ok_or_else(|| missing("model"))?;
    let query = body.query.ok_or_else(|| missing("query"))?.get();
    let listed = body.documents.ok_or_else(|| missing("documents"))?.get();
    let query_tokens = query.len() as u64;
    let piece = PIECE.saturating_sub(query_tokens).max(LEAST_PIECE);
    let documents = documents(listed, piece)?;
    if documents.not_text || !query.starts_with('"') {
        return Err(Malformed(
            "the query or a document holds something other than text; what that costs is not known"
                .to_owned(),
        ));
    }
    let pairs = query_tokens
        .saturating_add(MARKS)
        .saturating_mul(documents.pieces);
    let searches = documents.pieces.div_ceil(PIECES).max(1);
    Ok(RequestFacts {
        model,
        // What comes back is an order, not text.
        output_cap: Some(0),
        choices: 1,
        text_only: true,
        bound: Some(Bound {
            input: documents.bytes.saturating_add(pairs),
            output: 0,
            units: Units::of(Unit::SearchUnit, searches),
            ..Bound::default()
        }),
        ..RequestFacts::default()
    })
}

/// Counts the documents, one by one, so that a hostile list costs no memory.
fn documents(list: &str, piece: u64) -> Result<Documents, Malformed> {
    struct Count(u64);
    impl<'de> Visitor<'de> for Count {
        type Value = Documents;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of documents")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut sum = Documents::default();
            while let Some(document) = seq.next_element::<&RawValue>()? {
                let bytes = document.get().len() as u64;
                sum.bytes = sum.bytes.saturating_add(bytes);
                sum.pieces = sum.pieces.saturating_add(bytes.div_ceil(self.0).max(1));
                sum.not_text |= !is_text(document.get());
            }
            Ok(sum)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(list);
    reader
        .deserialize_seq(Count(piece))
        .map_err(|error| json_strict::malformed(&error))
}

/// A text, or an object whose members are texts.
fn is_text(document: &str) -> bool {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut text = true;
            while let Some((Key(name), _)) = map.next_entry::<Key<'de>, IgnoredAny>()? {
                text &= !NOT_TEXT.iter().any(|other| name.eq_ignore_ascii_case(other));
            }
            Ok(text)
        }
    }
    match document.as_bytes().first() {
        Some(b'"') => true,
        Some(b'{') => serde_json::Deserializer::from_str(document)
            .deserialize_map(Members)
            .unwrap_or(false),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
