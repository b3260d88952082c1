//! Provider-neutral facts of a call, and the trait behind which each wire format is one file.
//!
//! Guard extracts facts and edits text in place; it never converts between formats.
//!
//! # How a format is added
//!
//! 1. A [`DialectKind`] with its label, and a row in `provider::dialect_of`.
//! 2. `llm/NAME.rs` implements [`Dialect`]. `request` reads the whole body strictly (`json_strict`, `request::parts`)
//!    and fills [`RequestFacts`]; every place in which the format lets a tool be declared is read. `rewrite` edits the
//!    text in place (`json_edit`). `refusal` is the provider's own error shape (`refusal_reply`).
//! 3. The reply is a [`reply::Format`](reply): it gets one event (or the whole body) at a time. It keeps usage in the
//!    buckets of [`Usage`] (cumulative counts replace, they are never added), and tells every piece of a tool call to
//!    `Calls`: `part` with the name as soon as it is there and the arguments as they come, `end` when they are
//!    complete, `by_provider` for a call that the provider runs itself. The shared reader does the rest: it holds the
//!    events of a call back until the call is judged, so that no byte of a denied one passes. `without` takes a denied
//!    call out of one event; a format without it has its stream cut with `last_words` instead.
//! 4. A framing other than SSE is a [`frames::Frames`](frames), which `Format::frames` gives for a content type.
//! 5. `golden/LABEL/` gets fixtures, and `golden.rs` the kind: facts, usage, refusals, and the property that a stream
//!    split anywhere is read alike.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use crate::money::Pico;
use crate::refusal::Refusal;

pub use bound::Bound;
pub use edits::{BodyEdits, Takes};
pub use facts::{Audio, CacheWrite, DeclaredTool, RequestFacts};
pub use gate::{Denial, Gate, InReply, Judgement};
pub use pictures::Pictures;
pub use seen::Seen;
pub use usage::{OtherUsage, Unit, Units, Usage};

// --- the formats ----------------------------------------------------------------
pub mod anthropic;
pub mod bedrock_converse;
pub mod bedrock_invoke;
pub mod cohere;
pub mod embeddings;
pub mod gemini;
pub mod gemini_live;
pub mod media;
pub mod ollama;
pub mod openai_chat;
pub mod openai_completions;
pub mod openai_realtime;
pub mod openai_responses;

// --- which provider, which endpoint -----------------------------------------------
pub mod detect;
pub mod provider;
pub mod socket;

// --- what the formats share ---------------------------------------------------------
mod bound;
pub mod conversation;
mod edits;
pub mod encoding;
pub mod eventstream;
mod facts;
pub(crate) mod few;
pub(crate) mod frames;
pub mod gate;
pub(crate) mod json_edit;
pub(crate) mod json_strict;
mod mentions;
pub(crate) mod multipart;
mod note;
pub(crate) mod pictures;
pub mod prices;
mod refusal_reply;
pub(crate) mod reply;
pub(crate) mod request;
mod rerank;
mod seen;
pub mod sse;
mod stated;
pub mod usage;
mod values;

#[cfg(test)]
mod golden;

pub(crate) use values::few_values;

/// Whether every JSON reader reads this text alike: no object in it has a name twice.
pub(crate) fn same_to_every_reader(text: &str) -> bool {
    json_strict::survey(text.as_bytes(), &[]).is_ok()
}

