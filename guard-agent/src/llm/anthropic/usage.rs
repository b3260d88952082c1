//! What a messages reply turned out to hold.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::llm::reply::{Format, Verdict, note_tool};
use crate::llm::{ReplyFacts, Usage};

/// One event of a stream.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    message: Option<Message>,
    content_block: Option<Block>,
    delta: Option<Delta>,
    usage: Option<WireUsage>,
}

/// A whole message, or the head of one in `message_start`.
#[derive(Deserialize)]
struct Message {
    r#type: Option<String>,
    model: Option<String>,
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    usage: Option<WireUsage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Block {
    r#type: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    stop_reason: Option<String>,
}

/// `usage`. In `message_delta` the counts are cumulative and those that did not change may be missing.
#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
    iterations: Option<Vec<Iteration>>,
    server_tool_use: Option<ServerToolUse>,
    service_tier: Option<String>,
    speed: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_5m_input_tokens: u64,
    #[serde(default)]
    ephemeral_1h_input_tokens: u64,
}

#[derive(Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct ServerToolUse {
    web_search_requests: Option<u64>,
}

/// One sampling pass of the provider's own loop.
#[derive(Debug, Clone, Deserialize)]
struct Iteration {
    r#type: Option<String>,
    model: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
}

/// The counts as last said.
#[derive(Debug, Default)]
struct Counts {
    input: Option<u64>,
    cache_read: u64,
    cache_write: u64,
    split: Option<CacheCreation>,
    output: Option<u64>,
    thinking: u64,
    iterations: Vec<Iteration>,
}

impl Counts {
    /// Takes what is said now in place of what was said before; what is not said stays.
    fn take(&mut self, usage: WireUsage) {
        self.input = usage.input_tokens.or(self.input);
        self.cache_read = usage.cache_read_input_tokens.unwrap_or(self.cache_read);
        self.cache_write = usage.cache_creation_input_tokens.unwrap_or(self.cache_write);
        self.split = usage.cache_creation.or(self.split);
        self.output = usage.output_tokens.or(self.output);
        self.thinking = usage
            .output_tokens_details
            .and_then(|d| d.thinking_tokens)
            .unwrap_or(self.thinking);
        if let Some(iterations) = usage.iterations {
            self.iterations = iterations;
        }
    }

    /// The buckets. Passes other than `message` (compaction) are not in the top-level counts and are added; a pass by
    /// another model has another price, so with one the whole is unknown.
    fn buckets(&self, model: Option<&str>) -> Option<Usage> {
        let (five, hour) = split(self.cache_write, self.split);
        let mut usage = Usage {
            input: self.input?,
            cache_read: self.cache_read,
            cache_write_5m: five,
            cache_write_1h: hour,
            output: self.output?,
            reasoning: self.thinking.min(self.output?),
        };
        for pass in &self.iterations {
            if pass.model.is_some() && pass.model.as_deref() != model {
                return None;
            }
            if pass.r#type.as_deref() == Some("message") {
                continue;
            }
            let (five, hour) = split(pass.cache_creation_input_tokens.unwrap_or(0), pass.cache_creation);
            for (total, more) in [
                (&mut usage.input, pass.input_tokens?),
                (&mut usage.cache_read, pass.cache_read_input_tokens.unwrap_or(0)),
                (&mut usage.cache_write_5m, five),
                (&mut usage.cache_write_1h, hour),
                (&mut usage.output, pass.output_tokens?),
            ] {
                *total = total.checked_add(more)?;
            }
        }
        Some(usage)
    }
}

/// Cache writes by lifetime. The split may be missing, or older than the total (a stream's last word has only the
/// total): the rest goes to the longer, dearer lifetime if the request wrote any of that, else to the default one.
fn split(total: u64, split: Option<CacheCreation>) -> (u64, u64) {
    let (five, hour) = split.map_or((0, 0), |s| {
        (s.ephemeral_5m_input_tokens, s.ephemeral_1h_input_tokens)
    });
    let rest = total.saturating_sub(five.saturating_add(hour));
    if hour > 0 {
        (five, hour.saturating_add(rest))
    } else {
        (five.saturating_add(rest), hour)
    }
}

/// The reader's state.
#[derive(Debug, Default)]
pub(in crate::llm) struct MessageReply {
    facts: ReplyFacts,
    counts: Counts,
    /// The output count is the final one, not the placeholder of `message_start`.
    counted: bool,
    /// Something that may have had counts in it could not be read.
    unread: bool,
}

impl MessageReply {
    fn message(&mut self, message: Message) {
        self.facts.model = message.model.or(self.facts.model.take());
        self.facts.finish = message.stop_reason.or(self.facts.finish.take());
        self.facts.error |= message.error.is_some() || message.r#type.as_deref() == Some("error");
        message
            .content
            .unwrap_or_default()
            .into_iter()
            .for_each(|block| self.block(block));
        if let Some(usage) = message.usage {
            self.usage(usage);
        }
    }

    fn block(&mut self, block: Block) {
        let calls = block
            .r#type
            .is_some_and(|kind| kind == "tool_use" || kind.ends_with("_tool_use"));
        if let (true, Some(name)) = (calls, block.name) {
            note_tool(&mut self.facts.tools_called, &name);
        }
    }

    fn usage(&mut self, mut usage: WireUsage) {
        let speed = usage.speed.take().filter(|speed| speed != "standard");
        self.facts.service_tier = speed
            .or(usage.service_tier.take())
            .or(self.facts.service_tier.take());
        if let Some(searches) = usage
            .server_tool_use
            .as_ref()
            .and_then(|tools| tools.web_search_requests)
        {
            self.facts.web_searches = searches;
        }
        self.counts.take(usage);
    }
}

impl Format for MessageReply {
    fn event(&mut self, data: &[u8]) -> Verdict {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
            self.unread();
            return Verdict::Forward;
        };
        match &*event.r#type {
            "message_delta" => {
                self.counted |= event
                    .usage
                    .as_ref()
                    .is_some_and(|usage| usage.output_tokens.is_some())
            }
            "message_stop" => self.facts.complete = true,
            "error" => self.facts.error = true,
            _ => {}
        }
        if let Some(message) = event.message {
            self.message(message);
        }
        if let Some(block) = event.content_block {
            self.block(block);
        }
        if let Some(reason) = event.delta.and_then(|delta| delta.stop_reason) {
            self.facts.finish = Some(reason);
        }
        if let Some(usage) = event.usage {
            self.usage(usage);
        }
        Verdict::Forward
    }

    fn whole(&mut self, body: &[u8]) {
        match serde_json::from_slice::<Message>(body) {
            Ok(message) => {
                self.facts.complete = message.content.is_some() || message.error.is_some();
                self.counted = true;
                self.message(message);
            }
            Err(_) => self.unread(),
        }
    }

    fn unread(&mut self) {
        self.unread = true;
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        if self.counted && !self.unread {
            facts.usage = self.counts.buckets(facts.model.as_deref());
        }
        facts
    }
}
