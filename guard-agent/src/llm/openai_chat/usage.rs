//! What a chat completions reply turned out to hold.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::llm::reply::{Format, Verdict, note_tool};
use crate::llm::{ReplyFacts, Usage};

/// A whole reply, or one chunk of a stream.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    service_tier: Option<String>,
    error: Option<IgnoredAny>,
    /// Groq puts a stream's usage here.
    x_groq: Option<Groq>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Answer>,
    message: Option<Answer>,
    finish_reason: Option<String>,
    /// Moonshot puts a stream's usage into the last choice.
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Answer {
    tool_calls: Option<Vec<Call>>,
    function_call: Option<Named>,
}

#[derive(Deserialize)]
struct Call {
    function: Option<Named>,
    custom: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Groq {
    usage: Option<WireUsage>,
}

/// `usage`, in the spellings of all the providers of this format.
#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek.
    prompt_cache_hit_tokens: Option<u64>,
    /// Moonshot, Together.
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// The buckets. `prompt_tokens` includes cached and cache-written ones; what `total_tokens` has beyond prompt and
    /// completion is output that `completion_tokens` leaves out (xAI's and Gemini's reasoning).
    fn buckets(&self) -> Option<Usage> {
        let (prompt, completion) = (self.prompt_tokens?, self.completion_tokens?);
        let details = self.prompt_tokens_details.as_ref();
        let cached = details
            .and_then(|d| d.cached_tokens)
            .or(self.prompt_cache_hit_tokens)
            .or(self.cached_tokens);
        let cache_read = cached.unwrap_or(0).min(prompt);
        let written = details
            .and_then(|d| d.cache_write_tokens)
            .unwrap_or(0)
            .min(prompt - cache_read);
        let beyond = self
            .total_tokens
            .unwrap_or(0)
            .saturating_sub(prompt.saturating_add(completion));
        let output = completion.saturating_add(beyond);
        let reasoning = self
            .completion_tokens_details
            .as_ref()
            .and_then(|d| d.reasoning_tokens)
            .unwrap_or(0);
        Some(Usage {
            input: prompt - cache_read - written,
            cache_read,
            cache_write_5m: written,
            cache_write_1h: 0,
            output,
            reasoning: reasoning.min(output),
        })
    }
}

/// The reader's state.
#[derive(Debug, Default)]
pub(super) struct ChatReply {
    facts: ReplyFacts,
    /// The usage last read came where no more output can follow.
    last_word: bool,
}

impl ChatReply {
    fn take(&mut self, chunk: Chunk<'_>) -> Verdict {
        let choices = chunk.choices.unwrap_or_default();
        let (usage_only, mut finished) = (choices.is_empty(), false);
        let mut usage = chunk.x_groq.and_then(|groq| groq.usage);
        for choice in choices {
            usage = choice.usage.or(usage);
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                self.facts.finish = Some(reason);
                finished = true;
            }
            for answer in [choice.delta, choice.message].into_iter().flatten() {
                self.tools(answer);
            }
        }
        // Totals, not increments: the last one stands. It may come with choices, without, or again and again.
        let usage = chunk
            .usage
            .filter(|usage| usage.prompt_tokens.is_some())
            .or(usage);
        if let Some(usage) = &usage {
            self.facts.usage = usage.buckets();
            self.last_word = usage_only || finished;
        }
        if let Some(model) = chunk.model.filter(|model| !model.is_empty()) {
            self.facts.model = Some(model.into_owned());
        }
        if chunk.service_tier.is_some() {
            self.facts.service_tier = chunk.service_tier;
        }
        self.facts.error |= chunk.error.is_some();
        if usage_only && usage.is_some() && chunk.error.is_none() {
            Verdict::UsageOnly
        } else {
            Verdict::Forward
        }
    }

    fn tools(&mut self, answer: Answer) {
        let calls = answer.tool_calls.unwrap_or_default();
        let names = calls
            .into_iter()
            .flat_map(|call| [call.function, call.custom])
            .chain([answer.function_call]);
        for name in names.flatten().filter_map(|named| named.name) {
            note_tool(&mut self.facts.tools_called, &name);
        }
    }
}

impl Format for ChatReply {
    fn event(&mut self, data: &[u8]) -> Verdict {
        if data.trim_ascii() == b"[DONE]" {
            self.facts.complete = true;
            return Verdict::Forward;
        }
        match serde_json::from_slice(data) {
            Ok(chunk) => self.take(chunk),
            Err(_) => {
                self.unread();
                Verdict::Forward
            }
        }
    }

    fn whole(&mut self, body: &[u8]) {
        match serde_json::from_slice::<Chunk<'_>>(body) {
            Ok(chunk) => {
                self.facts.complete = chunk.choices.is_some() || chunk.error.is_some();
                self.take(chunk);
            }
            Err(_) => self.unread(),
        }
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        // A running total of a stream that was cut is less than what was spent.
        if !facts.complete && !self.last_word {
            facts.usage = None;
        }
        facts
    }
}
