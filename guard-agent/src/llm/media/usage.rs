//! What such a reply says that it used.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::llm::frames::sse_event;
use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::prices::litellm::Dollars;
use crate::llm::reply::{Calls, Format, Verdict};
use crate::llm::request::{is_set, lenient, list_of};
use crate::llm::stated::Stated;
use crate::llm::usage::Media;
use crate::llm::{Dialect, ReplyFacts, Unit, Usage};
use crate::refusal::Refusal;

/// Pico-dollars, or what else is a millionth of a millionth, in a thousandth.
const MILLI: u64 = 1_000_000_000;

/// A whole reply, or one event.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    text: Option<IgnoredAny>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// Seconds, as a verbose transcription has them beside its text.
    #[serde(borrow)]
    duration: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    /// What a second model used, which writes an image as a text.
    svg_usage: Option<IgnoredAny>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireUsage<'a> {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    /// Seconds of sound that are billed.
    #[serde(borrow)]
    seconds: Option<&'a RawValue>,
    input_token_details: Option<Details>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    cost_in_usd_ticks: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Details {
    text_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    cached_tokens_details: Option<Cached>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Cached {
    image_tokens: Option<u64>,
}

/// What a reply brings forth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Sound,
    Images,
}

/// The thousandths of a number of seconds.
fn millis(raw: Option<&RawValue>) -> Option<u64> {
    let scaled = Dollars(raw?.get()).pico()?;
    Some(scaled.0.div_ceil(MILLI))
}

impl WireUsage<'_> {
    /// The buckets, and whether a part was larger than its whole.
    fn buckets(&self, kind: Kind) -> Option<(Usage, bool)> {
        if let Some(heard) = millis(self.seconds) {
            return Some((Usage::of_units(Unit::AudioMillis, heard), false));
        }
        let (input, output) = (self.input_tokens?, self.output_tokens?);
        if input == 0 && output == 0 {
            return None;
        }
        let parts = self.input_token_details.or(self.input_tokens_details);
        // What is not told apart is billed as the dearer of the two.
        let parts = parts.unwrap_or(Details {
            image_tokens: (kind == Kind::Images).then_some(input),
            ..Details::default()
        });
        let (heard, shown) = (parts.audio_tokens.unwrap_or(0), parts.image_tokens.unwrap_or(0));
        let apart = heard.saturating_add(shown);
        let text = input.saturating_sub(apart);
        let cached = parts.cached_tokens.unwrap_or(0);
        let cached_image = match parts.cached_tokens_details {
            Some(details) => details.image_tokens.unwrap_or(0),
            // Of which kind they are is not told: only where there is one.
            None if text == 0 => cached,
            None => 0,
        };
        let cached_text = match parts.cached_tokens_details {
            None if text > 0 && apart > 0 => 0,
            _ => cached.saturating_sub(cached_image),
        };
        let inconsistent = apart > input || cached_image > shown || cached_text > text;
        let (cached_image, cached_text) = (cached_image.min(shown), cached_text.min(text));
        let written = self
            .output_tokens_details
            .and_then(|parts| parts.text_tokens)
            .unwrap_or(0);
        let written = written.min(output);
        let of = |wanted| if kind == wanted { output - written } else { 0 };
        let usage = Usage {
            input: text - cached_text,
            cache_read: cached_text,
            output: written + of(Kind::Text),
            media: Media {
                input_audio: heard,
                input_image: shown - cached_image,
                cache_read_image: cached_image,
                output_audio: of(Kind::Sound),
                output_image: of(Kind::Images),
                ..Media::default()
            },
            ..Usage::default()
        };
        Some((usage, inconsistent))
    }
}

/// The reader's state.
pub(super) struct MediaReply {
    facts: ReplyFacts,
    least_millis: u64,
    /// Something could not be read: usage stays unknown.
    lost: bool,
}

impl MediaReply {
    pub(super) fn new(least_millis: u64) -> Self {
        Self {
            facts: ReplyFacts::default(),
            least_millis,
            lost: false,
        }
    }

