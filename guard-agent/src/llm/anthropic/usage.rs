//! What a messages reply turned out to hold.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::llm::anthropic::{ANTHROPIC, calls};
use crate::llm::few::Few;
use crate::llm::frames::sse_event;
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::seen::{Output, Weight};
use crate::llm::stated::Stated;
use crate::llm::{Dialect, OtherUsage, ReplyFacts, Seen, Unit, Usage};
use crate::refusal::Refusal;

/// One event of a stream.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    index: Option<u64>,
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
    content: Option<Few<Block>>,
    stop_reason: Option<String>,
    usage: Option<WireUsage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Block {
    r#type: Option<String>,
    name: Option<String>,
    input: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Delta {
    stop_reason: Option<String>,
    /// More of a call's arguments.
    partial_json: Option<String>,
    #[serde(default)]
    text: Weight,
    #[serde(default)]
    thinking: Weight,
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
    iterations: Option<Few<Iteration>>,
    server_tool_use: Option<ServerToolUse>,
    service_tier: Option<String>,
    speed: Option<String>,
    inference_geo: Option<String>,
    /// OpenRouter: what it cost.
    cost: Option<Box<RawValue>>,
    is_byok: Option<Box<RawValue>>,
    cost_details: Option<Box<RawValue>>,
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
    iterations: Few<Iteration>,
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

    /// The buckets of `model`, and those of other models. Passes other than `message` (compaction, advisor) are not in
    /// the top-level counts and are added, to the model that they name.
    fn buckets(&self, model: Option<&str>, searches: u64) -> Option<(Usage, Vec<OtherUsage>)> {
        let (five, hour) = split(self.cache_write, self.split);
        let output = self.output?;
        let mut usage = Usage {
            input: self.input?,
            cache_read: self.cache_read,
            cache_write_5m: five,
            cache_write_1h: hour,
            output,
            reasoning: self.thinking.min(output),
            ..Usage::default()
        };
        usage.units.set(Unit::WebSearch, searches);
        let mut others: Vec<OtherUsage> = Vec::new();
        for pass in &self.iterations {
            let own = pass.model.as_deref().filter(|own| Some(*own) != model);
            let top = pass.r#type.as_deref() == Some("message");
            match own {
                None if top => {}
                None => usage = usage.checked_add(&pass.usage()?)?,
                // A pass of the top level by another model: which of the counts are its own cannot be told.
                Some(_) if top => return None,
                Some(name) => match others.iter_mut().find(|other| other.model == name) {
                    Some(other) => other.usage = other.usage.checked_add(&pass.usage()?)?,
                    None => others.push(OtherUsage {
                        model: name.to_owned(),
                        usage: pass.usage()?,
                    }),
                },
            }
        }
        Some((usage, others))
    }
}

impl Iteration {
    fn usage(&self) -> Option<Usage> {
        let (five, hour) = split(self.cache_creation_input_tokens.unwrap_or(0), self.cache_creation);
        Some(Usage {
            input: self.input_tokens?,
            cache_read: self.cache_read_input_tokens.unwrap_or(0),
            cache_write_5m: five,
            cache_write_1h: hour,
            output: self.output_tokens?,
            ..Usage::default()
        })
    }
}

impl Counts {
    /// A part is larger than its whole.
    fn inconsistent(&self) -> bool {
        let split = self.split.map_or(0, |split| {
            split
                .ephemeral_5m_input_tokens
                .saturating_add(split.ephemeral_1h_input_tokens)
        });
        split > self.cache_write || self.thinking > self.output.unwrap_or(0)
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
    searches: u64,
    /// The output count is the final one, not the placeholder of `message_start`.
    counted: bool,
    /// Something that may have had counts in it could not be read.
    unread: bool,
    output: Output,
}

impl MessageReply {
    fn message(&mut self, message: Message, calls: &mut Calls) {
        self.facts.model = message.model.or(self.facts.model.take());
        self.facts.finish = message.stop_reason.or(self.facts.finish.take());
        self.facts.error |= message.error.is_some() || message.r#type.as_deref() == Some("error");
        for (index, block) in (0..).zip(message.content.unwrap_or_default()) {
            Self::block(index, &block, calls);
            calls.end(At { choice: 0, index });
        }
        if let Some(usage) = message.usage {
            self.usage(usage);
        }
    }

    fn block(index: u64, block: &Block, calls: &mut Calls) {
        let (Some(kind), Some(name)) = (block.r#type.as_deref(), block.name.as_deref()) else {
            return;
        };
        if kind == "tool_use" {
            // A stream begins with an empty object, and the real one follows in pieces.
            let input = block
                .input
                .as_ref()
                .map(|raw| raw.get())
                .filter(|raw| *raw != "{}");
            calls.part(At { choice: 0, index }, Some(name), input);
        } else if kind.ends_with("_tool_use") {
            calls.by_provider(name);
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
            self.searches = searches;
        }
        let stated = Stated {
            cost: usage.cost.as_deref(),
            is_byok: usage.is_byok.as_deref(),
            details: usage.cost_details.as_deref(),
            ..Stated::default()
        };
        self.facts.reported_cost = stated.amount().or(self.facts.reported_cost);
        self.facts.region = usage.inference_geo.take().or(self.facts.region.take());
        self.counts.take(usage);
    }
}

impl Format for MessageReply {
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
            self.unread();
            return Verdict::Unreadable;
        };
        let at = At {
            choice: 0,
            index: event.index.unwrap_or(0),
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
            "content_block_stop" => calls.end(at),
            _ => {}
        }
        if let Some(message) = event.message {
            self.message(message, calls);
        }
        if let Some(block) = event.content_block {
            Self::block(at.index, &block, calls);
        }
        if let Some(delta) = event.delta {
            let json = delta.partial_json.as_ref().map_or(0, String::len) as u64;
            self.output
                .piece(json.saturating_add(delta.text.0).saturating_add(delta.thinking.0));
            if let Some(more) = delta.partial_json.as_deref() {
                calls.more(at, more);
            }
            self.facts.finish = delta.stop_reason.or(self.facts.finish.take());
        }
        if let Some(usage) = event.usage {
            self.usage(usage);
        }
        Verdict::Forward
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        match serde_json::from_slice::<Message>(body) {
            Ok(message) => {
                self.facts.complete = message.content.is_some() || message.error.is_some();
                self.counted = true;
                self.message(message, calls);
                true
            }
            Err(_) => {
                self.unread();
                false
            }
        }
    }

    fn without(&mut self, event: serde_json::Value, calls: &mut Calls) -> Edit {
        calls::without(event, calls)
    }

    fn without_in_whole(&mut self, reply: serde_json::Value, calls: &mut Calls) -> Edit {
        calls::without_in_whole(reply, calls)
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        Bytes::from(sse_event(Some("error"), &self.instead(refusal, request_id)))
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        ANTHROPIC.refusal(refusal, request_id).body
    }

    fn unread(&mut self) {
        self.unread = true;
    }

    fn seen(&self) -> Seen {
        let counts = &self.counts;
        let input = counts.input.unwrap_or(0);
        Seen {
            input: input
                .saturating_add(counts.cache_read)
                .saturating_add(counts.cache_write),
            output: self.output.tokens().max(counts.output.unwrap_or(0)),
        }
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        if self.counted && !self.unread {
            if let Some((usage, others)) = self.counts.buckets(facts.model.as_deref(), self.searches) {
                facts.usage = Some(usage);
                facts.others = others;
            }
            facts.inconsistent |= self.counts.inconsistent();
        }
        if facts.usage.is_none() {
            facts.reported_cost = None;
        }
        facts
    }
}
