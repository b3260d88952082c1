//! Ollama's own API, in the cloud or on a host that the configuration names.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`,
//! which becomes a 400 in Ollama's own shape.
//! A model that runs on one's own machine costs nothing only if the operator says so: it is in no price table.
//! Sources: docs.ollama.com/api; the types of its server.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::llm::reply::{Format, Reader, Verdict, note_tool};
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyFacts, ReplyHead,
    ReplyReader, RequestFacts, Usage, refusal_reply,
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
    done: Option<bool>,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    embeddings: Option<serde::de::IgnoredAny>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Message {
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    function: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

/// The reader's state.
#[derive(Debug, Default)]
struct OllamaReply {
    facts: ReplyFacts,
}

impl OllamaReply {
    fn take(&mut self, line: Line) {
        let calls = line.message.and_then(|message| message.tool_calls);
        for name in calls
            .unwrap_or_default()
            .into_iter()
            .filter_map(|call| call.function?.name)
        {
            note_tool(&mut self.facts.tools_called, &name);
        }
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
    fn event(&mut self, data: &[u8]) -> Verdict {
        match serde_json::from_slice(data) {
            Ok(line) => self.take(line),
            Err(_) => self.unread(),
        }
        Verdict::Forward
    }

    /// One object, or lines of them.
    fn whole(&mut self, body: &[u8]) {
        for line in serde_json::Deserializer::from_slice(body).into_iter::<Line>() {
            match line {
                Ok(line) => self.take(line),
                Err(_) => return self.unread(),
            }
        }
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
