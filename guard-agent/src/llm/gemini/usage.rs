//! What a Gemini reply turned out to hold: one object, the events of a stream, or one list of all of them.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::llm::reply::{Format, Verdict, note_tool};
use crate::llm::{ReplyFacts, Usage};

/// A reply, or one chunk of a stream.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<WireUsage>,
    model_version: Option<String>,
    embedding: Option<IgnoredAny>,
    embeddings: Option<IgnoredAny>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    grounding_metadata: Option<Grounding>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    function_call: Option<Call>,
    executable_code: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Call {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grounding {
    web_search_queries: Option<Vec<IgnoredAny>>,
}

/// Running totals: the last one stands.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
    service_tier: Option<String>,
    traffic_type: Option<String>,
}

impl WireUsage {
    /// The buckets. The prompt includes what was cached; thoughts and the prompts of tools stand beside the other counts.
    /// What the total has beyond them is output that no count names.
    fn buckets(&self) -> Option<Usage> {
        let prompt = self.prompt_token_count?;
        let cache_read = self.cached_content_token_count.unwrap_or(0).min(prompt);
        let tools = self.tool_use_prompt_token_count.unwrap_or(0);
        let thoughts = self.thoughts_token_count.unwrap_or(0);
        let told = self.candidates_token_count.unwrap_or(0).checked_add(thoughts)?;
        let input = prompt.checked_add(tools)?;
        let beyond = self
            .total_token_count
            .unwrap_or(0)
            .saturating_sub(input.checked_add(told)?);
        Some(Usage {
            input: input - cache_read,
            cache_read,
            output: told.checked_add(beyond)?,
            reasoning: thoughts,
            ..Usage::default()
        })
    }
}

/// The reader's state.
#[derive(Debug, Default)]
pub(super) struct GeminiReply {
    facts: ReplyFacts,
    /// The usage last read came with a finish reason.
    last_word: bool,
}

impl GeminiReply {
    fn take(&mut self, chunk: Chunk) {
        for candidate in chunk.candidates.unwrap_or_default() {
            if let Some(reason) = candidate.finish_reason {
                self.facts.finish = Some(reason);
                self.facts.complete = true;
            }
            for part in candidate
                .content
                .and_then(|content| content.parts)
                .unwrap_or_default()
            {
                if let Some(name) = part.function_call.and_then(|call| call.name) {
                    note_tool(&mut self.facts.tools_called, &name);
                }
                if part.executable_code.is_some() {
                    note_tool(&mut self.facts.tools_called, "codeExecution");
                }
            }
            if let Some(queries) = candidate
                .grounding_metadata
                .and_then(|found| found.web_search_queries)
            {
                // Each chunk has all the queries so far.
                let count = u64::try_from(queries.len()).unwrap_or(u64::MAX);
                self.facts.web_searches = self.facts.web_searches.max(count);
                if count > 0 {
                    note_tool(&mut self.facts.tools_called, "googleSearch");
                }
            }
        }
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            self.facts.finish = Some(reason);
            self.facts.complete = true;
        }
        if chunk.embedding.is_some() || chunk.embeddings.is_some() {
            self.facts.finish = Some("STOP".to_owned());
            self.facts.complete = true;
        }
        if let Some(usage) = chunk.usage_metadata {
            self.facts.usage = usage.buckets();
            self.last_word = self.facts.complete;
            let tier = usage.service_tier.or(usage.traffic_type);
            self.facts.service_tier = tier
                .map(|tier| tier.to_ascii_lowercase())
                .filter(|tier| tier != "on_demand")
                .or(self.facts.service_tier.take());
        }
        if let Some(model) = chunk.model_version.filter(|model| !model.is_empty()) {
            self.facts.model = Some(model);
        }
        self.facts.error |= chunk.error.is_some();
    }
}

impl Format for GeminiReply {
    fn event(&mut self, data: &[u8]) -> Verdict {
        match serde_json::from_slice(data) {
            Ok(chunk) => self.take(chunk),
            Err(_) => self.unread(),
        }
        Verdict::Forward
    }

    /// One object; or, for a stream that was not asked for as events, a list of chunks, which is also how Google sends
    /// an error then.
    fn whole(&mut self, body: &[u8]) {
        let list = body.trim_ascii_start().starts_with(b"[");
        let chunks = if list {
            serde_json::from_slice(body)
        } else {
            serde_json::from_slice(body).map(|chunk| vec![chunk])
        };
        match chunks {
            Ok(chunks) => chunks.into_iter().for_each(|chunk| self.take(chunk)),
            Err(_) => self.unread(),
        }
        // A plain reply is whole, whatever it says about how it ended.
        let answered = self.facts.usage.is_some() && !list;
        self.last_word |= answered;
        self.facts.complete |= self.facts.error || answered;
    }

    fn unread(&mut self) {
        self.facts.usage = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        let mut facts = std::mem::take(&mut self.facts);
        // A running total of a stream that was cut is less than what was spent.
        if !self.last_word {
            facts.usage = None;
        }
        facts
    }
}
