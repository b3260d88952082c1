//! What a response turned out to hold: the object itself, the events of a stream, the frames of a socket.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::llm::few::Few;
use crate::llm::frames::sse_event;
use crate::llm::openai_chat::OPENAI;
use crate::llm::openai_responses::calls;
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::request::lenient;
use crate::llm::seen::Output;
use crate::llm::stated::Stated;
use crate::llm::{Dialect, OtherUsage, ReplyFacts, Seen, Unit, Usage, refusal_reply};
use crate::refusal::Refusal;

/// One event of a stream, one frame of a socket, or a whole response.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    response: Option<Response>,
    item: Option<Item>,
    output_index: Option<u64>,
    /// More of a call's arguments, in the events of calls only.
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    /// In the event `error`, and in errors with a status.
    error: Option<IgnoredAny>,
}

/// A response, whole or as far as it has come.
#[derive(Deserialize)]
struct Response {
    object: Option<String>,
    id: Option<String>,
    model: Option<String>,
    status: Option<String>,
    incomplete_details: Option<Incomplete>,
    output: Option<Few<Item>>,
    usage: Option<WireUsage>,
    service_tier: Option<String>,
    error: Option<IgnoredAny>,
    tool_usage: Option<ToolUsage>,
    /// The error shape of the ChatGPT back end.
    detail: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

/// What the provider's own tools used, beside the model.
#[derive(Deserialize)]
struct ToolUsage {
    image_gen: Option<WireUsage>,
}

/// One item of the output.
#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
    name: Option<String>,
    id: Option<String>,
    action: Option<Action>,
    /// The arguments of a function, or the free text of a custom tool.
    arguments: Option<Box<RawValue>>,
    input: Option<Box<RawValue>>,
    status: Option<String>,
    container_id: Option<String>,
}

#[derive(Deserialize)]
struct Action {
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
    /// OpenRouter, Perplexity: what it cost.
    cost: Option<Box<RawValue>>,
    /// xAI: the same.
    cost_in_usd_ticks: Option<Box<RawValue>>,
    is_byok: Option<Box<RawValue>>,
    cost_details: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    /// Perplexity's name for the same.
    cache_creation_input_tokens: Option<u64>,
    cache_write_tokens_details: Option<WriteDetails>,
}

/// Cache writes by lifetime.
#[derive(Deserialize)]
struct WriteDetails {
    #[serde(alias = "ttl_12h")]
    ttl_12h_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// The buckets. `input_tokens` includes cached and cache-written ones.
    fn buckets(&self) -> Option<Usage> {
        let (input, output) = (self.input_tokens?, self.output_tokens?);
        let details = self.input_tokens_details.as_ref();
        let cache_read = details.and_then(|d| d.cached_tokens).unwrap_or(0).min(input);
        let written = details
            .and_then(|d| d.cache_write_tokens.max(d.cache_creation_input_tokens))
            .unwrap_or(0)
            .min(input - cache_read);
        let long = details
            .and_then(|d| d.cache_write_tokens_details.as_ref())
            .and_then(|d| d.ttl_12h_tokens)
            .unwrap_or(0)
            .min(written);
        let beyond = self
            .total_tokens
            .unwrap_or(0)
            .saturating_sub(input.saturating_add(output));
        let output = output.saturating_add(beyond);
        let reasoning = self
            .output_tokens_details
            .as_ref()
            .and_then(|d| d.reasoning_tokens)
            .unwrap_or(0);
        Some(Usage {
            input: input - cache_read - written,
            cache_read,
            cache_write_5m: written - long,
            cache_write_1h: long,
            output,
            reasoning: reasoning.min(output),
            ..Usage::default()
        })
    }
}

/// Most actions of the provider's that are told apart by their id; a response makes a few.
const ACTION_LIMIT: usize = 256;

/// The reader's state.
#[derive(Debug, Default)]
pub(crate) struct ResponseReply {
    facts: ReplyFacts,
    id: String,
    /// What the provider did and bills one by one, by id: an item is told when it begins, when it ends, and in the whole
    /// response.
    actions: Vec<(Unit, String)>,
    /// The tokens of the images that were made are told.
    images_counted: bool,
    output: Output,
}

