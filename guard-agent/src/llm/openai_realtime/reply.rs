//! What a realtime response turned out to hold, from its events; and what the writing down of heard sound did.
//!
//! In: the events of one response, the conversation's items that it made among them. Out: facts, and the tool calls by
//! their places. On failure: unknown usage.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::calls;
use super::usage::{Told, Wire};
use crate::llm::few::Few;
use crate::llm::frames::{Frames, Messages, message};
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::request::lenient;
use crate::llm::seen::Output;
use crate::llm::{ReplyFacts, Seen};
use crate::refusal::Refusal;

/// Items of one response that are told apart by their ids.
const ITEMS: usize = 256;
/// Places of items of which no event has said where they stand.
const ELSEWHERE: u64 = 1 << 32;

/// One event.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    response: Option<Response>,
    item: Option<Item>,
    #[serde(borrow)]
    item_id: Option<Cow<'a, str>>,
    output_index: Option<u64>,
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    usage: Option<Wire>,
    error: Option<IgnoredAny>,
}

/// A response, whole or as far as it has come.
#[derive(Deserialize)]
struct Response {
    id: Option<String>,
    status: Option<String>,
    status_details: Option<Status>,
    output: Option<Few<Item>>,
    usage: Option<Wire>,
}

#[derive(Deserialize)]
struct Status {
    reason: Option<String>,
}

/// One item of a response's output.
#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
    id: Option<String>,
    name: Option<String>,
    arguments: Option<Box<RawValue>>,
    status: Option<String>,
}

/// Where the items of a response stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Vec<(String, u64)>);

impl Places {
    /// The place of an item: where an event says that it stands, or said so before.
    pub(super) fn of(&mut self, id: Option<&str>, index: Option<u64>) -> At {
        let known = id.and_then(|id| self.0.iter().find(|(known, _)| known == id));
        let index = match (known, index, id) {
            (Some((_, index)), ..) => *index,
            (None, None, None) => 0,
            (None, index, _) => {
                let index = index.unwrap_or(ELSEWHERE + self.0.len() as u64);
                if let Some(id) = id.filter(|_| self.0.len() < ITEMS) {
                    self.0.push((id.to_owned(), index));
                }
                index
            }
        };
        At { choice: 0, index }
    }
}

/// How many characters of sound stand for one token at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sound(pub(super) u64);

/// The reader's state.
#[derive(Debug)]
pub(crate) struct RealtimeReply {
    facts: ReplyFacts,
    id: String,
    sound: Sound,
    spoken: u64,
    output: Output,
    places: Places,
    /// By which the client knows its request.
    named: Option<String>,
}

impl RealtimeReply {
    /// A response of this model.
    pub(super) fn new(model: Option<String>, sound: Sound, named: Option<String>) -> Self {
        let facts = ReplyFacts {
            model,
            ..ReplyFacts::default()
        };
        Self {
            facts,
            id: String::new(),
            sound,
            spoken: 0,
            output: Output::default(),
            places: Places::default(),
            named,
        }
    }

