//! Golden tests of the wire formats. A new format is one directory of fixtures: `NAME.request.json` (its facts are the
//! snapshot), `NAME.reply.json` and `NAME.reply.sse` (what the reader learns).

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::fuzz::replies::drain;
use crate::llm::provider::dialect_of;
use crate::llm::{Dialect, DialectKind, Gate, ReplyFacts, ReplyHead, Seen};

mod billed;
mod calls;
mod compressed;
pub(in crate::llm) mod conversations;
mod format_rewrites;
mod formats;
mod judged;
mod observed;
mod paths;
mod properties;
mod recorded;
mod refusals;
mod requests;
mod rewrites;

const KINDS: [DialectKind; 2] = [DialectKind::OpenaiChat, DialectKind::AnthropicMessages];

/// Reads a reply in pieces; gives what was forwarded and what was learnt.
fn read(dialect: &dyn Dialect, sse: bool, hide: bool, pieces: &[&[u8]]) -> (Vec<u8>, ReplyFacts) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media(sse)));
    read_as(dialect, &headers, hide, pieces)
}

/// What a stream is seen to take while it passes.
fn seen(dialect: &dyn Dialect, media: &'static str, body: &[u8]) -> Seen {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let head = ReplyHead {
        status: StatusCode::OK,
        headers: &headers,
        hide_usage_event: false,
        gate: None,
    };
    let mut reader = dialect.reply(&head);
    drop(reader.feed(Bytes::copy_from_slice(body)));
    reader.seen()
}

/// The same, of this media type.
fn read_media(dialect: &dyn Dialect, media: &'static str, pieces: &[&[u8]]) -> (Vec<u8>, ReplyFacts) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    read_as(dialect, &headers, false, pieces)
}

fn media(sse: bool) -> &'static str {
    if sse {
        "text/event-stream; charset=utf-8"
    } else {
        "application/json"
    }
}

fn read_as(
    dialect: &dyn Dialect,
    headers: &HeaderMap,
    hide: bool,
    pieces: &[&[u8]],
) -> (Vec<u8>, ReplyFacts) {
    read_gated(dialect, headers, hide, None, pieces)
}

fn read_gated(
    dialect: &dyn Dialect,
    headers: &HeaderMap,
    hide: bool,
    gate: Option<&Arc<dyn Gate>>,
    pieces: &[&[u8]],
) -> (Vec<u8>, ReplyFacts) {
    let head = ReplyHead {
        status: StatusCode::OK,
        headers,
        hide_usage_event: hide,
        gate,
    };
    drain(dialect.reply(&head), pieces)
}

/// The fixtures of one format whose names end so, sorted.
fn fixtures(kind: DialectKind, ending: &str) -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/llm/golden")
        .join(kind.label());
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((name, std::fs::read(&path).unwrap()))
        })
        .collect();
    all.sort();
    all
}

fn snapshot(kind: DialectKind, name: &str, value: &impl serde::Serialize) {
    insta::with_settings!({
        snapshot_path => format!("golden/{}", kind.label()),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_json_snapshot!(name, value);
    });
}

#[test]
fn request_facts() {
    for kind in KINDS {
        let all = fixtures(kind, ".request.json");
        assert!(!all.is_empty(), "{kind:?}");
        for (name, body) in all {
            let facts = dialect_of(kind).request(&body).unwrap();
            snapshot(kind, &format!("{name}.request"), &facts);
        }
    }
}

#[test]
fn reply_facts() {
    for kind in KINDS {
        for (ending, sse) in [(".reply.json", false), (".reply.sse", true)] {
            let all = fixtures(kind, ending);
            assert!(!all.is_empty(), "no {ending} for {kind:?}");
            for (name, body) in all {
                let (out, facts) = read(dialect_of(kind), sse, false, &[&body]);
                assert_eq!(out, body, "{name}");
                snapshot(kind, &format!("{name}{ending}"), &facts);
            }
        }
    }
}
