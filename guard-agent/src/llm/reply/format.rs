//! What a wire format does to have its replies read by the shared reader.

use bytes::Bytes;
use serde_json::Value;

use crate::llm::frames::Frames;
use crate::llm::reply::Calls;
use crate::llm::{ReplyFacts, Seen};
use crate::refusal::Refusal;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client gets it.
    Forward,
    /// It only says what the client did not ask for.
    UsageOnly,
    /// It could not be read.
    Unreadable,
}

/// An event out of which denied calls were taken.
pub(crate) enum Edit {
    /// Nothing of a denied call is in it.
    Same,
    /// These stand in its place, often none.
    Events(Vec<Value>),
    /// The call cannot be taken out: the reply has to end here.
    Cannot,
}

/// What a format reads from a reply.
pub(crate) trait Format: Send {
    /// The framing of a stream with this media type, where it is another than SSE.
    fn frames(&self, _media: &str) -> Option<Box<dyn Frames>> {
        None
    }
    /// Takes the data of one event of a stream, and tells the tool calls in it.
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict;
    /// Takes a whole plain JSON reply, and tells the tool calls in it. `false`: it could not be read.
    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool;
    /// Takes the denied calls out of one event. Every call in it is decided.
    fn without(&mut self, _event: Value, _calls: &mut Calls) -> Edit {
        Edit::Cannot
    }
    /// Takes the denied calls out of a whole reply, in which there are some: wherever `whole` reads calls, and whatever
    /// kind of event the reply says that it is.
    fn without_in_whole(&mut self, reply: Value, calls: &mut Calls) -> Edit {
        self.without(reply, calls)
    }
    /// The bytes that end a stream with this refusal.
    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes;
    /// A whole reply that says only this refusal.
    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        self.last_words(refusal, request_id)
    }
    /// What the provider is to be told in the place of a denied call's result.
    fn answers(&mut self) -> Option<String> {
        None
    }
    /// What the stream has taken so far, at least.
    fn seen(&self) -> Seen {
        Seen::default()
    }
    /// Something could not be read, so what it said about usage is unknown.
    fn unread(&mut self);
    /// What was learnt.
    fn facts(&mut self) -> ReplyFacts;
}
