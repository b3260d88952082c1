//! Golden tests of the endpoints of a format beside its ordinary one: what must be read from each request. `NAME.ENDING` is
//! the body of one, and stands in the directory of its format.

use super::formats::facts_at;
use super::{fixtures, snapshot};
use crate::llm::DialectKind::{self, Cohere, Embeddings};

/// A format, the ending of its fixtures, and the path.
const ENDPOINTS: [(DialectKind, &str, &str); 2] = [
    (Cohere, "rerank", "/v2/rerank"),
    (Embeddings, "rerank", "/v1/rerank"),
];

#[test]
fn request_facts_of_what_is_billed_in_other_ways_than_by_text() {
    for (kind, ending, path) in ENDPOINTS {
        let all = fixtures(kind, &format!(".{ending}.json"));
        assert!(!all.is_empty(), "{kind:?} {ending}");
        for (name, body) in all {
            let facts =
                facts_at(kind, path, &body).unwrap_or_else(|error| panic!("{kind:?} {name}: {error}"));
            snapshot(kind, &format!("{name}.{ending}"), &facts);
        }
    }
}
