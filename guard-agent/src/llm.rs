//! Provider-neutral facts of a call, and the trait behind which each wire format is one file.
//!
//! Guard extracts facts and edits text in place; it never converts between formats.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use crate::refusal::Refusal;

// --- the formats ----------------------------------------------------------------
pub mod anthropic;
pub mod openai_chat;

// --- which provider, which endpoint -----------------------------------------------
pub mod detect;
pub mod provider;

// --- what the formats share ---------------------------------------------------------
pub mod conversation;
pub mod encoding;
mod json_edit;
mod json_strict;
pub mod prices;
mod refusal_reply;
mod reply;
mod request;
pub mod sse;

#[cfg(test)]
mod golden;

/// The wire formats that Guard reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DialectKind {
    /// OpenAI chat completions (and every provider that speaks it).
    OpenaiChat,
    /// Anthropic messages.
    AnthropicMessages,
}

impl DialectKind {
    /// Name in configuration, audit and documentation.
    pub fn label(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::AnthropicMessages => "anthropic-messages",
        }
    }
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
    /// Anything else on a provider host: refused unless the agent lists it, because it may be a way around a budget.
    Other,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RequestFacts {
    /// Model as the client named it.
    pub model: String,
    /// Whether the reply is to be streamed.
    pub stream: bool,
    /// Output cap that the client set, in tokens (the largest, where a format has several).
    pub output_cap: Option<u64>,
    /// Thinking budget that the client set, in tokens; an output cap may never be set below it.
    pub thinking_budget: Option<u64>,
    /// Number of alternative answers asked for (`n`), at least 1.
    pub choices: u64,
    /// `stream_options.include_usage`, where the format has it.
    pub include_usage: bool,
    /// Every tool declared in the request, wherever this format lets one be declared.
    pub tools: Vec<DeclaredTool>,
    /// `service_tier` or its like, as the client named it.
    pub service_tier: Option<String>,
    /// Prompt caching that the request asks for, which makes input dearer.
    pub cache_write: CacheWrite,
    /// The input contains something whose size the body does not show (URL, file id, stored context).
    pub unseen_input: bool,
    /// The provider is asked to act by itself (server-side tools, connectors), at a cost the body does not bound.
    pub server_side: bool,
    /// The body carries a checksum over itself (Claude Code's do): it is admitted or refused as it is, never rewritten.
    pub untouchable: bool,
    /// What the request shows of the conversation so far, in hashes; `conversation.rs` says how a format fills it.
    #[serde(skip)]
    pub conversation: conversation::Conversation,
}

/// The dearest kind of cache write that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheWrite {
    /// None asked for.
    #[default]
    None,
    /// Five-minute (default) lifetime.
    FiveMinutes,
    /// One-hour lifetime.
    OneHour,
}

/// A tool that a request declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclaredTool {
    /// Name by which the allow list knows it: a function's name, or the type of a built-in one.
    pub name: String,
    /// Whether the provider runs it by itself (web search, code execution, an MCP connector).
    pub server_side: bool,
}

/// Changes to a request body; everything not named stays byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BodyEdits {
    /// Set the output cap to this many tokens.
    pub output_cap: Option<u64>,
    /// Ask for usage in the stream.
    pub include_usage: bool,
    /// Remove the declared tools with these names (and a tool choice that names one of them).
    pub strip_tools: Vec<String>,
}

impl BodyEdits {
    /// Whether the body goes on as it came.
    pub fn is_empty(&self) -> bool {
        self.output_cap.is_none() && !self.include_usage && self.strip_tools.is_empty()
    }
}

/// A body that this format cannot read. The message goes to the client: it names the place, never the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// Tokens that a provider reports, in buckets that do not overlap, except that `reasoning` is part of `output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Input neither read from nor written to a cache.
    pub input: u64,
    /// Input read from a prompt cache.
    pub cache_read: u64,
    /// Input written to a five-minute (or the provider's default) cache.
    pub cache_write_5m: u64,
    /// Input written to a one-hour cache.
    pub cache_write_1h: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Of the output, reasoning.
    pub reasoning: u64,
}

/// What a reply turned out to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ReplyFacts {
    /// Usage; `None` is unknown, never zero.
    pub usage: Option<Usage>,
    /// Model that served the call, as the provider names it.
    pub model: Option<String>,
    /// Why the model stopped, in the provider's word.
    pub finish: Option<String>,
    /// Tools that the model called, in order, without repetition.
    pub tools_called: Vec<String>,
    /// Service tier that the provider billed.
    pub service_tier: Option<String>,
    /// Web searches that the provider ran and bills one by one.
    pub web_searches: u64,
    /// The reply reached the end that its format defines.
    pub complete: bool,
    /// The reply carried the provider's own error (plain or mid-stream).
    pub error: bool,
}

/// Reads a reply as it passes. Never fails and never holds back more than the event it is inside of: bytes that it
/// cannot read pass, and the facts say unknown.
pub trait ReplyReader: Send {
    /// Takes the next bytes of the (decoded) reply and gives the bytes to forward: the same ones, unless an event
    /// that the client did not ask for is to be hidden.
    fn feed(&mut self, chunk: Bytes) -> Bytes;
    /// The reply ended (or was cut): what is left to forward, and what was learnt.
    fn finish(&mut self) -> (Bytes, ReplyFacts);
}

/// How the reply to read was asked for and begins.
#[derive(Debug, Clone)]
pub struct ReplyHead<'a> {
    /// Status of the provider's answer.
    pub status: StatusCode,
    /// Headers of the provider's answer.
    pub headers: &'a HeaderMap,
    /// The client did not ask for the usage event that `BodyEdits::include_usage` brings: hide it.
    pub hide_usage_event: bool,
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
    /// Edits the body in place.
    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed>;
    /// A reader for the reply that begins so.
    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader>;
    /// The refusal in this format's error shape. `request_id` appears in the message.
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply;
}
