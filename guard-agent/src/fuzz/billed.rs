//! Requests that are billed in other ways than by their text: what is reserved is no less than what another reading of the
//! same body comes to.

use serde_json::Value;

use super::{alike, broken};
use crate::llm::provider::dialect_of;
use crate::llm::{DialectKind, Malformed, Place, RequestFacts, Unit};

fn read(kind: DialectKind, tail: &str, body: &[u8]) -> Result<RequestFacts, Malformed> {
    let place = Place {
        tail: tail.to_owned(),
        ..Place::default()
    };
    dialect_of(kind).request_at(&place, body)
}

/// A query and documents, the same in both formats that have them.
pub(super) fn rerank(body: &[u8]) {
    let facts = read(DialectKind::Cohere, "/v2/rerank", body);
    let elsewhere = read(DialectKind::Embeddings, "/v1/rerank", body);
    alike(&facts, &elsewhere, "two formats");
    let Ok(facts) = facts else { return };
    let Some(bound) = facts.bound else {
        broken("nothing bounds it");
        return;
    };
    // Not all of what passes can be read as a value (half a surrogate, a number without bound).
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    assert_eq!(value["model"].as_str(), Some(facts.model.as_str()));
    let query = value["query"].as_str().map_or(0, str::len) as u64;
    let documents = value["documents"].as_array().cloned().unwrap_or_default();
    let (mut tokens, mut pieces) = (0_u64, 0_u64);
    for document in &documents {
        let length = match document {
            Value::String(text) => text.len() as u64,
            Value::Object(members) => members
                .values()
                .filter_map(Value::as_str)
                .map(str::len)
                .sum::<usize>() as u64,
            _ => return broken("it is no text"),
        };
        let parts = length.div_ceil(500).max(1);
        tokens += length + query * parts;
        pieces += parts;
    }
    assert!(
        bound.input >= tokens,
        "{} tokens, reserved for {}",
        tokens,
        bound.input
    );
    let searches = bound.units.get(Unit::SearchUnit);
    assert!(
        searches >= pieces.div_ceil(100).max(1),
        "{pieces} pieces in {searches} searches"
    );
}