    fn take(&mut self, event: Event<'_>, calls: &mut Calls) {
        let id = event.item.as_ref().and_then(|item| item.id.as_deref());
        let id = id.or(event.item_id.as_deref());
        let at = self.places.of(id, event.output_index);
        if let Some(item) = event.item {
            item_of(at, &item, false, calls);
        }
        if let Some(delta) = lenient::<Cow<'_, str>>(event.delta) {
            match &*event.r#type {
                "response.output_audio.delta" | "response.audio.delta" => {
                    self.spoken = self.spoken.saturating_add(delta.len() as u64);
                }
                "response.function_call_arguments.delta" => {
                    self.output.piece(delta.len() as u64);
                    calls.more(at, &delta);
                }
                _ => self.output.piece(delta.len() as u64),
            }
        }
        let ended = event.r#type == "response.done";
        if let Some(response) = event.response {
            self.response(response, ended, calls);
        }
        if matches!(
            &*event.r#type,
            "response.output_item.done" | "conversation.item.done"
        ) {
            calls.end(at);
        }
        if let Some(usage) = event.usage {
            self.facts.complete = true;
            self.used(&usage);
        }
        self.facts.complete |= ended;
        self.facts.error |= event.error.is_some() && event.r#type == "error";
    }

    fn response(&mut self, response: Response, ended: bool, calls: &mut Calls) {
        self.id = response.id.unwrap_or_else(|| std::mem::take(&mut self.id));
        let why = response.status_details.and_then(|details| details.reason);
        self.facts.error |= response.status.as_deref() == Some("failed");
        let status = response.status.filter(|status| status != "in_progress");
        self.facts.finish = why.or(status).or(self.facts.finish.take());
        for (index, item) in (0..).zip(response.output.unwrap_or_default()) {
            let at = self.places.of(item.id.as_deref(), Some(index));
            item_of(at, &item, ended, calls);
        }
        if ended {
            calls.end_choice(0);
        }
        if let Some(usage) = response.usage {
            self.used(&usage);
        }
    }

    fn used(&mut self, usage: &Wire) {
        let told = usage.buckets();
        self.facts.inconsistent |= told.as_ref().is_some_and(|told| told.inconsistent);
        self.facts.usage = told.map(|Told { usage, .. }| usage);
    }
}

/// One item of the output; `whole` when it is told with everything in it.
fn item_of(at: At, item: &Item, whole: bool, calls: &mut Calls) {
    match item.r#type.as_deref() {
        Some("function_call") => {
            let complete = whole || item.status.as_deref() == Some("completed");
            if !calls.begun(at) {
                let arguments = item.arguments.as_deref().filter(|_| complete);
                let arguments = lenient::<Cow<'_, str>>(arguments);
                calls.part(at, item.name.as_deref(), arguments.as_deref());
            }
            if complete {
                calls.end(at);
            }
        }
        // What runs at the provider is over when it can be read.
        Some(kind) if kind.ends_with("_call") => calls.by_provider(item.name.as_deref().unwrap_or(kind)),
        _ => {}
    }
}

/// The provider's own error event, with this refusal.
pub(super) fn error(refusal: &Refusal, request_id: &str, named: Option<&str>) -> Value {
    use crate::llm::Dialect;
    let reply = crate::llm::openai_chat::OPENAI.refusal(refusal, request_id);
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let mut error = body.get("error").cloned().unwrap_or_default();
    if let Some(error) = error.as_object_mut() {
        error.insert("event_id".to_owned(), named.map_or(Value::Null, Value::from));
        error.entry("param").or_insert(Value::Null);
    }
    json!({"type": "error", "event_id": format!("event_guard_{request_id}"), "error": error})
}

impl Format for RealtimeReply {
    fn frames(&self, _media: &str) -> Option<Box<dyn Frames>> {
        Some(Box::new(Messages))
    }

    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        match serde_json::from_slice(data) {
            Ok(event) => {
                self.take(event, calls);
                Verdict::Forward
            }
            Err(_) => {
                self.unread();
                Verdict::Unreadable
            }
        }
    }

    fn whole(&mut self, _body: &[u8], _calls: &mut Calls) -> bool {
        self.unread();
        false
    }

    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        calls::without(event, calls, &mut self.places)
    }

    /// The error says why, and the end of the response lets nobody wait for it.
    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let error = error(refusal, request_id, self.named.as_deref());
        let mut words = message(error.to_string().as_bytes());
        if !self.id.is_empty() {
            let ended = json!({
                "type": "response.done", "event_id": format!("event_guard_{request_id}_end"),
                "response": {
                    "object": "realtime.response", "id": self.id, "status": "failed", "output": [], "usage": null,
                    "status_details": {"type": "failed", "error": error.get("error")},
                },
            });
            words.extend_from_slice(&message(ended.to_string().as_bytes()));
        }
        Bytes::from(words)
    }

    fn seen(&self) -> Seen {
        let spoken = self.spoken / self.sound.0.max(1);
        Seen {
            input: 0,
            output: self.output.tokens().saturating_add(spoken),
        }
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
