//! What a reply of InvokeModel turned out to hold: the maker's own, with the service's counts beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::llm::bedrock_converse;
use crate::llm::frames::Frames;
use crate::llm::reply::{Calls, Edit, Format, Verdict};
use crate::llm::{ReplyFacts, Seen, Usage, anthropic};
use crate::refusal::Refusal;

/// One event of the stream.
#[derive(Deserialize)]
struct Event {
    chunk: Option<Chunk>,
}

#[derive(Deserialize)]
struct Chunk {
    bytes: Option<String>,
}

/// What tells Anthropic's events and replies, and the service's own counts in the last one.
#[derive(Deserialize)]
struct Inner {
    r#type: Option<String>,
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Option<Metrics>,
    message: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    input_token_count: Option<u64>,
    output_token_count: Option<u64>,
    cache_read_input_token_count: Option<u64>,
    cache_write_input_token_count: Option<u64>,
}

impl Metrics {
    fn buckets(&self) -> Option<Usage> {
        Some(Usage {
            input: self.input_token_count?,
            cache_read: self.cache_read_input_token_count.unwrap_or(0),
            cache_write_5m: self.cache_write_input_token_count.unwrap_or(0),
            output: self.output_token_count?,
            ..Usage::default()
        })
    }
}

/// The reader's state.
pub(super) struct InvokeReply {
    /// Reads the maker's own format, which is known from the first thing it says.
    maker: Option<Box<dyn Format>>,
    /// The service's own counts, for replies that say nothing themselves.
    counted: Option<Usage>,
    error: bool,
    complete: bool,
    unread: bool,
}

impl InvokeReply {
    pub(super) fn new(headers: &HeaderMap) -> Self {
        let count = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let metrics = Metrics {
            input_token_count: count("x-amzn-bedrock-input-token-count"),
            output_token_count: count("x-amzn-bedrock-output-token-count"),
            cache_read_input_token_count: count("x-amzn-bedrock-cache-read-input-token-count"),
            cache_write_input_token_count: count("x-amzn-bedrock-cache-write-input-token-count"),
        };
        Self {
            maker: None,
            counted: metrics.buckets(),
            error: false,
            complete: false,
            unread: false,
        }
    }

    /// The maker's reader, chosen at the first word.
    fn maker(&mut self, inner: &Inner) -> &mut dyn Format {
        self.maker
            .get_or_insert_with(|| match inner.r#type {
                Some(_) => Box::new(anthropic::reply_format()),
                None => Box::new(bedrock_converse::reply_format()),
            })
            .as_mut()
    }
}

impl Format for InvokeReply {
    fn frames(&self, media: &str) -> Option<Box<dyn Frames>> {
        bedrock_converse::frames(media)
    }

    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        let Ok(event) = serde_json::from_slice::<Event>(data) else {
            self.unread();
            return Verdict::Unreadable;
        };
        let Some(chunk) = event.chunk else {
            // The only other events are the service's exceptions.
            self.error = true;
            return Verdict::Forward;
        };
        let decoded = chunk.bytes.and_then(|text| STANDARD.decode(text).ok());
        let Some((bytes, inner)) = decoded.and_then(|bytes| {
            let inner = serde_json::from_slice::<Inner>(&bytes).ok()?;
            Some((bytes, inner))
        }) else {
            self.unread();
            return Verdict::Unreadable;
        };
        if let Some(metrics) = &inner.metrics {
            self.counted = metrics.buckets();
            self.complete = true;
        }
        self.maker(&inner).event(&bytes, calls)
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        let Ok(inner) = serde_json::from_slice::<Inner>(body) else {
            self.unread();
            return false;
        };
        if inner.r#type.is_none() && inner.message.is_some() {
            self.error = true;
            self.complete = true;
            return true;
        }
        self.maker(&inner).whole(body, calls)
    }

    /// The maker's own event stands in the service's as text of another alphabet.
    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        let Some(maker) = &mut self.maker else {
            return Edit::Same;
        };
        let Some(text) = event.pointer("/chunk/bytes").and_then(Value::as_str) else {
            return maker.without(event, calls);
        };
        let inner = STANDARD.decode(text).ok();
        let Some(inner) = inner.and_then(|bytes| serde_json::from_slice(&bytes).ok()) else {
            return Edit::Cannot;
        };
        match maker.without(inner, calls) {
            Edit::Events(events) => {
                let wrapped = |inner: Value| json!({"chunk": {"bytes": STANDARD.encode(inner.to_string())}});
                Edit::Events(events.into_iter().map(wrapped).collect())
            }
            other => other,
        }
    }

    fn without_in_whole(&mut self, reply: Value, calls: &mut Calls) -> Edit {
        match &mut self.maker {
            Some(maker) => maker.without_in_whole(reply, calls),
            None => Edit::Cannot,
        }
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        bedrock_converse::exception(refusal, request_id)
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        bedrock_converse::refuse(refusal, request_id).body
    }

    fn seen(&self) -> Seen {
        self.maker.as_ref().map(|maker| maker.seen()).unwrap_or_default()
    }

    fn unread(&mut self) {
        self.unread = true;
        if let Some(maker) = &mut self.maker {
            maker.unread();
        }
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = self.maker.as_mut().map(|maker| maker.facts()).unwrap_or_default();
        if !self.unread {
            facts.usage = facts.usage.or(self.counted.take());
        }
        facts.error |= self.error;
        facts.complete |= self.complete;
        facts
    }
}
