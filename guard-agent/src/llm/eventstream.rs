//! Amazon's binary event stream (`application/vnd.amazon.eventstream`), cut out of a byte stream as it passes.
//!
//! In: chunks of any size. Out: each message as the JSON text of a union, `{"EVENT": PAYLOAD}`, as the service's own
//! model has it, and where in the chunk it ends. On failure: a message longer than `MESSAGE_LIMIT` is reported as
//! oversize and its bytes are not kept; a checksum that does not match ends the reading, because nothing behind it can
//! be found any more.
//!
//! A message is: total length, length of headers, checksum of these two; headers; payload; checksum of all before it.
//! Numbers are big-endian, checksums CRC-32 (docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and
//! smithy.io/2.0/aws/amazon-eventstream.html).

use std::borrow::Cow;

use crate::llm::sse::{Found, Step};

/// Its media type.
pub const MEDIA: &str = "application/vnd.amazon.eventstream";

/// Bytes of one message that are kept while its end has not come. The protocol allows 16 MiB of payload; a model's
/// events have some hundred bytes.
pub const MESSAGE_LIMIT: usize = 1024 * 1024;
/// The two lengths and their checksum.
const PRELUDE: usize = 12;
/// The prelude and the last checksum.
const SMALLEST: usize = PRELUDE + 4;
/// Type of a header's value: a string with two bytes of length before it.
const STRING: u8 = 7;

/// The incremental scanner. One value per stream.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The message begun in earlier chunks.
    partial: Vec<u8>,
    /// Bytes still to come of a message that is not kept.
    skip: usize,
    /// Nothing more can be found.
    lost: bool,
}

impl Scanner {
    /// Finds the end of the next message in `chunk` from offset `from` on. `None`: the rest of the chunk was taken in
    /// and the message goes on in the next one. Call again with `from = step.end` until `None`.
    pub fn next<'a>(&mut self, chunk: &'a [u8], from: usize) -> Option<Step<'a>> {
        let rest = chunk.get(from..).unwrap_or_default();
        if self.lost || rest.is_empty() {
            return None;
        }
        if self.skip > 0 {
            let taken = self.skip.min(rest.len());
            self.skip -= taken;
            return (self.skip == 0).then_some(Step {
                found: Found::Oversize,
                end: from + taken,
            });
        }
        let had = self.partial.len();
        // The prelude first: it says how much is wanted.
        let lacking = PRELUDE.saturating_sub(had).min(rest.len());
        self.partial
            .extend_from_slice(rest.get(..lacking).unwrap_or_default());
        let prelude = self.partial.get(..PRELUDE)?;
        let Some(total) = total_length(prelude) else {
            self.lost = true;
            return Some(Step {
                found: Found::Oversize,
                end: chunk.len(),
            });
        };
        let missing = total - had - lacking;
        let rest = rest.get(lacking..).unwrap_or_default();
        if total > MESSAGE_LIMIT {
            self.partial = Vec::new();
            let taken = missing.min(rest.len());
            self.skip = missing - taken;
            return (self.skip == 0).then_some(Step {
                found: Found::Oversize,
                end: from + lacking + taken,
            });
        }
        let taken = missing.min(rest.len());
        self.partial
            .extend_from_slice(rest.get(..taken).unwrap_or_default());
        if taken < missing {
            return None;
        }
        let message = std::mem::take(&mut self.partial);
        let end = from + lacking + taken;
        match union(&message) {
            Some(text) => Some(Step {
                found: Found::Event(Cow::Owned(text)),
                end,
            }),
            None => {
                self.lost = true;
                Some(Step {
                    found: Found::Oversize,
                    end: chunk.len(),
                })
            }
        }
    }

    /// Whether a message has begun that has not ended.
    pub fn inside_event(&self) -> bool {
        self.skip > 0 || !self.partial.is_empty()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_be_bytes(four))
}

/// The whole length of a message, if its prelude is sound.
fn total_length(prelude: &[u8]) -> Option<usize> {
    let total = usize::try_from(number(prelude, 0)?).ok()?;
    let headers = usize::try_from(number(prelude, 4)?).ok()?;
    let sound = number(prelude, 8)? == crc32fast::hash(prelude.get(..8)?);
    (sound && total >= SMALLEST && headers <= total - SMALLEST).then_some(total)
}

/// A whole message as a union; `None` when a checksum does not match or it is no event.
fn union(message: &[u8]) -> Option<Vec<u8>> {
    let (body, sum) = message.split_at_checked(message.len().checked_sub(4)?)?;
    if number(sum, 0)? != crc32fast::hash(body) {
        return None;
    }
    let headers = usize::try_from(number(message, 4)?).ok()?;
    let payload = body.get(PRELUDE + headers..)?;
    let name = event_name(body.get(PRELUDE..PRELUDE + headers)?)?;
    let mut text = Vec::with_capacity(payload.len() + name.len() + 8);
    text.extend_from_slice(b"{\"");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\":");
    text.extend_from_slice(if payload.is_empty() {
        b"{}".as_slice()
    } else {
        payload
    });
    text.push(b'}');
    Some(text)
}

/// The name of the event, the exception or the error.
fn event_name(mut headers: &[u8]) -> Option<&str> {
    let mut found = None;
    while let Some((length, rest)) = headers.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (&kind, rest) = rest.split_first()?;
        let size = match kind {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            6 | STRING => 2 + usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)),
            9 => 16,
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(size)?;
        if kind == STRING && matches!(name, b":event-type" | b":exception-type" | b":error-code") {
            found = std::str::from_utf8(value.get(2..)?).ok();
        }
        headers = rest;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    found.filter(|name| !name.is_empty() && name.bytes().all(plain))
}

/// A message with these string headers.
pub fn encode(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        block.extend_from_slice(name.as_bytes());
        block.push(STRING);
        block.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut message = Vec::with_capacity(SMALLEST + block.len() + payload.len());
    message.extend_from_slice(&length(SMALLEST + block.len() + payload.len()));
    message.extend_from_slice(&length(block.len()));
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message.extend_from_slice(&block);
    message.extend_from_slice(payload);
    message.extend_from_slice(&crc32fast::hash(&message).to_be_bytes());
    message
}

#[cfg(test)]
mod tests;
