//! What a turn on a Live socket turned out to hold, from its messages.
//!
//! Usage is told for the turn and not for the socket, with the message that ends it and perhaps before; what is told later
//! takes the place of what was told before. Where a turn calls tools, it reads everything once more when it goes on: what
//! was told up to a call and what is told behind it are two things, and are added.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error;
use crate::llm::few::Few;
use crate::llm::frames::{Frames, Messages, message};
use crate::llm::gemini::usage::{Places, WireUsage};
use crate::llm::reply::{Calls, Edit, Format, Verdict};
use crate::llm::seen::{Output, Weight};
use crate::llm::{ReplyFacts, Seen, Usage};
use crate::refusal::Refusal;

/// Characters of sound that stand for one token at least: 1,920 bytes (24 kHz, 16 bits, twenty-five tokens a second).
const SOUND: u64 = 2_560;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    server_content: Option<Content>,
    tool_call: Option<ToolCall>,
    usage_metadata: Option<WireUsage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    model_turn: Option<Turn>,
    turn_complete: Option<bool>,
    interrupted: Option<bool>,
    grounding_metadata: Option<IgnoredAny>,
    output_transcription: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Turn {
    parts: Option<Few<Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    text: Weight,
    inline_data: Option<Blob>,
    function_call: Option<Call>,
    executable_code: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Blob {
    #[serde(default)]
    data: Weight,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolCall {
    function_calls: Option<Few<Call>>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    name: Option<String>,
    args: Option<Box<RawValue>>,
}

/// The reader's state.
#[derive(Debug, Default)]
pub(crate) struct LiveReply {
    facts: ReplyFacts,
    /// What was told up to the last call of a tool.
    before: Usage,
    /// What was told since.
    told: Option<Usage>,
    /// A tool was called, and nothing has come since.
    called: bool,
    output: Output,
    sound: u64,
    placed: Places,
    edited: Places,
    /// Results for calls that were denied: the model waits for them, and nobody else gives any.
    answers: Vec<Value>,
}

impl LiveReply {
    fn call(&mut self, call: &Call, calls: &mut Calls) {
        let at = self.placed.next(0, call.name.as_deref(), false);
        let args = call.args.as_deref().map_or("{}", RawValue::get);
        self.output.piece(args.len() as u64);
        // A call without a name is none that a rule could know; the gate denies it.
        calls.part(at, call.name.as_deref(), Some(args));
        calls.end(at);
        if calls.is_denied(at) {
            let why = calls.message(at);
            let why =
                why.unwrap_or_else(|| "The host's firewall does not let this tool be called.".to_owned());
            self.answers
                .push(json!({"id": call.id, "name": call.name, "response": {"error": why}}));
        }
    }

    fn take(&mut self, message: Message, calls: &mut Calls) {
        let content = message.server_content.as_ref();
        let made = message.tool_call.is_some()
            || content.is_some_and(|content| {
                content.model_turn.is_some() || content.output_transcription.is_some()
            });
        if made && std::mem::take(&mut self.called) {
            let told = self.told.take().unwrap_or_default();
            match self.before.checked_add(&told) {
                Some(sum) => self.before = sum,
                None => self.facts.inconsistent = true,
            }
        }
        if let Some(content) = message.server_content {
            for part in content.model_turn.and_then(|turn| turn.parts).unwrap_or_default() {
                self.output.piece(part.text.0);
                self.sound = self
                    .sound
                    .saturating_add(part.inline_data.map_or(0, |blob| blob.data.0));
                if let Some(call) = &part.function_call {
                    self.call(call, calls);
                }
                if part.executable_code.is_some() {
                    calls.by_provider("codeExecution");
                }
            }
            if content.grounding_metadata.is_some() {
                calls.by_provider("googleSearch");
            }
            if content.interrupted == Some(true) {
                self.facts.finish = Some("interrupted".to_owned());
            }
            if content.turn_complete == Some(true) {
                self.facts
                    .finish
                    .get_or_insert_with(|| "turn_complete".to_owned());
                self.facts.complete = true;
            }
        }
        for call in message
            .tool_call
            .and_then(|call| call.function_calls)
            .unwrap_or_default()
        {
            self.call(&call, calls);
            self.called = true;
        }
        if let Some(usage) = message.usage_metadata
            && let Some(mut told) = usage.buckets()
        {
            let images = usage.seen_images().min(told.input);
            told.input -= images;
            told.media.input_image = images;
            self.told = Some(told);
        }
        self.facts.error |= message.error.is_some();
    }

    fn used(&self) -> Option<Usage> {
        self.before.checked_add(&self.told?)
    }
}

impl Format for LiveReply {
    fn frames(&self, _media: &str) -> Option<Box<dyn Frames>> {
        Some(Box::new(Messages))
    }

    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if calls.all_passed() {
            // What came before has passed as it was, without being counted again.
            self.edited = self.placed.clone();
        }
        match serde_json::from_slice(data) {
            Ok(message) => {
                self.take(message, calls);
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

    fn without(&mut self, mut event: Value, calls: &mut Calls) -> Edit {
        let mut notes = Vec::new();
        let mut gone = false;
        let mut keep = |call: &Value, edited: &mut Places, calls: &mut Calls| {
            let at = edited.next(0, call.get("name").and_then(Value::as_str), false);
            if !calls.is_denied(at) {
                return true;
            }
            gone = true;
            notes.extend(calls.note(at).map(|note| json!({"text": note})));
            false
        };
        let parts = event
            .get_mut("serverContent")
            .and_then(|content| content.get_mut("modelTurn"));
        if let Some(Value::Array(parts)) = parts.and_then(|turn| turn.get_mut("parts")) {
            parts.retain(
                |part| match part.get("functionCall").filter(|call| !call.is_null()) {
                    Some(call) => keep(call, &mut self.edited, calls),
                    None => true,
                },
            );
        }
        let called = event
            .get_mut("toolCall")
            .and_then(|call| call.get_mut("functionCalls"));
        let mut left = true;
        if let Some(Value::Array(list)) = called {
            list.retain(|call| keep(call, &mut self.edited, calls));
            left = !list.is_empty();
        }
        if !gone {
            return Edit::Same;
        }
        let mut events = Vec::new();
        if !notes.is_empty() {
            events.push(json!({"serverContent": {"modelTurn": {"role": "model", "parts": notes}}}));
        }
        if let (false, Some(members)) = (left, event.as_object_mut()) {
            members.remove("toolCall");
        }
        if event.as_object().is_some_and(|members| !members.is_empty()) {
            events.push(event);
        }
        Edit::Events(events)
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let error = error(refusal, request_id).to_string();
        Bytes::from(message(error.as_bytes()))
    }

    fn answers(&mut self) -> Option<String> {
        let answers = std::mem::take(&mut self.answers);
        let any = !answers.is_empty();
        any.then(|| json!({"toolResponse": {"functionResponses": answers}}).to_string())
    }

    fn seen(&self) -> Seen {
        let used = self.before.checked_add(&self.told.unwrap_or_default());
        let mut seen = self.output.beside(used.as_ref());
        seen.output = seen.output.max(self.sound / SOUND);
        seen
    }

    fn unread(&mut self) {
        self.told = None;
        self.before = Usage::default();
        self.facts.inconsistent = true;
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        facts.usage = self.used();
        facts
    }
}
