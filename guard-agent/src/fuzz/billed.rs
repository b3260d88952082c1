//! Requests that are billed in other ways than by their text: what is reserved is no less than what another reading of the
//! same body comes to.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

use super::{alike, broken};
use crate::llm::multipart::parts;
use crate::llm::provider::dialect_of;
use crate::llm::{DialectKind, Malformed, Pictures, Place, RequestFacts, Unit, pictures as picture};

/// The content type of a form with the boundary `guard0`.
const FORM: &str = "multipart/form-data; boundary=guard0";
const MARK: &[u8] = b"--guard0";

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

/// A form, read as each of the endpoints that take one reads it. What passes is what a reader finds that cuts the body at
/// every place in which the boundary stands.
pub(super) fn multipart(body: &[u8]) {
    let form = parts(FORM, body);
    for tail in ["/v1/audio/transcriptions", "/v1/images/edits"] {
        let place = Place {
            tail: tail.to_owned(),
            content_type: Some(FORM.to_owned()),
            ..Place::default()
        };
        let facts = dialect_of(DialectKind::Media).request_at(&place, body);
        let Ok(facts) = facts else { continue };
        let Ok(form) = &form else {
            return broken("a form that cannot be read has facts");
        };
        let models: Vec<_> = form
            .iter()
            .filter(|part| part.name.eq_ignore_ascii_case("model"))
            .collect();
        let [model] = models[..] else {
            return broken("its model is not told once");
        };
        assert_eq!(model.content, facts.model.as_bytes());
        let Some(bound) = facts.bound else {
            return broken("nothing bounds it");
        };
        let files = form
            .iter()
            .filter(|part| part.is_file)
            .map(|part| part.content.len())
            .sum::<usize>() as u64;
        if tail.starts_with("/v1/audio") {
            // No recording has more than two million bytes a second.
            assert!(
                bound.units.get(Unit::AudioMillis) >= files.div_ceil(2_000_000),
                "{bound:?} {files}"
            );
        } else {
            assert!(bound.units.get(Unit::Image) >= 1, "{bound:?}");
        }
    }
    let Ok(form) = form else { return };
    let mut pieces = Vec::new();
    let mut rest = body;
    while let Some(at) = memchr::memmem::find(rest, MARK) {
        pieces.push(&rest[..at]);
        rest = &rest[at + MARK.len()..];
    }
    assert!(
        matches!(rest, b"--" | b"--\r\n"),
        "something stands behind the form"
    );
    assert_eq!(pieces.len(), form.len() + 1);
    assert!(pieces[0].is_empty(), "something stands before the form");
    for (piece, part) in pieces[1..].iter().zip(&form) {
        let head = piece.len() - part.content.len() - b"\r\n".len();
        assert!(piece[..head].ends_with(b"\r\n\r\n") && piece.ends_with(b"\r\n"));
        assert!(
            piece[head..].starts_with(part.content),
            "its content is not what stands there"
        );
        let says = |named: String| memchr::memmem::find(&piece[..head], named.as_bytes()).is_some();
        assert!(says(format!("name=\"{}\"", part.name)) || says(format!("name={}", part.name)));
    }
}

/// A picture, however it is written: what is decoded is what another decoder gets, and it counts the same everywhere.
pub(super) fn pictures(file: &[u8]) {
    let look = |text: &str| {
        let mut found = Pictures::default();
        found.look(text);
        found
    };
    let (plain, other) = (STANDARD.encode(file), URL_SAFE.encode(file));
    assert!(picture::decoded(&plain) == file && picture::decoded(&other) == file);
    let shown = look(&format!("data:image/png;base64,{plain}"));
    assert_eq!(shown.count, 1);
    assert_eq!(shown, look(&format!("DATA:image/x,{other}")));
    let bare = look(&plain);
    assert!(bare.count == 0 || bare == shown, "{bare:?} {shown:?}");
    look(&String::from_utf8_lossy(file));
}
