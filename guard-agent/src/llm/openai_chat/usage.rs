//! What a chat completions reply turned out to hold.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use bytes::Bytes;

use crate::llm::few::Few;
use crate::llm::frames::sse_event;
use crate::llm::openai_chat::{OPENAI, calls};
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::seen::{Output, Weight};
use crate::llm::stated::Stated;
use crate::llm::usage::Media;
use crate::llm::{Dialect, ReplyFacts, Seen, Unit, Usage};
use crate::refusal::Refusal;

/// A whole reply, or one chunk of a stream.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    choices: Option<Few<Choice>>,
    usage: Option<WireUsage>,
    service_tier: Option<String>,
    error: Option<IgnoredAny>,
    /// Groq puts a stream's usage here.
    x_groq: Option<Groq>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u64>,
    delta: Option<Answer>,
    message: Option<Answer>,
    /// Of a completion.
    #[serde(default)]
    text: Weight,
    finish_reason: Option<String>,
    /// Moonshot puts a stream's usage into the last choice.
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    content: Weight,
    #[serde(default)]
    reasoning_content: Weight,
    #[serde(default)]
    reasoning: Weight,
    #[serde(default)]
    refusal: Weight,
    tool_calls: Option<Few<Call>>,
    function_call: Option<Called>,
}

#[derive(Deserialize)]
struct Call {
    index: Option<u64>,
    function: Option<Called>,
    custom: Option<Called>,
}

#[derive(Deserialize)]
struct Called {
    name: Option<String>,
    /// A function's, as JSON text.
    arguments: Option<String>,
    /// A custom tool's, as free text.
    input: Option<String>,
}

impl Answer {
    /// Bytes of output in it.
    fn weight(&self) -> u64 {
        let text = [self.content, self.reasoning_content, self.reasoning, self.refusal];
        let called = self.tool_calls.iter().flatten();
        let called = called.flat_map(|call| [&call.function, &call.custom]).flatten();
        let text = text.iter().map(|text| text.0);
        text.chain(called.chain(&self.function_call).map(Called::weight))
            .fold(0, u64::saturating_add)
    }
}

impl Called {
    /// A name that the request made the model call is not billed as output.
    fn weight(&self) -> u64 {
        let text = [&self.arguments, &self.input];
        text.into_iter().flatten().map(|text| text.len() as u64).sum()
    }

    fn tell(&self, at: At, calls: &mut Calls) {
        let arguments = self.arguments.as_deref().or(self.input.as_deref());
        calls.part(at, self.name.as_deref(), arguments);
    }
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
    /// Mistral, in both of its spellings.
    num_cached_tokens: Option<u64>,
    prompt_token_details: Option<PromptDetails>,
    /// Perplexity: searches of a deep research.
    num_search_queries: Option<u64>,
    /// OpenRouter, Perplexity: what it cost.
    cost: Option<Box<RawValue>>,
    /// xAI: the same.
    cost_in_usd_ticks: Option<Box<RawValue>>,
    is_byok: Option<Box<RawValue>>,
    cost_details: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    /// Alibaba's name for the same.
    cache_creation_input_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

impl WireUsage {
    /// The buckets, and whether the counts contradicted each other. `prompt_tokens` includes cached, cache-written and
    /// audio ones; what `total_tokens` has beyond prompt and completion is output that `completion_tokens` leaves out
    /// (xAI's and Gemini's reasoning).
    fn buckets(&self) -> Option<(Usage, bool)> {
        let prompt = self.prompt_tokens?;
        // Where no output is counted apart, it is what the total has beyond the prompt.
        let rest = || self.total_tokens?.checked_sub(prompt);
        let completion = self.completion_tokens.or_else(rest)?;
        let mut inconsistent = false;
        let mut part = |count: Option<u64>, whole: u64| {
            let count = count.unwrap_or(0);
            inconsistent |= count > whole;
            count.min(whole)
        };
        let details = self.prompt_tokens_details.as_ref();
        let details = details.or(self.prompt_token_details.as_ref());
        let cached = details
            .and_then(|d| d.cached_tokens)
            .or(self.prompt_cache_hit_tokens)
            .or(self.cached_tokens)
            .or(self.num_cached_tokens);
        let cache_read = part(cached, prompt);
        let written = details.and_then(|d| d.cache_write_tokens.max(d.cache_creation_input_tokens));
        let written = part(written, prompt - cache_read);
        let heard = part(
            details.and_then(|d| d.audio_tokens),
            prompt - cache_read - written,
        );
        let beyond = self
            .total_tokens
            .unwrap_or(0)
            .saturating_sub(prompt.saturating_add(completion));
        let produced = completion.saturating_add(beyond);
        let details = self.completion_tokens_details.as_ref();
        let reasoning = part(details.and_then(|d| d.reasoning_tokens), produced);
        let spoken = part(details.and_then(|d| d.audio_tokens), produced - reasoning);
        let usage = Usage {
            input: prompt - cache_read - written - heard,
            cache_read,
            cache_write_5m: written,
            output: produced - spoken,
            reasoning,
            media: Media {
                input_audio: heard,
                output_audio: spoken,
                ..Media::default()
            },
            ..Usage::default()
        };
        Some((usage, inconsistent))
    }
}

impl WireUsage {
    fn stated(&self) -> Stated<'_> {
        Stated {
            cost: self.cost.as_deref(),
            ticks: self.cost_in_usd_ticks.as_deref(),
            is_byok: self.is_byok.as_deref(),
            details: self.cost_details.as_deref(),
        }
    }
}

