//! Content codings (RFC 9110 §8.4): requests are decoded before they are read, replies are decoded beside the bytes
//! that are forwarded.
//!
//! In: headers and bytes. Out: decoded bytes. On failure: a request gets a reason for its refusal; a reply's reader
//! stops and says unknown, and the reply passes as it came.

use std::io::{self, Read, Write};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::llm::{Dialect, Malformed, ReplyFacts, ReplyHead, ReplyReader, Seen};
use crate::refusal::{Reason, Refusal};

mod br;

/// Largest zstd window, as a power of two: 8 MB, the most that RFC 9659 §3 allows for this content coding.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A reply may decode to this many bytes beyond the ratio before metering stops.
const REPLY_SLACK: u64 = 1024 * 1024;

/// Decoded bytes of a reply for each byte that came; event streams stay far below it.
const REPLY_RATIO: u64 = 200;

/// One content coding that Guard reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Bytes as they are.
    Identity,
    /// `gzip`, `x-gzip` (RFC 1952).
    Gzip,
    /// `deflate`: zlib (RFC 1950); in replies also the bare form that some servers send.
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}

/// The coding of a message. `None`: one that Guard does not read, or several on top of each other.
pub fn coding(headers: &HeaderMap) -> Option<Coding> {
    let mut found = Coding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        for token in value.to_str().ok()?.split(',') {
            let next = match token.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                "br" => Coding::Brotli,
                "zstd" => Coding::Zstd,
                _ => return None,
            };
            if found != Coding::Identity {
                return None;
            }
            found = next;
        }
    }
    Some(found)
}

/// Why a request body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not what its `content-encoding` says, is cut short, or has bytes behind its end.
    #[error("the body does not decode as its content-encoding says")]
    Malformed,
    /// The decoded body is larger than the limit.
    #[error("the decoded body is larger than {0} bytes")]
    TooLarge(usize),
    /// The coding is not one that Guard reads.
    #[error(
        "the body's content-encoding is not supported: send it plain, or as gzip, deflate, br or zstd alone"
    )]
    Unsupported,
}

impl DecodeError {
    /// The reason for the refusal.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed => Reason::Malformed,
            Self::TooLarge(_) => Reason::BodyTooLarge,
            Self::Unsupported => Reason::UnsupportedEncoding,
        }
    }
}

impl From<DecodeError> for Malformed {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// Decodes a whole request body, to at most `limit` bytes. Exactly one stream is accepted: what follows it could be
/// read by the provider and not by Guard, or the other way round.
pub fn decode_request(headers: &HeaderMap, body: &Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let coding = coding(headers).ok_or(DecodeError::Unsupported)?;
    let (out, rest) = match coding {
        Coding::Identity if body.len() > limit => return Err(DecodeError::TooLarge(limit)),
        Coding::Identity => return Ok(body.clone()),
        Coding::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(body.as_ref());
            (read_bounded(&mut decoder, limit)?, decoder.into_inner().len())
        }
        Coding::Deflate => {
            let mut decoder = flate2::bufread::ZlibDecoder::new(body.as_ref());
            (read_bounded(&mut decoder, limit)?, decoder.into_inner().len())
        }
        Coding::Brotli => br::decode(body, limit)?,
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body.as_ref())
                .map_err(undecodable)?
                .single_frame();
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(undecodable)?;
            (read_bounded(&mut decoder, limit)?, decoder.finish().len())
        }
    };
    if rest > 0 {
        return Err(DecodeError::Malformed);
    }
    Ok(Bytes::from(out))
}

/// Decoders' own errors say nothing that a client could use.
fn undecodable(_: io::Error) -> DecodeError {
    DecodeError::Malformed
}

fn read_bounded(decoder: &mut impl Read, limit: usize) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(most).read_to_end(&mut out).map_err(undecodable)?;
    if out.len() > limit {
        return Err(DecodeError::TooLarge(limit));
    }
    Ok(out)
}

/// Takes decoded bytes up to a bound.
struct Sink {
    out: Vec<u8>,
    left: usize,
    full: bool,
}

impl Sink {
    fn new(left: usize) -> Self {
        Self {
            out: Vec::new(),
            left,
            full: false,
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            self.full = true;
            return Err(io::Error::other("decoded to more than the bound"));
        };
        self.left = left;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes a reply as it passes.
pub struct ReplyDecoder {
    inner: Inner,
    /// Bytes that may still come out, beyond what further input allows.
    credit: u64,
}

enum Inner {
    Identity,
    /// `deflate` or `br`, before the first byte shows which form it is.
    Undecided(Coding),
    Gzip(Box<flate2::write::MultiGzDecoder<Sink>>),
    Zlib(Box<flate2::write::ZlibDecoder<Sink>>),
    Raw(Box<flate2::write::DeflateDecoder<Sink>>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
    /// Decoding has failed; nothing more is read.
    Lost,
}

impl ReplyDecoder {
    /// A decoder for a reply with these headers; `None` when Guard does not read its coding.
    pub fn new(headers: &HeaderMap) -> Option<Self> {
        let inner = match coding(headers)? {
            Coding::Identity => Inner::Identity,
            Coding::Gzip => Inner::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Sink::new(0)))),
            undecided @ (Coding::Deflate | Coding::Brotli) => Inner::Undecided(undecided),
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(Sink::new(0)).ok()?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).ok()?;
                Inner::Zstd(Box::new(decoder))
            }
        };
        Some(Self {
            inner,
            credit: REPLY_SLACK,
        })
    }

    /// Whether the reply needs no decoding.
    pub fn is_identity(&self) -> bool {
        matches!(self.inner, Inner::Identity)
    }

    /// Takes the next bytes as they came and gives what they decode to. `None`: they can't be decoded, or to far
    /// more than a reply does; from then on it is always `None`.
    pub fn feed(&mut self, chunk: &Bytes) -> Option<Bytes> {
        if let (Inner::Undecided(coding), Some(&first)) = (&self.inner, chunk.first()) {
            self.inner = decided(*coding, first);
        }
        let came = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.credit = self.credit.saturating_add(came.saturating_mul(REPLY_RATIO));
        let bound = usize::try_from(self.credit).unwrap_or(usize::MAX);
        let out = match &mut self.inner {
            Inner::Identity => return Some(chunk.clone()),
            Inner::Undecided(_) => return Some(Bytes::new()),
            Inner::Lost => return None,
            Inner::Gzip(decoder) => push(decoder, |d| d.get_mut(), chunk, bound),
            Inner::Zlib(decoder) => push(decoder, |d| d.get_mut(), chunk, bound),
            Inner::Raw(decoder) => push(decoder, |d| d.get_mut(), chunk, bound),
            Inner::Brotli(decoder) => push(decoder, |d| d.get_mut(), chunk, bound),
            Inner::Zstd(decoder) => push(decoder, |d| d.get_mut(), chunk, bound),
        };
        match out {
            Ok(out) => {
                self.credit = self
                    .credit
                    .saturating_sub(u64::try_from(out.len()).unwrap_or(u64::MAX));
                Some(Bytes::from(out))
            }
            Err(_) => {
                self.inner = Inner::Lost;
                None
            }
        }
    }
}