impl ResponseReply {
    fn take(&mut self, event: Event<'_>, calls: &mut Calls) {
        let at = At {
            choice: 0,
            index: event.output_index.unwrap_or(0),
        };
        if let Some(item) = event.item {
            self.item(at, item, false, calls);
        }
        let more = matches!(
            &*event.r#type,
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta"
        );
        if let Some(delta) = lenient::<Cow<'_, str>>(event.delta) {
            self.output.piece(delta.len() as u64);
            if more {
                calls.more(at, &delta);
            }
        }
        if matches!(&*event.r#type, "response.output_item.done") {
            calls.end(at);
        }
        let last = matches!(
            &*event.r#type,
            "response.completed" | "response.incomplete" | "response.failed"
        );
        if let Some(response) = event.response {
            self.response(response, last, calls);
        }
        match &*event.r#type {
            "response.completed" | "response.incomplete" => self.facts.complete = true,
            "response.failed" => {
                self.facts.complete = true;
                self.facts.error = true;
            }
            "error" => self.facts.error = true,
            _ => self.facts.error |= event.error.is_some(),
        }
    }

    fn response(&mut self, response: Response, last: bool, calls: &mut Calls) {
        self.id = response.id.unwrap_or_else(|| std::mem::take(&mut self.id));
        self.facts.model = response
            .model
            .filter(|model| !model.is_empty())
            .or(self.facts.model.take());
        // A response says `auto` until it is decided which tier serves it.
        self.facts.service_tier = response
            .service_tier
            .filter(|tier| tier != "auto")
            .or(self.facts.service_tier.take());
        let why = response.incomplete_details.and_then(|details| details.reason);
        let ended = response
            .status
            .filter(|status| !matches!(status.as_str(), "in_progress" | "queued"));
        self.facts.finish = why.or(ended).or(self.facts.finish.take());
        self.facts.error |= response.error.is_some();
        for (index, item) in (0..).zip(response.output.unwrap_or_default()) {
            self.item(At { choice: 0, index }, item, true, calls);
        }
        if last {
            calls.end_choice(0);
        }
        if let Some(usage) = response.usage {
            self.facts.usage = usage.buckets();
            let stated = Stated {
                cost: usage.cost.as_deref(),
                ticks: usage.cost_in_usd_ticks.as_deref(),
                is_byok: usage.is_byok.as_deref(),
                details: usage.cost_details.as_deref(),
            };
            self.facts.reported_cost = stated.amount().filter(|_| self.facts.usage.is_some());
        }
        // Images are made by another model, at its prices.
        let images = response.tool_usage.and_then(|tools| tools.image_gen?.buckets());
        if let Some(usage) = images.filter(|usage| *usage != Usage::default()) {
            self.images_counted = true;
            let model = "image_generation".to_owned();
            self.facts.others = vec![OtherUsage { model, usage }];
        }
    }

    /// One item of the output; `whole` when it is told with everything in it.
    fn item(&mut self, at: At, item: Item, whole: bool, calls: &mut Calls) {
        let kind = item.r#type.as_deref().unwrap_or_default();
        // A provider's own call has the name of its tool before `_call`; an MCP call names the tool itself.
        let Some(tool) = kind.strip_suffix("_call") else {
            return;
        };
        match (kind, item.name.as_deref()) {
            ("function_call" | "custom_tool_call", name) => {
                let complete = whole || item.status.as_deref() == Some("completed");
                if !calls.begun(at) {
                    let input = item.arguments.as_deref().or(item.input.as_deref());
                    let input = lenient::<Cow<'_, str>>(input.filter(|_| complete));
                    calls.part(at, name, input.as_deref());
                }
                if complete {
                    calls.end(at);
                }
            }
            ("mcp_call", Some(name)) => calls.by_provider(name),
            // Run by the client as a function is; there is no name but the kind.
            ("local_shell_call" | "shell_call" | "apply_patch_call" | "computer_call", _) => {
                if !calls.begun(at) {
                    calls.part(at, Some(tool), None);
                }
                if whole || item.status.as_deref() == Some("completed") {
                    calls.end(at);
                }
            }
            ("mcp_call", None) => {}
            _ => calls.by_provider(tool),
        }
        // Opening a page is free. In 2025 there was no word for what was done, and all of it was searches.
        let search = match item.action.and_then(|action| action.r#type) {
            Some(action) => action == "search",
            None => item.status.as_deref() == Some("completed"),
        };
        let id = item.id.unwrap_or_default();
        match kind {
            "web_search_call" if search => self.did(Unit::WebSearch, id),
            "file_search_call" => self.did(Unit::FileSearch, id),
            "image_generation_call" => self.did(Unit::Image, id),
            "code_interpreter_call" => self.did(Unit::CodeSession, item.container_id.unwrap_or(id)),
            _ => {}
        }
    }

    /// A response that failed for its prompt: the one end after which Codex neither tries again nor loses the message.
    pub(super) fn failed(&self, refusal: &Refusal, request_id: &str) -> Value {
        let response = json!({
            "id": self.id, "object": "response", "status": "failed", "output": [],
            "model": self.facts.model, "usage": null, "incomplete_details": null,
            "error": {"code": "invalid_prompt", "message": refusal_reply::message(refusal, request_id)},
        });
        json!({"type": "response.failed", "sequence_number": 0, "response": response})
    }

    fn did(&mut self, unit: Unit, id: String) {
        let action = (unit, id);
        if !self.actions.contains(&action) && self.actions.len() < ACTION_LIMIT {
            self.actions.push(action);
        }
    }
}

impl Format for ResponseReply {
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if data.trim_ascii() == b"[DONE]" {
            return Verdict::Forward;
        }
        match serde_json::from_slice(data) {
            Ok(event) => {
                self.take(event, calls);
                Verdict::Forward
            }
            Err(_) => {
                self.unread();
                Verdict::Unreadable
            }
        }
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        let Ok(response) = serde_json::from_slice::<Response>(body) else {
            self.unread();
            return false;
        };
        let known = response
            .object
            .as_deref()
            .is_some_and(|kind| kind.starts_with("response"));
        let running = matches!(response.status.as_deref(), Some("in_progress" | "queued"));
        let error = response.error.is_some() || (response.detail.is_some() && !known);
        self.facts.complete = (known && !running) || error;
        self.response(response, true, calls);
        self.facts.error |= error;
        true
    }

    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        calls::without(event, calls)
    }

    fn without_in_whole(&mut self, reply: Value, calls: &mut Calls) -> Edit {
        calls::without_in_whole(reply, calls)
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let event = self.failed(refusal, request_id);
        Bytes::from(sse_event(Some("response.failed"), event.to_string().as_bytes()))
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        OPENAI.refusal(refusal, request_id).body
    }

    fn seen(&self) -> Seen {
        Seen {
            input: 0,
            output: self.output.tokens(),
        }
    }

    fn unread(&mut self) {
        self.facts.usage = None;
        self.facts.reported_cost = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        if let Some(usage) = &mut facts.usage {
            let told = |unit| unit == Unit::Image && self.images_counted;
            for (unit, _) in self.actions.iter().filter(|(unit, _)| !told(*unit)) {
                usage.units.set(*unit, usage.units.get(*unit).saturating_add(1));
            }
        }
        facts
    }
}