/// The bit of a choice; those beyond the last one share it.
fn bit(choice: u64) -> u128 {
    1 << choice.min(127)
}

/// Searches before an answer of models that always search: each is billed one, whatever it finds.
fn always_searches(model: &Option<String>) -> u64 {
    let searches = |name: &String| {
        name.contains("-search-preview") || name.contains("-search-api") || name.starts_with("sonar")
    };
    u64::from(model.as_ref().is_some_and(searches))
}

/// The reader's state.
#[derive(Debug, Default)]
pub(super) struct ChatReply {
    facts: ReplyFacts,
    /// The usage last read came where no more output can follow.
    last_word: bool,
    /// Choices that have begun and that have ended, a bit for each.
    begun: u128,
    ended: u128,
    /// Searches that the provider counts.
    searches: Option<u64>,
    output: Output,
}

impl ChatReply {
    fn take(&mut self, chunk: Chunk<'_>, calls: &mut Calls) -> Verdict {
        let choices = chunk.choices.unwrap_or_default();
        let (usage_only, mut finished) = (choices.is_empty(), false);
        let mut usage = chunk.x_groq.and_then(|groq| groq.usage);
        for (position, choice) in (0..).zip(choices) {
            let number = choice.index.unwrap_or(position);
            usage = choice.usage.or(usage);
            self.begun |= bit(number);
            self.output.piece(choice.text.0);
            for answer in [choice.delta, choice.message].into_iter().flatten() {
                self.output.piece(answer.weight());
                Self::tools(number, &answer, calls);
            }
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                self.facts.finish = Some(reason);
                finished = true;
                self.ended |= bit(number);
                calls.end_choice(number);
            }
        }
        // Totals, not increments: the last one stands. It may come with choices, without, or again and again.
        let usage = chunk
            .usage
            .filter(|usage| usage.prompt_tokens.is_some())
            .or(usage);
        if let Some(usage) = &usage {
            let buckets = usage.buckets();
            self.facts.inconsistent |= buckets.is_some_and(|(_, inconsistent)| inconsistent);
            self.facts.usage = buckets.map(|(usage, _)| usage);
            self.facts.reported_cost = usage.stated().amount();
            self.searches = usage.num_search_queries;
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

    fn tools(choice: u64, answer: &Answer, calls: &mut Calls) {
        for (position, call) in (0..).zip(answer.tool_calls.iter().flatten()) {
            let index = call.index.unwrap_or(position);
            for called in [&call.function, &call.custom].into_iter().flatten() {
                called.tell(At { choice, index }, calls);
            }
        }
        if let Some(called) = &answer.function_call {
            let index = calls::LEGACY;
            called.tell(At { choice, index }, calls);
        }
    }
}

impl Format for ChatReply {
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if data.trim_ascii() == b"[DONE]" {
            self.facts.complete = true;
            return Verdict::Forward;
        }
        match serde_json::from_slice(data) {
            Ok(chunk) => self.take(chunk, calls),
            Err(_) => {
                self.unread();
                Verdict::Unreadable
            }
        }
    }

    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        match serde_json::from_slice::<Chunk<'_>>(body) {
            Ok(chunk) => {
                self.facts.complete = chunk.choices.is_some() || chunk.error.is_some();
                self.take(chunk, calls);
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

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let mut out = sse_event(None, &self.instead(refusal, request_id));
        out.extend_from_slice(&sse_event(None, b"[DONE]"));
        Bytes::from(out)
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        OPENAI.refusal(refusal, request_id).body
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn seen(&self) -> Seen {
        Seen {
            input: 0,
            output: self.output.tokens(),
        }
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        // Some streams end with the usage, and say nothing after it.
        facts.complete |= self.last_word && self.begun != 0 && self.begun == self.ended;
        // A running total of a stream that was cut is less than what was spent.
        if !facts.complete && !self.last_word {
            facts.usage = None;
        }
        match &mut facts.usage {
            Some(usage) => {
                let searches = self.searches.unwrap_or_else(|| always_searches(&facts.model));
                usage.units.set(Unit::WebSearch, searches);
            }
            None => facts.reported_cost = None,
        }
        facts
    }
}
