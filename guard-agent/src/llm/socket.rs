//! What a wire format says about itself where it is spoken over a WebSocket.
//!
//! One socket carries many calls. A client's message that asks for a response is a call of its own; the provider's
//! messages belong to the call that is under way in their lane. A lane has one call at a time, so a message that names
//! no call still has one owner. Where the provider begins responses by itself, what one of them may cost is reserved
//! before the client's input that could lead to it goes on.

use std::sync::Arc;

use http::{HeaderMap, Uri};

use crate::llm::{BodyEdits, Dialect, Gate, Malformed, ReplyReader, RequestFacts, Seen};
use crate::refusal::Refusal;

pub(crate) mod context;

/// A wire format over WebSocket.
pub trait SocketFormat: Send + Sync {
    /// What is said on one socket, from its beginning.
    ///
    /// # Errors
    /// A socket that is opened so is none that Guard can bound.
    fn open(&self, opening: &Opening<'_>) -> Result<Box<dyn Session>, Malformed>;
}

/// How a socket is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// Path and query.
    pub target: &'a Uri,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// What is said on one socket. It learns from the messages of both sides, and keeps none of them.
pub trait Session: Send + Sync {
    /// The format of the calls, where it is another than the one that was found by the path.
    fn dialect(&self) -> Option<&'static dyn Dialect> {
        None
    }
    /// What a client's message asks for.
    ///
    /// # Errors
    /// It cannot be read, or it is none that Guard can bound: it does not go on.
    fn asked(&mut self, message: &[u8]) -> Result<Asked, Unfit>;
    /// Whose a message of the provider's is, and where in its reply it stands.
    fn told(&mut self, message: &[u8]) -> Told;
    /// Reads the reply to a request: messages, each ended with `frames::MESSAGE_END`.
    fn reader(&self, request: &Request, gate: Option<&Arc<dyn Gate>>) -> Box<dyn ReplyReader>;
    /// The refusal as the provider itself would tell it on a socket. `named`: by which the client knows its message.
    fn refusal(&self, refusal: &Refusal, request_id: &str, named: Option<&str>) -> String;

    // --- where the provider begins responses by itself ---------------------------------------------------------------

    /// The call of this request was forwarded.
    fn sent(&mut self, _request: &Request) {}
    /// The setup that was asked for last was forwarded, with these edits.
    fn accepted(&mut self, _edits: &BodyEdits) {}
    /// What has to be reserved before more input goes on.
    fn needs(&self) -> Vec<Need> {
        Vec::new()
    }
    /// What a response needs that begins in this lane although nothing was reserved for it; none where the provider begins
    /// none by itself.
    fn unforeseen(&self, _lane: Option<&str>) -> Option<Need> {
        None
    }
    /// The response that is reserved for.
    fn expected(&mut self, _need: &Need) -> Option<Expected> {
        None
    }
    /// A message that holds later responses to so many tokens, where none of the client's does; none where there is no
    /// such message.
    fn cap(&mut self, _tokens: u64) -> Option<String> {
        None
    }
    /// A message that has the provider end the response in this lane.
    fn cancel(&self, _lane: Option<&str>) -> Option<String> {
        None
    }
    /// Why another response cannot be asked for while one is under way. None: it waits for its turn.
    fn busy(&self) -> Option<Refusal> {
        None
    }
    /// Whether a setup that is refused ends the socket, because nothing can follow it.
    fn needs_setup(&self) -> bool {
        false
    }
}

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// A call.
    Response(Box<RequestFacts>, Request),
    /// Says what later responses are like: judged as one of them is. The second part is reserved for beside it.
    Setup(Box<RequestFacts>, Request, Option<Need>),
    /// May lead to responses that nobody asks for one by one: it goes on once what is needed is reserved.
    Input(Input),
    /// Ends a response that is under way, and can do nothing else.
    Stop,
    /// Leads to no response.
    Aside,
}

/// Input that may lead to responses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    /// It does lead to one.
    pub due: bool,
    /// What the response that is under way may take beyond what it was to take before.
    pub extends: Option<Seen>,
    /// By which the client knows the message.
    pub named: Option<String>,
}

/// How a call on a socket differs from one over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The lane in which it runs; none is a lane too.
    pub lane: Option<String>,
    /// By which the client knows it.
    pub named: Option<String>,
    /// The provider is to put nothing out. A request that only prepares a later one is free, unless the provider says that
    /// it used something.
    pub prepares: bool,
    /// It goes on from an earlier response, and with it from the tools that were declared then.
    pub continues: bool,
    /// How often something was said before, so that the same words later are no second attempt.
    pub turn: u64,
}

/// What has to be reserved for responses that the provider may begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Need {
    /// The lane in which it would begin them.
    pub lane: Option<String>,
    /// Another model than the socket's.
    pub model: Option<String>,
    /// How many of them.
    pub count: usize,
    /// How much input each has to have room for, in the lane's own measure.
    pub covers: u64,
}

/// A response that is reserved for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What it may be.
    pub facts: RequestFacts,
    /// Its place.
    pub request: Request,
    /// How much input it has room for.
    pub covers: u64,
    /// A larger one can be made of it, token by token.
    pub grows: bool,
}

/// A client's message that does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Why; shown to the client.
    pub why: String,
    /// By which the client knows it.
    pub named: Option<String>,
}

/// A provider's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its lane.
    pub lane: Option<String>,
    /// Where in a reply it stands.
    pub mark: Mark,
}

impl Told {
    /// In the lane without a name.
    pub(crate) fn plain(mark: Mark) -> Self {
        Self { lane: None, mark }
    }
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
    /// A response, all of it.
    Whole,
    /// The request failed, with this status if the message has one.
    Failed(Option<u16>),
    /// Something failed, perhaps the request.
    Doubt,
    /// No part of any response, and one follows.
    Due,
    /// No part of any response.
    Aside,
}
