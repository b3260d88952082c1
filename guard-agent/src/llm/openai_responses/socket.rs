//! Responses over WebSocket: `response.create` as a message, the events of the reply as messages.
//!
//! In: messages of either side. Out: what they ask for and whose they are. On failure: `Unfit`, told as an `error` message
//! with status 400: the one answer after which every measured client neither tries again nor hangs.
//! What would have the provider go on by itself (`response.steer`), or reply where Guard does not read (`background`), does
//! not pass: nothing would bound it.
//! Sources: OpenAI's guide to WebSocket mode; its SDK's types `responses_client_event` and `responses_server_event`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::llm::frames::{Frames, Messages, message};
use crate::llm::openai_chat::OPENAI;
use crate::llm::openai_responses::request::facts;
use crate::llm::openai_responses::usage::ResponseReply;
use crate::llm::reply::{Calls, Edit, Format, Reader, Verdict};
use crate::llm::request::is_set;
use crate::llm::socket::{Asked, Mark, Opening, Request, Session, SocketFormat, Told, Unfit};
use crate::llm::{Dialect, Gate, Malformed, ReplyFacts, ReplyHead, ReplyReader, Seen, Usage, json_strict};
use crate::refusal::{Class, Refusal};

/// Longest name of a lane; longer ones are refused.
const LANE: usize = 256;
/// Largest message that only stops a response.
const STOP: usize = 4096;
/// Top-level names that decide what a message is.
const KNOWN: [&str; 6] = [
    "type",
    "stream_id",
    "generate",
    "background",
    "response",
    "previous_response_id",
];

/// This format over WebSocket.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResponsesSocket;

/// The one value of it.
pub(super) static SOCKET: ResponsesSocket = ResponsesSocket;

/// What stands beside the request itself in a client's message.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    stream_id: Option<Cow<'a, str>>,
    generate: Option<bool>,
    background: Option<bool>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    previous_response_id: Option<&'a RawValue>,
}

/// What stands beside the event itself in a provider's message.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    stream_id: Option<Cow<'a, str>>,
    status: Option<u16>,
}

impl SocketFormat for ResponsesSocket {
    fn open(&self, _opening: &Opening<'_>) -> Result<Box<dyn Session>, Malformed> {
        Ok(Box::new(Self))
    }
}

impl Session for ResponsesSocket {
    fn asked(&mut self, message: &[u8]) -> Result<Asked, Unfit> {
        let unfit = |lane: Option<&str>, why: String| Unfit {
            why,
            named: lane.map(str::to_owned),
        };
        let malformed = |Malformed(why)| unfit(None, why);
        let (text, _) = json_strict::survey(message, &KNOWN).map_err(malformed)?;
        let frame: Frame<'_> =
            serde_json::from_str(text).map_err(|error| malformed(json_strict::malformed(&error)))?;
        if frame.stream_id.as_ref().is_some_and(|lane| lane.len() > LANE) {
            return Err(unfit(None, "`stream_id` is too long".to_owned()));
        }
        let lane = frame.stream_id.as_deref();
        match &*frame.r#type {
            "response.create" => {}
            "response.cancel" | "response.interrupt" if stops(text) => return Ok(Asked::Stop),
            "response.steer" => {
                let why = "Guard does not forward `response.steer`: the provider would answer it with responses that \
                           nobody asked for one by one. Send the input in a `response.create`.";
                return Err(unfit(lane, why.to_owned()));
            }
            _ => {
                let why = "Guard forwards messages of the type `response.create` on this socket.";
                return Err(unfit(lane, why.to_owned()));
            }
        }
        if frame.background == Some(true) || is_set(frame.response) {
            let why = "`background` and `response` have no place in a `response.create` on a socket";
            return Err(unfit(lane, why.to_owned()));
        }
        let mut facts = facts(message, None).map_err(|Malformed(why)| unfit(lane, why))?;
        facts.stream = true;
        let request = Request {
            lane: lane.map(str::to_owned),
            named: lane.map(str::to_owned),
            prepares: frame.generate == Some(false),
            continues: is_set(frame.previous_response_id),
            turn: 0,
        };
        Ok(Asked::Response(Box::new(facts), request))
    }

    fn told(&mut self, message: &[u8]) -> Told {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(message) else {
            return Told {
                lane: None,
                mark: Mark::Part,
            };
        };
        let mark = match &*event.r#type {
            "response.created" => Mark::Begin,
            "response.completed" | "response.incomplete" | "response.failed" => Mark::End,
            "error" => Mark::Failed(event.status),
            kind if kind.starts_with("response.") => Mark::Part,
            _ => Mark::Aside,
        };
        Told {
            lane: event.stream_id.map(Cow::into_owned),
            mark,
        }
    }

    fn reader(&self, request: &Request, gate: Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader> {
        let format = SocketReply {
            reply: ResponseReply::default(),
            lane: request.lane.clone(),
            generates: !request.prepares,
        };
        let head = ReplyHead {
            status: StatusCode::OK,
            headers: &HeaderMap::new(),
            hide_usage_event: false,
            gate,
        };
        Box::new(Reader::new(format, &head))
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str, lane: Option<&str>) -> String {
        let reply = OPENAI.refusal(refusal, request_id);
        let mut body: Map<String, Value> = serde_json::from_slice(&reply.body).unwrap_or_default();
        let error = body.remove("error").unwrap_or_default();
        let status = match refusal.reason.class() {
            Class::Transient | Class::Upstream => reply.status,
            _ => StatusCode::BAD_REQUEST,
        };
        // Codex hangs on a message that it cannot parse: nothing but these names may stand here.
        let mut event = json!({"type": "error", "status": status.as_u16(), "error": error});
        echo(&mut event, lane);
        event.to_string()
    }
}

/// Whether a message holds names and flags only, so that it can ask for nothing.
pub(in crate::llm) fn stops(text: &str) -> bool {
    let members: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    text.len() <= STOP
        && members.is_some_and(|members| {
            members
                .values()
                .all(|value| !(value.is_array() || value.is_object()))
        })
}

/// Names the lane in a message of Guard's, as the provider does in its own.
fn echo(event: &mut Value, lane: Option<&str>) {
    if let (Some(lane), Some(event)) = (lane, event.as_object_mut()) {
        event.insert("stream_id".to_owned(), Value::from(lane));
    }
}

/// A reply in messages: what an event says is read as over HTTP.
struct SocketReply {
    reply: ResponseReply,
    lane: Option<String>,
    generates: bool,
}

impl Format for SocketReply {
    fn frames(&self, _media: &str) -> Option<Box<dyn Frames>> {
        Some(Box::new(Messages))
    }

    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        self.reply.event(data, calls)
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        self.reply.whole(body, calls)
    }

    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        match self.reply.without(event, calls) {
            Edit::Events(mut events) => {
                events
                    .iter_mut()
                    .for_each(|event| echo(event, self.lane.as_deref()));
                Edit::Events(events)
            }
            other => other,
        }
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let mut event = self.reply.failed(refusal, request_id);
        echo(&mut event, self.lane.as_deref());
        Bytes::from(message(event.to_string().as_bytes()))
    }

    fn unread(&mut self) {
        self.reply.unread();
    }

    fn seen(&self) -> Seen {
        self.reply.seen()
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = self.reply.facts();
        // Nothing was asked for, and nothing was said to have been used.
        if !self.generates && facts.complete && !facts.error {
            facts.usage = facts.usage.or(Some(Usage::default()));
        }
        facts
    }
}

#[cfg(test)]
mod tests;
