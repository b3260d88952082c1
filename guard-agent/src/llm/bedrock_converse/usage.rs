//! What a Converse reply turned out to hold: the object, or the events of its binary stream as a union each.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::llm::bedrock_converse::{exception, frames, refuse};
use crate::llm::few::Few;
use crate::llm::frames::Frames;
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::request::lenient;
use crate::llm::seen::{Output, Weight};
use crate::llm::{ReplyFacts, Seen, Usage};
use crate::refusal::Refusal;

/// A whole reply.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    output: Option<Answer>,
    stop_reason: Option<String>,
    usage: Option<WireUsage>,
    service_tier: Option<Tier>,
    performance_config: Option<Performance>,
    trace: Option<Trace>,
    message: Option<IgnoredAny>,
}

/// Which model a prompt router chose.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    prompt_router: Option<Routed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Routed {
    invoked_model_id: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Few<Block>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    #[serde(default)]
    text: Weight,
    reasoning_content: Option<Reasoning>,
    tool_use: Option<ToolUse>,
}

/// In a stream; its signature is no output.
#[derive(Deserialize)]
struct Reasoning {
    #[serde(default)]
    text: Weight,
}

impl Block {
    /// Bytes of output in it.
    fn weight(&self) -> u64 {
        let thought = self
            .reasoning_content
            .as_ref()
            .map_or(0, |thought| thought.text.0);
        let called = self.tool_use.as_ref().and_then(|call| call.input.as_deref());
        let called = lenient::<Cow<'_, str>>(called).map_or(0, |piece| piece.len() as u64);
        self.text.0.saturating_add(thought).saturating_add(called)
    }
}

#[derive(Deserialize)]
struct ToolUse {
    name: Option<String>,
    /// Whole in a plain reply, in pieces in a stream.
    input: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Tier {
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct Performance {
    latency: Option<String>,
}

/// One event of a stream. A name that is not here and ends in `Exception` is the service's error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    message_start: Option<IgnoredAny>,
    content_block_start: Option<Start>,
    content_block_delta: Option<Delta>,
    content_block_stop: Option<Place>,
    message_stop: Option<Stop>,
    metadata: Option<Reply>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    start: Option<Block>,
    content_block_index: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    delta: Option<Block>,
    content_block_index: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    content_block_index: Option<u64>,
}

fn at(index: Option<u64>) -> At {
    At {
        choice: 0,
        index: index.unwrap_or(0),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stop {
    stop_reason: Option<String>,
}

/// Cached tokens stand beside `inputTokens`, not in it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
    /// Nova's own names, which the service sends beside the others.
    cache_read_input_token_count: Option<u64>,
    cache_write_input_token_count: Option<u64>,
    cache_details: Option<Few<CacheDetail>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheDetail {
    ttl: Option<String>,
    input_tokens: Option<u64>,
}

impl WireUsage {
    fn buckets(&self) -> Option<Usage> {
        let either = |one: Option<u64>, other: Option<u64>| one.max(other).unwrap_or(0);
        let written = either(self.cache_write_input_tokens, self.cache_write_input_token_count);
        let long = self
            .cache_details
            .iter()
            .flatten()
            .filter(|detail| detail.ttl.as_deref() == Some("1h"))
            .filter_map(|detail| detail.input_tokens)
            .fold(0_u64, u64::saturating_add)
            .min(written);
        Some(Usage {
            input: self.input_tokens?,
            cache_read: either(self.cache_read_input_tokens, self.cache_read_input_token_count),
            cache_write_5m: written - long,
            cache_write_1h: long,
            output: self.output_tokens?,
            ..Usage::default()
        })
    }
}

/// The reader's state.
#[derive(Debug, Default)]
pub(in crate::llm) struct ConverseReply {
    facts: ReplyFacts,
    output: Output,
}

impl ConverseReply {
    fn account(&mut self, reply: Reply) {
        let fast = reply
            .performance_config
            .and_then(|config| config.latency)
            .filter(|latency| latency != "standard");
        self.facts.service_tier = fast.or(reply.service_tier.and_then(|tier| tier.r#type));
        let routed = reply.trace.and_then(|trace| trace.prompt_router);
        self.facts.model = routed
            .and_then(|routed| routed.invoked_model_id)
            .or(self.facts.model.take());
        self.facts.finish = reply.stop_reason.or(self.facts.finish.take());
        if let Some(usage) = reply.usage {
            self.facts.usage = usage.buckets();
        }
    }
}

impl Format for ConverseReply {
    fn frames(&self, media: &str) -> Option<Box<dyn Frames>> {
        frames(media)
    }

    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        let Ok(event) = serde_json::from_slice::<Event>(data) else {
            self.unread();
            return Verdict::Unreadable;
        };
        let mut found = event.message_start.is_some();
        if let Some(block) = event.content_block_start {
            found = true;
            if let Some(call) = block.start.and_then(|start| start.tool_use) {
                calls.part(at(block.content_block_index), call.name.as_deref(), None);
            }
        }
        if let Some(block) = event.content_block_delta {
            found = true;
            self.output.piece(block.delta.as_ref().map_or(0, Block::weight));
            let more = block
                .delta
                .and_then(|delta| delta.tool_use)
                .and_then(|call| call.input);
            if let Some(more) = lenient::<Cow<'_, str>>(more.as_deref()) {
                calls.more(at(block.content_block_index), &more);
            }
        }
        if let Some(block) = event.content_block_stop {
            found = true;
            calls.end(at(block.content_block_index));
        }
        if let Some(stop) = event.message_stop {
            found = true;
            self.facts.finish = stop.stop_reason;
        }
        if let Some(metadata) = event.metadata {
            found = true;
            self.facts.complete = true;
            self.account(metadata);
        }
        let exception = data.get(..64.min(data.len())).unwrap_or_default();
        self.facts.error |= !found && memchr::memmem::find(exception, b"xception\":").is_some();
        Verdict::Forward
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        let Ok(mut reply) = serde_json::from_slice::<Reply>(body) else {
            self.unread();
            return false;
        };
        let output = reply.output.take();
        self.facts.error = output.is_none() && reply.message.is_some();
        self.facts.complete = output.is_some() || self.facts.error;
        let blocks = output
            .and_then(|output| output.message)
            .and_then(|message| message.content);
        for (index, block) in (0..).zip(blocks.unwrap_or_default()) {
            if let Some(call) = block.tool_use {
                let input = call.input.as_deref().map(RawValue::get);
                let at = At { choice: 0, index };
                calls.part(at, call.name.as_deref(), input);
                calls.end(at);
            }
        }
        self.account(reply);
        true
    }

    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        super::calls::without(event, calls)
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        exception(refusal, request_id)
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        refuse(refusal, request_id).body
    }

    fn seen(&self) -> Seen {
        self.output.beside(self.facts.usage.as_ref())
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
