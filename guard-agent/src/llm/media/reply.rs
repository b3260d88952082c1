//! A reply of these endpoints as it passes: JSON, a stream of events, sound, or a text.
//!
//! In: its bytes. Out: the same bytes at once, whatever they are: no tool call can be in them, so nothing is judged. On
//! failure: the bytes pass, and the facts say unknown. Sound and plain text say nothing about what they cost.

use bytes::Bytes;
use http::header::CONTENT_TYPE;

use crate::llm::media::lean::Lean;
use crate::llm::media::usage::MediaReply;
use crate::llm::reply::{self, Format, JSON_LIMIT};
use crate::llm::{ReplyFacts, ReplyHead, ReplyReader};
use crate::refusal::Refusal;

/// How the reply comes.
enum Mode {
    /// Without a media type: the first byte decides.
    Undecided,
    /// One JSON text.
    Json(Lean),
    /// Events.
    Events(Box<reply::Reader<MediaReply>>),
    /// Anything else.
    Unread,
}

/// The reader.
pub(super) struct Reader {
    mode: Mode,
    failed: bool,
    stopped: bool,
    least_millis: u64,
}

impl Reader {
    pub(super) fn new(head: &ReplyHead<'_>, least_millis: u64) -> Self {
        let media = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media = media.unwrap_or_default().to_ascii_lowercase();
        let mode = if media.starts_with("application/json") {
            Mode::Json(Lean::new(JSON_LIMIT))
        } else if media.starts_with("text/event-stream") {
            let plain = ReplyHead {
                gate: None,
                hide_usage_event: false,
                ..head.clone()
            };
            Mode::Events(Box::new(reply::Reader::new(
                MediaReply::new(least_millis),
                &plain,
            )))
        } else if media.is_empty() {
            Mode::Undecided
        } else {
            Mode::Unread
        };
        Self {
            mode,
            failed: !head.status.is_success(),
            stopped: false,
            least_millis,
        }
    }
}

impl ReplyReader for Reader {
    fn feed(&mut self, chunk: Bytes) -> Bytes {
        if let Mode::Undecided = self.mode
            // The white space of JSON (RFC 8259 §2), and no other: what comes by itself is not read.
            && let Some(first) = chunk.iter().find(|byte| !b" \t\r\n".contains(byte))
        {
            self.mode = match first {
                b'{' => Mode::Json(Lean::new(JSON_LIMIT)),
                _ => Mode::Unread,
            };
        }
        let passing = match &mut self.mode {
            Mode::Json(lean) => {
                lean.push(&chunk);
                chunk
            }
            Mode::Events(reader) => reader.feed(chunk),
            Mode::Undecided | Mode::Unread => chunk,
        };
        if self.stopped { Bytes::new() } else { passing }
    }

    fn finish(&mut self) -> (Bytes, ReplyFacts) {
        let (left, mut facts) = match &mut self.mode {
            Mode::Json(lean) => {
                let mut format = MediaReply::new(self.least_millis);
                match lean.text() {
                    Some(text) => format.read_whole(text),
                    None => format.unread(),
                }
                (Bytes::new(), format.facts())
            }
            Mode::Events(reader) => reader.finish(),
            Mode::Undecided | Mode::Unread => {
                let facts = ReplyFacts {
                    complete: true,
                    ..ReplyFacts::default()
                };
                (Bytes::new(), facts)
            }
        };
        facts.error |= self.failed;
        (if self.stopped { Bytes::new() } else { left }, facts)
    }

    /// Only a stream of events has a way to say why it ends.
    fn cut(&mut self, refusal: &Refusal, request_id: &str) -> Bytes {
        let words = match &mut self.mode {
            Mode::Events(reader) if !self.stopped => reader.cut(refusal, request_id),
            _ => Bytes::new(),
        };
        self.stopped = true;
        words
    }

    fn stopped(&self) -> bool {
        self.stopped
    }
}
