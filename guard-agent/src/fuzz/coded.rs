//! Content codings: one look at the whole, and piece by piece as a reply passes.

use std::io::Write;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};

use super::{controls, pieces};
use crate::llm::encoding::{DecodeError, ReplyDecoder, decode_request};

/// Most bytes that a request may decode to, here.
const LIMIT: usize = 256 * 1024;

/// One coding.
#[derive(Clone, Copy)]
pub(super) enum Codec {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Codec {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The bytes in this coding.
    pub(super) fn coded(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let level = flate2::Compression::fast();
        match self {
            Self::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), level);
                out.write_all(bytes).ok()?;
                out.finish().ok()
            }
            Self::Deflate => {
                let mut out = flate2::write::ZlibEncoder::new(Vec::new(), level);
                out.write_all(bytes).ok()?;
                out.finish().ok()
            }
            Self::Brotli => {
                let mut out = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 16);
                out.write_all(bytes).ok()?;
                Some(out.into_inner())
            }
            Self::Zstd => zstd::stream::encode_all(bytes, 1).ok(),
        }
    }
}

/// Arbitrary bytes, or (bit 0 of the first byte) the coding of arbitrary bytes, with (bit 1) something behind it.
pub(super) fn check(codec: Codec, input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(codec.name()));
    if mode & 3 == 3 {
        let (body, behind) = rest.split_at(rest.len() / 2);
        if let Some(coded) = codec.coded(body).filter(|_| !behind.is_empty()) {
            let both = Bytes::from([&coded, behind].concat());
            let read = decode_request(&headers, &both, LIMIT);
            assert!(read.is_err(), "what follows the stream was overlooked");
        }
        return;
    }
    let coded = match mode & 1 {
        0 => None,
        _ => codec.coded(rest),
    };
    let bytes = Bytes::from(coded.clone().unwrap_or_else(|| rest.to_vec()));
    let request = decode_request(&headers, &bytes, LIMIT);
    if let Ok(out) = &request {
        assert!(out.len() <= LIMIT, "{} bytes", out.len());
    }
    if coded.is_some() {
        let wanted = if rest.len() > LIMIT {
            Err(DecodeError::TooLarge(LIMIT))
        } else {
            Ok(Bytes::copy_from_slice(rest))
        };
        assert!(request == wanted, "what was coded is not what is decoded");
    }
    let Some(mut decoder) = ReplyDecoder::new(&headers) else {
        return;
    };
    let mut out = Vec::new();
    let mut lost = false;
    for piece in pieces(&bytes, how) {
        match decoder.feed(&Bytes::copy_from_slice(piece)) {
            Some(decoded) => out.extend_from_slice(&decoded),
            None => lost = true,
        }
        let most = (1 << 20) + 200 * bytes.len();
        assert!(out.len() <= most, "{} bytes out of {}", out.len(), bytes.len());
    }
    // A whole request is one that a reply's reader decodes alike, whatever the pieces. Brotli's decoder gives up on some
    // streams that no encoder writes when they come in pieces, and not when they come whole: then a reply is not read.
    let strange = matches!(codec, Codec::Brotli) && coded.is_none();
    if let Ok(whole) = request
        && !bytes.is_empty()
        && !(lost && strange)
    {
        assert!(!lost && out == whole, "in pieces it decodes to something else");
    }
}
