//! What a Gemini reply turned out to hold: one object, the events of a stream, or one list of all of them.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::llm::few::Few;
use crate::llm::frames::sse_event;
use crate::llm::gemini::grounding::{Grounding, once};
use crate::llm::gemini::words::{Blocking, Ending, Modality, Plain, Traffic, Word};
use crate::llm::gemini::{GEMINI, calls};
use crate::llm::reply::{At, Calls, Edit, Format, Verdict};
use crate::llm::seen::{self, Output, Weight};
use crate::llm::usage::Media;
use crate::llm::{Dialect, ReplyFacts, Seen, Unit, Usage};
use crate::refusal::Refusal;

/// A reply, or one chunk of a stream.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk {
    candidates: Option<Few<Candidate>>,
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
    block_reason: Option<Word<Blocking>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<Word<Ending>>,
    grounding_metadata: Option<Grounding>,
    index: Option<u64>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Few<Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    #[serde(default)]
    text: Weight,
    function_call: Option<Call>,
    executable_code: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    name: Option<String>,
    args: Option<Box<RawValue>>,
    /// Pieces of the arguments, each with its place in them, where the request asked for such.
    partial_args: Option<Box<RawValue>>,
    /// More pieces come, in parts without a name.
    will_continue: Option<bool>,
}

/// What stands before arguments that come in pieces, each with its path. They are not put together, and this makes them
/// no JSON: where a rule looks at arguments, the call is denied as one that cannot be read.
const PIECES: &str = "[pieces ";

impl Part {
    /// Bytes of output in it.
    fn weight(&self) -> u64 {
        let call = self.function_call.as_ref();
        let name = call.and_then(|call| call.name.as_ref());
        let name = name.map_or(0, |name| name.len() as u64);
        let arguments = seen::raw(call.and_then(|call| call.args.as_deref()));
        let pieces = seen::raw(call.and_then(|call| call.partial_args.as_deref()));
        let call = name.saturating_add(arguments).saturating_add(pieces);
        self.text.0.saturating_add(call)
    }
}

/// Running totals: the last one stands.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::llm) struct WireUsage {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    /// The name of the same on a socket.
    response_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
    prompt_tokens_details: Option<Few<Detail>>,
    cache_tokens_details: Option<Few<Detail>>,
    candidates_tokens_details: Option<Few<Detail>>,
    response_tokens_details: Option<Few<Detail>>,
    service_tier: Option<Word<Plain>>,
    traffic_type: Option<Word<Traffic>>,
}

/// Tokens of one modality.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    modality: Option<Word<Modality>>,
    token_count: Option<u64>,
}

/// Tokens of this modality.
fn of(details: Option<&Few<Detail>>, modality: &str) -> u64 {
    let named = |detail: &&Detail| detail.modality.as_ref().is_some_and(|word| word.text == modality);
    details
        .into_iter()
        .flatten()
        .filter(named)
        .filter_map(|detail| detail.token_count)
        .fold(0, u64::saturating_add)
}

