//! What a request asks for, in words that all formats share.

use serde::Serialize;

use crate::llm::{Bound, Pictures, conversation};

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
    /// Beside the declared tools, the provider is asked to act by itself (compaction), at a cost the body does not bound.
    pub server_side: bool,
    /// Tokens of input that the provider has of the same conversation, beside what this body shows; at most.
    #[serde(skip_serializing_if = "is_nothing")]
    pub carried: u64,
    /// Audio that is heard or spoken, where a model without a price for it may not be used.
    #[serde(skip_serializing_if = "Audio::is_unsaid")]
    pub audio: Audio,
    /// Neither audio nor images can be in the request or in the reply, so that only prices of text count.
    pub text_only: bool,
    /// The body carries a checksum over itself (Claude Code's do): it is admitted or refused as it is, never rewritten.
    pub untouchable: bool,
    /// Where the request wants to be processed (`inference_geo`), when that changes the price.
    pub region: Option<String>,
    /// Pictures in the body, which may take more tokens than they have bytes.
    #[serde(skip_serializing_if = "Pictures::is_none")]
    pub pictures: Pictures,
    /// The most that the call can be billed for, where not the length of its body says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// What the request shows of the conversation so far, in hashes; `conversation.rs` says how a format fills it.
    #[serde(skip)]
    pub conversation: conversation::Conversation,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_nothing(count: &u64) -> bool {
    *count == 0
}

/// Audio in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audio {
    /// The format does not say.
    #[default]
    Unsaid,
    /// Both sides may speak.
    Spoken,
    /// It is written down.
    Heard,
}

impl Audio {
    fn is_unsaid(&self) -> bool {
        *self == Self::Unsaid
    }
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
    /// Name by which the model calls it, where that is another one (Anthropic's dated tools).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called: Option<String>,
    /// Most times that the provider may run it in this call, where the request bounds that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u64>,
}

impl DeclaredTool {
    /// A tool that the client runs.
    pub fn client(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            server_side: false,
            called: None,
            max_uses: None,
        }
    }

    /// A tool that the provider runs.
    pub fn provider(name: impl Into<String>) -> Self {
        Self {
            server_side: true,
            ..Self::client(name)
        }
    }

    /// A tool that one of the two runs.
    pub fn run_by(provider: bool, name: impl Into<String>) -> Self {
        Self {
            server_side: provider,
            ..Self::client(name)
        }
    }

    /// The name that stands in a call of it.
    pub fn called(&self) -> &str {
        self.called.as_deref().unwrap_or(&self.name)
    }
}
