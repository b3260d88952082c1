//! What a wire format says about itself where it is spoken over a WebSocket.
//!
//! One socket carries many calls. A client's message that asks for a response is a call of its own; the provider's
//! messages belong to the call that is under way in their lane. A lane has one call at a time, so a message that names
//! no call still has one owner.

use std::sync::Arc;

use crate::llm::{Gate, ReplyReader, RequestFacts};
use crate::refusal::Refusal;

/// A wire format over WebSocket.
pub trait SocketFormat: Send + Sync {
    /// What a client's message asks for.
    ///
    /// # Errors
    /// It cannot be read, or it is none that Guard can bound: it does not go on.
    fn asked(&self, message: &[u8]) -> Result<Asked, Unfit>;
    /// Whose a message of the provider's is, and where in its reply it stands.
    fn told(&self, message: &[u8]) -> Told;
    /// Reads the reply to a request: messages, each ended with `frames::MESSAGE_END`.
    fn reader(&self, request: &Request, gate: Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader>;
    /// The refusal as the provider itself would tell it on a socket.
    fn refusal(&self, refusal: &Refusal, request_id: &str, lane: Option<&str>) -> String;
}

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A call.
    Response(Box<RequestFacts>, Request),
    /// Ends a response that is under way, and can do nothing else.
    Stop,
}

/// How a call on a socket differs from one over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The lane in which it runs; none is a lane too.
    pub lane: Option<String>,
    /// Whether the provider is to put anything out. A request that only prepares a later one is free, unless the provider
    /// says that it used something.
    pub generates: bool,
    /// It goes on from an earlier response, and with it from the tools that were declared then.
    pub continues: bool,
}

/// A client's message that does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Why; shown to the client.
    pub why: String,
    /// The lane that it named.
    pub lane: Option<String>,
}

/// A provider's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its lane.
    pub lane: Option<String>,
    /// Where in a reply it stands.
    pub mark: Mark,
}

/// Where in a reply a provider's message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A response begins.
    Begin,
    /// Part of a response.
    Part,
    /// A response has ended.
    End,
    /// The request failed, with this status if the message has one.
    Failed(Option<u16>),
    /// No part of any response.
    Aside,
}