impl WireUsage {
    /// The buckets. The prompt includes what was cached; thoughts and the prompts of tools stand beside the other counts.
    /// What the total has beyond them is output that no count names.
    pub(in crate::llm) fn buckets(&self) -> Option<Usage> {
        let prompt = self.prompt_token_count?;
        let cache_read = self.cached_content_token_count.unwrap_or(0).min(prompt);
        let tools = self.tool_use_prompt_token_count.unwrap_or(0);
        let thoughts = self.thoughts_token_count.unwrap_or(0);
        let made = self.candidates_token_count.or(self.response_token_count);
        let told = made.unwrap_or(0).checked_add(thoughts)?;
        let input = prompt.checked_add(tools)?;
        let beyond = self
            .total_token_count
            .unwrap_or(0)
            .saturating_sub(input.checked_add(told)?);
        // Images and films that go in cost what text does; sound does not, and neither does what comes out.
        let cached_sound = of(self.cache_tokens_details.as_ref(), "AUDIO").min(cache_read);
        let heard = of(self.prompt_tokens_details.as_ref(), "AUDIO");
        let heard = heard.saturating_sub(cached_sound).min(input - cache_read);
        let output = told.checked_add(beyond)?;
        let details = self.candidates_tokens_details.as_ref();
        let details = details.or(self.response_tokens_details.as_ref());
        let made = of(details, "IMAGE").min(output - thoughts.min(output));
        let spoken = of(details, "AUDIO").min(output - made);
        Some(Usage {
            input: input - cache_read - heard,
            cache_read: cache_read - cached_sound,
            output: output - made - spoken,
            reasoning: thoughts.min(output - made - spoken),
            media: Media {
                input_audio: heard,
                cache_read_audio: cached_sound,
                output_image: made,
                output_audio: spoken,
                ..Media::default()
            },
            ..Usage::default()
        })
    }
}

impl WireUsage {
    /// Images and films that were seen, which have a price of their own on a socket.
    pub(in crate::llm) fn seen_images(&self) -> u64 {
        let details = self.prompt_tokens_details.as_ref();
        of(details, "IMAGE").saturating_add(of(details, "VIDEO"))
    }
}

/// Most candidates whose calls are told apart; a reply has at most eight.
const CHOICES: usize = 256;

/// How many calls each candidate has had, and whether the last one goes on.
#[derive(Debug, Clone, Default)]
pub(in crate::llm) struct Places(Vec<(u64, u64, bool)>);

impl Places {
    /// The place of a candidate's next part of this name: a part without one belongs to the call before it, if that goes
    /// on. `goes_on`: whether more of this call comes.
    pub(in crate::llm) fn next(&mut self, choice: u64, name: Option<&str>, goes_on: bool) -> At {
        let full = self.0.len() >= CHOICES;
        let found = self.0.iter_mut().find(|(known, ..)| *known == choice);
        let index = match found {
            Some((_, count, open)) => {
                let more = *open && name.is_none_or(str::is_empty);
                *count += u64::from(!more);
                *open = goes_on;
                *count
            }
            // More candidates than any reply has share one place, beyond which nothing is judged separately.
            None if full => u64::MAX,
            None => {
                self.0.push((choice, 0, goes_on));
                0
            }
        };
        At { choice, index }
    }
}

/// The reader's state.
#[derive(Debug, Default)]
pub(super) struct GeminiReply {
    facts: ReplyFacts,
    /// The usage last read came with a finish reason.
    last_word: bool,
    searches: u64,
    output: Output,
    /// Calls so far, by candidate: each has a place of its own.
    placed: Places,
    /// The same for the chunks that were edited, which are the same ones in the same order.
    edited: Places,
}

