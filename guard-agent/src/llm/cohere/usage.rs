//! What a reply of Cohere's turned out to hold: the object, or the events of a stream.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::llm::cohere::COHERE;
use crate::llm::few::Few;
use crate::llm::frames::sse_event;
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::request::lenient;
use crate::llm::seen::{Output, Weight};
use crate::llm::{Dialect, ReplyFacts, Seen, Unit, Usage, refusal_reply};
use crate::refusal::Refusal;

/// A whole reply, or what an event adds to it.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    finish_reason: Option<String>,
    #[serde(borrow)]
    usage: Option<WireUsage<'a>>,
    /// Embeddings have their usage in here.
    #[serde(borrow)]
    meta: Option<WireUsage<'a>>,
    embeddings: Option<IgnoredAny>,
    /// Of a rerank.
    results: Option<IgnoredAny>,
    /// Why a stream broke.
    error: Option<IgnoredAny>,
}

/// One event of a stream.
#[derive(Deserialize)]
struct Event<'a> {
    r#type: Option<String>,
    index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Reply<'a>>,
}

#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    tool_plan: Weight,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// None: it cannot be read.
    fn of(raw: Option<&'a RawValue>) -> Option<Self> {
        // An error has a text in this place.
        match raw.filter(|raw| raw.get().starts_with('{')) {
            Some(raw) => lenient(Some(raw)),
            None => Some(Self::default()),
        }
    }

    /// The calls: a list in a whole reply, one at a time in a stream. None: they cannot be read.
    fn calls(&self) -> Option<Few<Call>> {
        match self.tool_calls {
            None => Some(Few::default()),
            Some(list) if list.get().starts_with('[') => lenient(Some(list)),
            Some(one) => lenient(Some(one)).map(|call| Few::from([call])),
        }
    }

    /// Bytes of output in a piece of a stream, beside its calls.
    fn weight(&self) -> u64 {
        let content: Content = lenient(self.content).unwrap_or_default();
        let parts = [content.text, content.thinking, self.tool_plan];
        parts.iter().fold(0, |sum, part| sum.saturating_add(part.0))
    }
}

/// In a stream.
#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    text: Weight,
    #[serde(default)]
    thinking: Weight,
}

#[derive(Deserialize)]
struct Call {
    function: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage<'a> {
    #[serde(borrow)]
    billed_units: Option<Units<'a>>,
    #[serde(borrow)]
    tokens: Option<Units<'a>>,
    #[serde(borrow)]
    cached_tokens: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Units<'a> {
    #[serde(borrow)]
    input_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    output_tokens: Option<&'a RawValue>,
    /// Of a rerank.
    #[serde(borrow)]
    search_units: Option<&'a RawValue>,
}

/// A count, which comes with or without a zero behind the point.
fn count(raw: Option<&RawValue>) -> Option<u64> {
    let text = raw?.get();
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

impl WireUsage<'_> {
    /// The buckets: what is billed, which is less than what the model read (templates and tools are not billed).
    /// Cached tokens are counted among the model's: those beyond what is not billed were billed.
    fn buckets(&self, output_expected: bool) -> Option<Usage> {
        let billed = self.billed_units.as_ref().or(self.tokens.as_ref())?;
        let input = count(billed.input_tokens);
        // A rerank is billed by searches, or by tokens where its model has such a price.
        if let (None | Some(0), Some(searches)) = (input, count(billed.search_units)) {
            return Some(Usage::of_units(Unit::SearchUnit, searches));
        }
        let input = input?;
        let output = match count(billed.output_tokens) {
            Some(output) => output,
            None if output_expected => return None,
            None => 0,
        };
        let read = self.tokens.as_ref().and_then(|tokens| count(tokens.input_tokens));
        let unbilled = read.unwrap_or(0).saturating_sub(input);
        let cache_read = count(self.cached_tokens)
            .unwrap_or(0)
            .saturating_sub(unbilled)
            .min(input);
        Some(Usage {
            input: input - cache_read,
            cache_read,
            output,
            ..Usage::default()
        })
    }
}

/// The reader's state.
#[derive(Debug, Default)]
pub(super) struct CohereReply {
    facts: ReplyFacts,
    output: Output,
}

impl CohereReply {
    /// `index`: the place of the one call that an event of a stream is about. Whether all of it could be read.
    fn take(&mut self, reply: Reply<'_>, index: Option<u64>, calls: &mut Calls) -> bool {
        let message = Message::of(reply.message);
        let told = message.as_ref().and_then(Message::calls);
        let readable = told.is_some();
        let told = told.unwrap_or_default();
        let mut weight = message.as_ref().map_or(0, Message::weight);
        for (position, called) in (0..).zip(told.into_iter().filter_map(|call| call.function)) {
            let at = At {
                choice: 0,
                index: index.unwrap_or(position),
            };
            for text in [&called.name, &called.arguments].into_iter().flatten() {
                weight = weight.saturating_add(text.len() as u64);
            }
            calls.part(at, called.name.as_deref(), called.arguments.as_deref());
            if index.is_none() {
                calls.end(at);
            }
        }
        self.output.piece(weight);
        self.facts.finish = reply.finish_reason.or(self.facts.finish.take());
        let embeds = reply.embeddings.is_some() || reply.results.is_some();
        if let Some(usage) = reply.usage.or(reply.meta) {
            self.facts.usage = usage.buckets(!embeds);
        }
        self.facts.error |= reply.error.is_some();
        readable
    }
}

impl Format for CohereReply {
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if data.trim_ascii() == b"[DONE]" {
            return Verdict::Forward;
        }
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
            self.unread();
            return Verdict::Unreadable;
        };
        let index = event.index.unwrap_or(0);
        if let Some(delta) = event.delta
            && !self.take(delta, Some(index), calls)
        {
            return Verdict::Unreadable;
        }
        match event.r#type.as_deref() {
            Some("tool-call-end") => calls.end(At { choice: 0, index }),
            Some("message-end") => {
                self.facts.complete = true;
                calls.end_choice(0);
            }
            _ => {}
        }
        Verdict::Forward
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        let Ok(reply) = serde_json::from_slice::<Reply<'_>>(body) else {
            self.unread();
            return false;
        };
        let embeds = reply.embeddings.is_some() || reply.results.is_some();
        // An error has a text where an answer has an object.
        let answered = embeds
            || reply
                .message
                .is_some_and(|message| message.get().starts_with('{'));
        self.facts.error = !answered;
        self.facts.complete = true;
        let readable = self.take(reply, None, calls);
        if embeds {
            self.facts.finish = Some("COMPLETE".to_owned());
        }
        readable
    }

    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        super::calls::without(event, calls)
    }

    fn without_in_whole(&mut self, reply: Value, calls: &mut Calls) -> Edit {
        super::calls::without_in_whole(reply, calls)
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let message = refusal_reply::message(refusal, request_id);
        let event = json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": message}});
        Bytes::from(sse_event(Some("message-end"), event.to_string().as_bytes()))
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        COHERE.refusal(refusal, request_id).body
    }

    fn seen(&self) -> Seen {
        self.output.beside(self.facts.usage.as_ref())
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
