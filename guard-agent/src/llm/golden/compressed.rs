//! Every golden reply again, compressed in each coding that Guard reads: the same facts, and the bytes as they came,
//! wherever the compressed bytes are split.

use std::io::Write;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::formats::{ENDINGS, FORMATS, wire};
use super::{KINDS, fixtures};
use crate::fuzz::replies::drain;
use crate::llm::encoding::reader_for;
use crate::llm::provider::dialect_of;
use crate::llm::{Dialect, DialectKind, ReplyFacts, ReplyHead};

/// The codings, as `content-encoding` names them; `raw` is what some servers send for `deflate`.
pub(super) const CODINGS: [&str; 5] = ["gzip", "deflate", "raw", "br", "zstd"];

/// A body in one of [`CODINGS`].
pub(super) fn pack(coding: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "raw" => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut packed = Vec::new();
            let parameters = brotli::enc::BrotliEncoderParams {
                quality: 4,
                ..Default::default()
            };
            brotli::BrotliCompress(&mut &*body, &mut packed, &parameters).unwrap();
            packed
        }
        "zstd" => zstd::encode_all(body, 3).unwrap(),
        other => panic!("{other}"),
    }
}

/// Reads what was packed, in pieces; gives what was forwarded and what was learnt.
pub(super) fn read_packed(
    dialect: &dyn Dialect,
    media: &'static str,
    coding: &'static str,
    pieces: &[&[u8]],
) -> (Vec<u8>, ReplyFacts) {
    let mut headers = HeaderMap::new();
    let named = if coding == "raw" { "deflate" } else { coding };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(named));
    let head = ReplyHead {
        status: StatusCode::OK,
        headers: &headers,
        hide_usage_event: false,
        gate: None,
    };
    drain(reader_for(dialect, &head), pieces)
}

/// Every reply among the fixtures of every format: format, name, media type, bytes on the wire.
fn replies() -> Vec<(DialectKind, String, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    let formats = FORMATS.map(|(kind, _)| kind);
    for kind in KINDS.into_iter().chain(formats).chain([DialectKind::Media]) {
        let before = all.len();
        for (ending, media) in ENDINGS {
            for (name, fixture) in fixtures(kind, ending) {
                all.push((kind, format!("{name}{ending}"), media, wire(media, fixture)));
            }
        }
        assert!(all.len() > before, "{kind:?}");
    }
    all
}

#[test]
fn golden_replies_are_read_alike_in_every_coding_wherever_they_are_split() {
    let mut readings = 0;
    for (kind, name, media, body) in replies() {
        let dialect = dialect_of(kind);
        let (_, plain) = super::read_media(dialect, media, &[&body]);
        for coding in CODINGS {
            let packed = pack(coding, &body);
            let mut check = |pieces: &[&[u8]]| {
                let (out, facts) = read_packed(dialect, media, coding, pieces);
                assert!(
                    out == packed,
                    "{kind:?} {name} {coding}: other bytes in {pieces:?}"
                );
                assert_eq!(facts, plain, "{kind:?} {name} {coding} in {pieces:?}");
                readings += 1;
            };
            for at in 0..=packed.len() {
                let (head, tail) = packed.split_at(at);
                check(&[head, tail]);
            }
            check(&packed.chunks(1).collect::<Vec<_>>());
        }
    }
    assert!(readings > 10_000, "{readings} readings");
}

#[test]
fn golden_replies_are_read_alike_wherever_they_are_split() {
    for (kind, name, media, body) in replies() {
        let dialect = dialect_of(kind);
        let whole = super::read_media(dialect, media, &[&body]);
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            let split = super::read_media(dialect, media, &[head, tail]);
            assert!(split == whole, "{kind:?} {name} at {at}: {:?}", split.1);
        }
        let bytes: Vec<_> = body.chunks(1).collect();
        assert!(
            super::read_media(dialect, media, &bytes) == whole,
            "{kind:?} {name}"
        );
    }
}