impl GeminiReply {
    fn take(&mut self, chunk: Chunk, calls: &mut Calls) {
        for (position, candidate) in (0..).zip(chunk.candidates.unwrap_or_default()) {
            let choice = candidate.index.unwrap_or(position);
            if let Some(reason) = candidate.finish_reason {
                self.facts.finish = Some(reason.text);
                self.facts.complete = true;
            }
            for part in candidate
                .content
                .and_then(|content| content.parts)
                .unwrap_or_default()
            {
                self.output.piece(part.weight());
                if let Some(call) = part.function_call {
                    let goes_on = call.will_continue == Some(true);
                    let at = self.placed.next(choice, call.name.as_deref(), goes_on);
                    let args = call.args.as_deref().map(RawValue::get);
                    calls.part(at, call.name.as_deref(), args);
                    if let Some(pieces) = &call.partial_args {
                        calls.part(at, None, Some(PIECES));
                        calls.part(at, None, Some(pieces.get()));
                    }
                    if !goes_on {
                        calls.end(at);
                    }
                }
                if part.executable_code.is_some() {
                    calls.by_provider("codeExecution");
                }
            }
            if let Some(found) = candidate.grounding_metadata {
                // Each chunk has all the queries so far.
                let count = found.searches();
                self.searches = self.searches.max(count);
                if count > 0 {
                    calls.by_provider("googleSearch");
                }
            }
        }
        if let Some(reason) = chunk.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            self.facts.finish = Some(reason.text);
            self.facts.complete = true;
        }
        if chunk.embedding.is_some() || chunk.embeddings.is_some() {
            self.facts.finish = Some("STOP".to_owned());
            self.facts.complete = true;
        }
        if let Some(usage) = chunk.usage_metadata {
            // A chunk may say how it is paid for, and not what was used.
            if usage.prompt_token_count.is_some() {
                self.facts.usage = usage.buckets();
                self.last_word = self.facts.complete;
            }
            let traffic = usage.traffic_type.map(|word| word.text);
            let tier = usage.service_tier.map(|word| word.text).or(traffic);
            self.facts.service_tier = tier
                .map(|tier| tier.to_ascii_lowercase())
                .map(|tier| match tier.strip_prefix("on_demand_") {
                    Some(name) => name.to_owned(),
                    None => tier,
                })
                .filter(|tier| tier != "on_demand" && tier != "traffic_type_unspecified")
                .or(self.facts.service_tier.take());
        }
        if let Some(model) = chunk.model_version.filter(|model| !model.is_empty()) {
            self.facts.model = Some(model);
        }
        self.facts.error |= chunk.error.is_some();
    }
}

/// Takes a chunk, or a list of them one by one.
struct Told<'r> {
    reply: &'r mut GeminiReply,
    calls: &'r mut Calls,
}

impl<'de> DeserializeSeed<'de> for Told<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.reply.take(Chunk::deserialize(deserializer)?, self.calls);
        Ok(())
    }
}

impl<'de> Visitor<'de> for Told<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of chunks")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Told {
                reply: &mut *self.reply,
                calls: &mut *self.calls,
            })?
            .is_some()
        {}
        Ok(())
    }
}

impl Format for GeminiReply {
    fn event(&mut self, data: &[u8], calls: &mut Calls) -> Verdict {
        if calls.all_passed() {
            // What came before this chunk has passed as it was, without being counted again.
            self.edited = self.placed.clone();
        }
        match serde_json::from_slice(data) {
            Ok(chunk) => {
                self.take(chunk, calls);
                Verdict::Forward
            }
            Err(_) => {
                self.unread();
                Verdict::Unreadable
            }
        }
    }

    /// One object; or, for a stream that was not asked for as events, a list of chunks, which is also how Google sends
    /// an error then.
    fn whole(&mut self, body: &[u8], calls: &mut Calls) -> bool {
        let list = body.trim_ascii_start().starts_with(b"[");
        let mut reader = serde_json::Deserializer::from_slice(body);
        let told = Told { reply: self, calls };
        let read = if list {
            reader.deserialize_seq(told)
        } else {
            told.deserialize(&mut reader)
        };
        if read.and_then(|()| reader.end()).is_err() {
            self.unread();
            return false;
        }
        // A plain reply is whole, whatever it says about how it ended.
        let answered = self.facts.usage.is_some() && !list;
        self.last_word |= answered;
        self.facts.complete |= self.facts.error || answered;
        true
    }

    fn without(&mut self, event: Value, calls: &mut Calls) -> Edit {
        calls::without(event, calls, &mut self.edited)
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        Bytes::from(sse_event(None, &self.instead(refusal, request_id)))
    }

    fn instead(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        GEMINI.refusal(refusal, request_id).body
    }

    fn seen(&self) -> Seen {
        self.output.beside(self.facts.usage.as_ref())
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
        if let Some(usage) = &mut facts.usage {
            let most = if once(facts.model.as_deref()) { 1 } else { u64::MAX };
            usage.units.set(Unit::WebSearch, self.searches.min(most));
        }
        facts
    }
}