    /// A whole JSON reply.
    pub(super) fn read_whole(&mut self, body: &[u8]) {
        let Ok(reply) = serde_json::from_slice::<Reply<'_>>(body) else {
            self.unread();
            return;
        };
        let kind = if reply.data.is_some() {
            Kind::Images
        } else {
            Kind::Text
        };
        let made = list_of(reply.data, b"").map_or(0, |(count, _)| count);
        let answered = reply.text.is_some() || reply.data.is_some();
        self.facts.complete = true;
        self.facts.error |= is_set(reply.error) || !answered;
        self.facts.finish = (answered && !self.facts.error).then(|| "stop".to_owned());
        let heard = millis(reply.duration).filter(|_| reply.usage.is_none());
        self.take(&reply, kind);
        if self.facts.usage.is_none() && !self.lost && reply.svg_usage.is_none() {
            self.facts.usage = match (made, heard) {
                (0, Some(millis)) => Some(self.heard(millis)),
                (0, None) => None,
                (made, _) => Some(Usage::of_units(Unit::Image, made)),
            };
        }
    }

    /// So much sound. Where the reply only tells how long it was, started seconds are billed whole.
    fn heard(&self, millis: u64) -> Usage {
        let whole = millis.div_ceil(1_000).saturating_mul(1_000);
        Usage::of_units(Unit::AudioMillis, whole.max(self.least_millis))
    }

    fn take(&mut self, reply: &Reply<'_>, kind: Kind) {
        if let Some(model) = &reply.model {
            self.facts.model = Some(model.clone().into_owned());
        }
        let Some(usage) = lenient::<WireUsage<'_>>(reply.usage) else {
            // Numbers that cannot be read are not known.
            if is_set(reply.usage) {
                self.unread();
            }
            return;
        };
        let stated = Stated {
            cost: usage.cost,
            ticks: usage.cost_in_usd_ticks,
            ..Stated::default()
        };
        if let Some(cost) = stated.amount() {
            let before = self.facts.reported_cost.unwrap_or_default();
            self.facts.reported_cost = before.checked_add(cost);
        }
        let Some((told, inconsistent)) = usage.buckets(kind) else {
            return;
        };
        self.facts.inconsistent |= inconsistent;
        // Each image of a stream tells its own.
        let sum = match self.facts.usage {
            Some(before) => before.checked_add(&told),
            None => Some(told),
        };
        match sum.filter(|_| !self.lost && reply.svg_usage.is_none()) {
            Some(sum) => self.facts.usage = Some(sum),
            None => self.unread(),
        }
    }
}

impl Format for MediaReply {
    fn event(&mut self, data: &[u8], _calls: &mut Calls) -> Verdict {
        if data.trim_ascii() == b"[DONE]" {
            return Verdict::Forward;
        }
        let Ok(event) = serde_json::from_slice::<Reply<'_>>(data) else {
            self.unread();
            return Verdict::Unreadable;
        };
        let name = event.r#type.as_deref().unwrap_or_default();
        let kind = match name.split('.').next() {
            Some("speech") => Kind::Sound,
            Some("image_generation" | "image_edit") => Kind::Images,
            _ => Kind::Text,
        };
        if name.ends_with(".done") || name.ends_with(".completed") {
            self.facts.complete = true;
            self.facts.finish = Some("stop".to_owned());
        }
        self.facts.error |= is_set(event.error) || name == "error";
        self.take(&event, kind);
        Verdict::Forward
    }

    fn whole(&mut self, body: &[u8], _calls: &mut Calls) -> bool {
        self.read_whole(body);
        !self.lost
    }

    fn last_words(&self, refusal: &Refusal, request_id: &str) -> Bytes {
        let body = COMPATIBLE.refusal(refusal, request_id).body;
        Bytes::from(sse_event(Some("error"), &body))
    }

    fn unread(&mut self) {
        self.lost = true;
        self.facts.usage = None;
        self.facts.reported_cost = None;
    }

    fn facts(&mut self) -> ReplyFacts {
        std::mem::take(&mut self.facts)
    }
}