/// The decoder for what begins with this byte.
fn decided(coding: Coding, first: u8) -> Inner {
    match coding {
        Coding::Brotli if br::beyond(first) => Inner::Lost,
        Coding::Brotli => Inner::Brotli(Box::new(brotli::DecompressorWriter::new(Sink::new(0), 4096))),
        // A zlib header has compression method 8 in its low four bits (RFC 1950 §2.2); a bare deflate stream that begins
        // so would be a stored block with a reserved pattern, which encoders do not write.
        _ if first & 0x0f == 8 => Inner::Zlib(Box::new(flate2::write::ZlibDecoder::new(Sink::new(0)))),
        _ => Inner::Raw(Box::new(flate2::write::DeflateDecoder::new(Sink::new(0)))),
    }
}

fn push<D: Write>(
    decoder: &mut D,
    sink: impl Fn(&mut D) -> &mut Sink,
    chunk: &[u8],
    bound: usize,
) -> io::Result<Vec<u8>> {
    *sink(decoder) = Sink::new(bound);
    decoder.write_all(chunk)?;
    decoder.flush()?;
    Ok(std::mem::take(&mut sink(decoder).out))
}

/// The reader for a reply, whatever its coding: plain replies are read by the dialect directly; encoded ones are
/// decoded beside the forwarded bytes, which pass as they came (so nothing can be hidden in them: ask the provider for
/// `identity` where an event has to be hidden); a coding that Guard does not read gives unknown facts. Under a gate only
/// what was judged passes, so the decoded bytes are what is forwarded, and of what can't be decoded nothing.
pub fn reader_for(dialect: &dyn Dialect, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
    let gated = head.gate.is_some();
    let Some(decoder) = ReplyDecoder::new(head.headers) else {
        return Box::new(Unread {
            error: !head.status.is_success(),
            withhold: gated,
        });
    };
    if decoder.is_identity() {
        return dialect.reply(head);
    }
    let plain = ReplyHead {
        hide_usage_event: head.hide_usage_event && gated,
        ..head.clone()
    };
    Box::new(Beside {
        decoder,
        reader: dialect.reply(&plain),
        lost: false,
        gated,
    })
}

/// Passes an encoded reply and reads what it decodes to.
struct Beside {
    decoder: ReplyDecoder,
    reader: Box<dyn ReplyReader>,
    lost: bool,
    gated: bool,
}

impl ReplyReader for Beside {
    fn feed(&mut self, chunk: Bytes) -> Bytes {
        match self.decoder.feed(&chunk) {
            // The decoded bytes are only read; the original ones are what is forwarded.
            Some(decoded) => {
                let judged = self.reader.feed(decoded);
                if self.gated {
                    return judged;
                }
            }
            None => self.lost = true,
        }
        if self.gated || self.reader.stopped() {
            Bytes::new()
        } else {
            chunk
        }
    }

    fn finish(&mut self) -> (Bytes, ReplyFacts) {
        let (left, mut facts) = self.reader.finish();
        if self.lost {
            facts.usage = None;
            facts.complete = false;
        }
        (if self.gated { left } else { Bytes::new() }, facts)
    }

    /// Encoded bytes cannot be continued with plain ones: without a gate the reply just ends.
    fn cut(&mut self, refusal: &Refusal, request_id: &str) -> Bytes {
        let words = self.reader.cut(refusal, request_id);
        if self.gated { words } else { Bytes::new() }
    }

    fn seen(&self) -> Seen {
        self.reader.seen()
    }

    fn stopped(&self) -> bool {
        self.reader.stopped()
    }

    fn holds_all(&self) -> bool {
        self.gated && self.reader.holds_all()
    }

    fn replaced(&mut self) -> Option<Refusal> {
        self.reader.replaced()
    }
}

/// Passes a reply that Guard can't read.
struct Unread {
    error: bool,
    withhold: bool,
}

impl ReplyReader for Unread {
    fn feed(&mut self, chunk: Bytes) -> Bytes {
        if self.withhold { Bytes::new() } else { chunk }
    }

    fn finish(&mut self) -> (Bytes, ReplyFacts) {
        let facts = ReplyFacts {
            error: self.error,
            ..ReplyFacts::default()
        };
        (Bytes::new(), facts)
    }
}

#[cfg(test)]
mod tests;
