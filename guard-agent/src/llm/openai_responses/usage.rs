//! What a response turned out to hold: the object itself, the events of a stream, the frames of a socket.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::llm::reply::{Format, Verdict, note_tool};
use crate::llm::{ReplyFacts, Usage};

/// One event of a stream, one frame of a socket, or a whole response.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    response: Option<Response>,
    item: Option<Item>,
    /// In the event `error`, and in errors with a status.
    error: Option<IgnoredAny>,
}

/// A response, whole or as far as it has come.
#[derive(Deserialize)]
struct Response {
    object: Option<String>,
    model: Option<String>,
    status: Option<String>,
    incomplete_details: Option<Incomplete>,
    output: Option<Vec<Item>>,
    usage: Option<WireUsage>,
    service_tier: Option<String>,
    error: Option<IgnoredAny>,
    /// The error shape of the ChatGPT back end.
    detail: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

/// One item of the output.
#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
    name: Option<String>,
    id: Option<String>,
    action: Option<Action>,
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
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
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
            .and_then(|d| d.cache_write_tokens)
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
        })
    }
}

/// Most searches that are told apart by their id; a response makes a few.
const SEARCH_LIMIT: usize = 256;

/// The reader's state.
#[derive(Debug, Default)]
pub(crate) struct ResponseReply {
    facts: ReplyFacts,
    searches: Vec<String>,
}

impl ResponseReply {
    /// Whether the response has reached its end.
    fn event_of(&mut self, event: Event<'_>) {
        if let Some(item) = event.item {
            self.item(item);
        }
        if let Some(response) = event.response {
            self.response(response);
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

    fn response(&mut self, response: Response) {
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
        for item in response.output.unwrap_or_default() {
            self.item(item);
        }
        if let Some(usage) = response.usage {
            self.facts.usage = usage.buckets();
        }
    }

    fn item(&mut self, item: Item) {
        let kind = item.r#type.unwrap_or_default();
        // A provider's own call has the name of its tool before `_call`; an MCP call names the tool itself.
        let Some(tool) = kind.strip_suffix("_call") else {
            return;
        };
        match (kind.as_str(), item.name) {
            ("function_call" | "custom_tool_call" | "mcp_call", Some(name)) => {
                note_tool(&mut self.facts.tools_called, &name);
            }
            ("function_call" | "custom_tool_call" | "mcp_call", None) => {}
            _ => note_tool(&mut self.facts.tools_called, tool),
        }
        // Opening a page is free; an item is told twice, when it begins and when it ends.
        let search = kind == "web_search_call"
            && item
                .action
                .and_then(|action| action.r#type)
                .is_some_and(|action| action == "search");
        let id = item.id.unwrap_or_default();
        if search && !self.searches.contains(&id) && self.searches.len() < SEARCH_LIMIT {
            self.searches.push(id);
            self.facts.web_searches += 1;
        }
    }
}

impl Format for ResponseReply {
    fn event(&mut self, data: &[u8]) -> Verdict {
        if data.trim_ascii() != b"[DONE]" {
            match serde_json::from_slice(data) {
                Ok(event) => self.event_of(event),
                Err(_) => self.unread(),
            }
        }
        Verdict::Forward
    }

    fn whole(&mut self, body: &[u8]) {
        match serde_json::from_slice::<Response>(body) {
            Ok(response) => {
                let known = response
                    .object
                    .as_deref()
                    .is_some_and(|kind| kind.starts_with("response"));
                let running = matches!(response.status.as_deref(), Some("in_progress" | "queued"));
                let error = response.error.is_some() || (response.detail.is_some() && !known);
                self.facts.complete = (known && !running) || error;
                self.response(response);
                self.facts.error |= error;
            }
            Err(_) => self.unread(),
        }
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