/// The wire formats that Guard reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DialectKind {
    /// OpenAI chat completions (and every provider that speaks it).
    OpenaiChat,
    /// OpenAI's older completions: a prompt and its continuation (and Mistral's fill-in-the-middle).
    OpenaiCompletions,
    /// OpenAI responses.
    OpenaiResponses,
    /// Embeddings and reranking in OpenAI's shape.
    Embeddings,
    /// Images, and speech heard and spoken; video and text recognition, which are refused as what cannot be reserved.
    Media,
    /// Anthropic messages.
    AnthropicMessages,
    /// Anthropic messages on Vertex AI: the model stands in the path.
    AnthropicVertex,
    /// Gemini, by Google AI Studio and by Vertex AI.
    Gemini,
    /// Amazon Bedrock's Converse.
    BedrockConverse,
    /// Amazon Bedrock's InvokeModel.
    BedrockInvoke,
    /// Cohere's second API: chat, embed, rerank.
    Cohere,
    /// Ollama's own API.
    Ollama,
    /// OpenAI's realtime, over WebSocket only.
    OpenaiRealtime,
    /// Gemini's Live, over WebSocket only.
    GeminiLive,
}

impl DialectKind {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::OpenaiChat,
        Self::OpenaiCompletions,
        Self::OpenaiResponses,
        Self::Embeddings,
        Self::Media,
        Self::AnthropicMessages,
        Self::AnthropicVertex,
        Self::Gemini,
        Self::BedrockConverse,
        Self::BedrockInvoke,
        Self::Cohere,
        Self::Ollama,
        Self::OpenaiRealtime,
        Self::GeminiLive,
    ];

    /// Name in configuration, audit and documentation.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::OpenaiCompletions => "openai-completions",
            Self::OpenaiResponses => "openai-responses",
            Self::Embeddings => "embeddings",
            Self::Media => "media",
            Self::AnthropicMessages => "anthropic-messages",
            Self::AnthropicVertex => "anthropic-vertex",
            Self::Gemini => "gemini",
            Self::BedrockConverse => "bedrock-converse",
            Self::BedrockInvoke => "bedrock-invoke",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
            Self::OpenaiRealtime => "openai-realtime",
            Self::GeminiLive => "gemini-live",
        }
    }
}

/// What the path of a request says, beside what kind of endpoint it is; and what its body is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The model, where the provider's base path names it (Azure's deployments).
    pub model: Option<String>,
    /// The region that serves the call, where the base path names it (Vertex AI's locations).
    pub region: Option<String>,
    /// The path below the base path.
    pub tail: String,
    /// The content type of the body, where the request has one. Several are joined, so that no format takes them for one.
    pub content_type: Option<String>,
}

/// What a method and path of a provider host are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointKind {
    /// Costs money, is parsed, decided, reserved and metered.
    Inference,
    /// Lists models or describes one; free and allowed.
    Models,
    /// Counts tokens; free and allowed where inference is.
    CountTokens,
    /// Opens a socket on which calls are made: each is inference, the opening itself is free.
    Socket,
    /// Free by the provider's price list: moderation, reading and deleting a stored response.
    Free,
    /// Costs money in a unit for which there is no price: refused as unpriced unless the agent lists it.
    Unpriced,
    /// A path that agents' clients need beside inference; passes, and is never counted as a call.
    Side,
    /// A path by which a client reports on its use; refused unless the owner lets it pass, never counted as a call.
    Telemetry,
    /// Anything else on a provider host: refused unless the agent lists it, because it may be a way around a budget.
    Other,
}

/// A body that this format cannot read. The message goes to the client: it names the place, never the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// What a reply turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReplyFacts {
    /// Usage of the model that served the call; `None` is unknown, never zero.
    pub usage: Option<Usage>,
    /// Usage of other models inside the same reply (an advisor, a fallback, a compaction), billed beside `usage`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherUsage>,
    /// What the provider itself says that the call cost (OpenRouter, Perplexity); see `stated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_cost: Option<Pico>,
    /// Counts contradicted each other (a part larger than its whole) and were clamped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub inconsistent: bool,
    /// Model that served the call, as the provider names it.
    pub model: Option<String>,
    /// Why the model stopped, in the provider's word.
    pub finish: Option<String>,
    /// Tools that the model called, in order, without repetition.
    pub tools_called: Vec<String>,
    /// Of these, the ones that were denied: no byte of such a call was forwarded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools_denied: Vec<String>,
    /// Service tier that the provider billed.
    pub service_tier: Option<String>,
    /// Where the provider processed the call, when that changes the price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The reply reached the end that its format defines.
    pub complete: bool,
    /// The reply carried the provider's own error (plain or mid-stream).
    pub error: bool,
}

