//! Ollama's own API, in the cloud or on a host that the configuration names.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in Ollama's own shape.
//! A model that runs on one's own machine costs nothing only if the operator says so: it is in no price table.
//! Sources: docs.ollama.com/api; the types of its server.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::llm::few::Few;
use crate::llm::frames::{Frames, Lines, is_lines};
use crate::llm::reply::{At, Calls, Edit, Format, Reader, Verdict};
use crate::llm::seen::{self, Output, Weight};
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyFacts, ReplyHead,
    ReplyReader, RequestFacts, Seen, Usage, refusal_reply,
};
use crate::refusal::Refusal;

mod request;
mod rewrite;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct Ollama;

/// The one value of it.
pub static OLLAMA: Ollama = Ollama;

#[derive(Serialize)]
struct ErrorBody {
    error: String,
    guard: refusal_reply::Details,
}

impl Dialect for Ollama {
    fn kind(&self) -> DialectKind {
        DialectKind::Ollama
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        match (method, path) {
            (&Method::POST, "/api/chat" | "/api/generate" | "/api/embed") => EndpointKind::Inference,
            (&Method::GET, "/api/tags" | "/api/version" | "/api/ps") | (&Method::POST, "/api/show") => {
                EndpointKind::Models
            }
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(false, body)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        request::facts(place.tail == "/api/embed", body)
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        rewrite::rewrite(body, edits)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(Reader::new(OllamaReply::default(), head))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        let body = ErrorBody {
            error: refusal_reply::message(refusal, request_id),
            guard: refusal_reply::Details::of(refusal),
        };
        refusal_reply::reply(
            refusal,
            StatusCode::BAD_REQUEST,
            "x-request-id",
            request_id,
            &body,
        )
    }
}

/// A whole reply, or one line of a stream.
#[derive(Deserialize)]
struct Line {
    model: Option<String>,
    message: Option<Message>,
    /// Of a completion.
    #[serde(default)]
    response: Weight,
    done: Option<bool>,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    embeddings: Option<serde::de::IgnoredAny>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Weight,
    #[serde(default)]
    thinking: Weight,
    tool_calls: Option<Few<Call>>,
}

#[derive(Deserialize)]
struct Call {
    function: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
    arguments: Option<Box<RawValue>>,
}

impl Named {
    /// Bytes of output in it.
    fn weight(&self) -> u64 {
        let name = self.name.as_ref().map_or(0, |name| name.len() as u64);
        name.saturating_add(seen::raw(self.arguments.as_deref()))
    }
}

/// The reader's state.
#[derive(Debug, Default)]
struct OllamaReply {
    facts: ReplyFacts,
    output: Output,
    /// Calls so far: each has a place of its own, and comes whole in one line.
    placed: u64,
    /// The same for the lines that were edited, which are the same ones in the same order.
    edited: u64,
}

/// The next call's place.
fn next(count: &mut u64) -> At {
    let index = *count;
    *count += 1;
    At { choice: 0, index }
}

impl OllamaReply {
    fn take(&mut self, line: Line, calls: &mut Calls) {
        let mut weight = line.response.0;
        let told = line.message.and_then(|message| {
            weight = weight
                .saturating_add(message.content.0)
                .saturating_add(message.thinking.0);
            message.tool_calls
        });
        for call in told.unwrap_or_default() {
            weight = weight.saturating_add(call.function.as_ref().map_or(0, Named::weight));
            let at = next(&mut self.placed);
            let called = call.function.as_ref();
            let arguments = called
                .and_then(|called| called.arguments.as_deref())
                .map(RawValue::get);
            calls.part(at, called.and_then(|called| called.name.as_deref()), arguments);
            calls.end(at);
        }
        self.output.piece(weight);
        self.facts.model = line.model.or(self.facts.model.take());
        self.facts.finish = line.done_reason.or(self.facts.finish.take());
        self.facts.error |= line.error.is_some();
        let embeds = line.embeddings.is_some();
        if line.done == Some(true) || embeds {
            self.facts.complete = true;
            // The counts of a prompt that was still in the model's memory may be missing: then they are unknown.
            let output = if embeds { Some(0) } else { line.eval_count };
            self.facts.usage = line.prompt_eval_count.zip(output).map(|(input, output)| Usage {
                input,
                output,
                ..Usage::default()
            });
        }
        self.facts.complete |= self.facts.error;
    }
}

impl Format for OllamaReply {
    fn frames(&self, media: &str) -> Option<Box<dyn Frames>> {
        let lines = is_lines(media);
        lines.then(|| Box::new(Lines::default()) as Box<dyn Frames>)
    }

    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if calls.all_passed() {
            // What came before this line has passed as it was, without being counted again.
            self.edited = self.placed;
        }
        match serde_json::from_slice(data) {
            Ok(line) => {
                self.take(line, calls);
                Verdict::Forward
            }
            Err(_) => {
                self.unread();
                Verdict::Unreadable
            }
        }
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        match serde_json::from_slice(body) {
            Ok(line) => {
                self.take(line, calls);
                true
            }
            Err(_) => {
                self.unread();
                false
            }
        }
    }

    fn without(&mut self, mut event: Value, calls: &mut Calls) -> Edit {
        let mut notes = Vec::new();
        let mut changed = false;
        let Some(Value::Object(message)) = event.get_mut("message") else {
            return Edit::Same;
        };
        if let Some(Value::Array(list)) = message.get_mut("tool_calls") {
            let mut kept = Vec::with_capacity(list.len());
            for call in std::mem::take(list) {
                let at = next(&mut self.edited);
                if calls.is_denied(at) {
                    changed = true;
                    notes.extend(calls.note(at));
                } else {
                    kept.push(call);
                }
            }
            *list = kept;
        }
        if !notes.is_empty() {
            let before = message.get("content").and_then(Value::as_str).unwrap_or_default();
            let text = format!("{before}{}", notes.join("\n"));
            message.insert("content".to_owned(), Value::from(text));
        }
        if changed {
            Edit::Events(vec![event])
        } else {
            Edit::Same
        }
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let mut line = self.instead(refusal, request_id).to_vec();
        line.push(b'\n');
        Bytes::from(line)
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        OLLAMA.refusal(refusal, request_id).body
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