/// Reads a reply as it passes. Without a gate it never fails and never holds back more than the event it is inside of:
/// bytes that it cannot read pass, and the facts say unknown. With one, what cannot be read does not pass.
pub trait ReplyReader: Send {
    /// Takes the next bytes of the (decoded) reply and gives the bytes to forward: the same ones, unless an event
    /// that the client did not ask for is to be hidden, or a tool call is held back or denied.
    fn feed(&mut self, chunk: Bytes) -> Bytes;
    /// The reply ended (or was cut): what is left to forward, and what was learnt.
    fn finish(&mut self) -> (Bytes, ReplyFacts);
    /// Ends the reply for the client, now, with this refusal in the format's own shape: gives its last bytes. Everything
    /// that is fed afterwards is metered and not forwarded.
    fn cut(&mut self, _refusal: &Refusal, _request_id: &str) -> Bytes {
        Bytes::new()
    }
    /// What the provider is to be told because a call was denied for whose result it would wait. Only where calls are made
    /// on a socket.
    fn answers(&mut self) -> Option<String> {
        None
    }
    /// What the reply has taken so far, at least; nothing where its format does not say.
    fn seen(&self) -> Seen {
        Seen::default()
    }
    /// The client has got its last byte, although the provider may go on: `cut` was called, or a denied call led to it.
    fn stopped(&self) -> bool {
        false
    }
    /// Nothing is forwarded before the end: so a refusal in the reply's place can still have a status of its own.
    fn holds_all(&self) -> bool {
        false
    }
    /// After the end: why the whole reply was replaced by a refusal.
    fn replaced(&mut self) -> Option<Refusal> {
        None
    }
}

/// How the reply to read was asked for and begins.
#[derive(Clone)]
pub struct ReplyHead<'a> {
    /// Status of the provider's answer.
    pub status: StatusCode,
    /// Headers of the provider's answer.
    pub headers: &'a HeaderMap,
    /// The client did not ask for the usage event that `BodyEdits::include_usage` brings: hide it.
    pub hide_usage_event: bool,
    /// Judges the tool calls in it, if the agent has tool rules.
    pub gate: Option<&'a Arc<dyn Gate>>,
}

/// A refusal as it goes over the wire.
#[derive(Debug, Clone)]
pub struct RefusalReply {
    /// Status.
    pub status: StatusCode,
    /// Headers beside content-type and content-length (both set by the caller).
    pub headers: HeaderMap,
    /// JSON body in the provider's own error shape.
    pub body: Bytes,
}

/// One wire format.
pub trait Dialect: Send + Sync {
    /// Which one.
    fn kind(&self) -> DialectKind;
    /// What a method and path (without query) are in this format, under the provider's base path.
    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind;
    /// Reads the whole request body. Duplicate keys, trailing text and wrong types are refused: a client must not
    /// show the firewall one thing and the provider another.
    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed>;
    /// The same, where the path says something about the call too (the model, whether to stream). Formats whose path says
    /// nothing need not look at it.
    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        match &place.model {
            None => self.request(body),
            Some(_) => Err(Malformed("this format takes no model in its path".to_owned())),
        }
    }
    /// Which edits this body can take beside cap, usage and tools.
    fn takes(&self, _body: &[u8]) -> Takes {
        Takes::default()
    }
    /// Edits the body in place.
    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed>;
    /// A reader for the reply that begins so.
    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader>;
    /// The refusal in this format's error shape. `request_id` appears in the message.
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply;
    /// How this format is spoken over a WebSocket that is opened at this path, if it is.
    fn socket(&self, _path: &str) -> Option<&'static dyn socket::SocketFormat> {
        None
    }
}
