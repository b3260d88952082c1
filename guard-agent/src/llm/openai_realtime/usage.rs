//! What a response, or the writing down of what was heard, says that it used.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::prices::Dollars;
use crate::llm::usage::Media;
use crate::llm::{Unit, Usage};

/// Pico-units in a thousandth.
const MILLI: u64 = 1_000_000_000;

/// Tokens by kind, each included in the sum beside it.
#[derive(Debug, Deserialize, Default)]
struct Details {
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    cached_tokens_details: Option<Cached>,
}

#[derive(Debug, Deserialize, Default, Clone, Copy)]
struct Cached {
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
    text_tokens: Option<u64>,
}

/// Usage as it is told.
#[derive(Debug, Deserialize)]
pub(super) struct Wire {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    input_token_details: Option<Details>,
    output_token_details: Option<Details>,
    /// How long the sound was, where that is what is billed.
    seconds: Option<Box<RawValue>>,
}

/// Usage in buckets, and whether its parts contradicted their sums.
pub(super) struct Told {
    pub(super) usage: Usage,
    pub(super) inconsistent: bool,
}

impl Wire {
    /// What was read and made, all of it.
    pub(super) fn total(&self) -> Option<u64> {
        self.input_tokens?.checked_add(self.output_tokens?)
    }

    /// The buckets. Each kind of input includes what of it came from the cache.
    pub(super) fn buckets(&self) -> Option<Told> {
        if let Some(seconds) = &self.seconds {
            let millis = Dollars(seconds.get()).pico()?.0.div_ceil(MILLI);
            return Some(Told {
                usage: Usage::of_units(Unit::AudioMillis, millis),
                inconsistent: false,
            });
        }
        let (input, output) = (self.input_tokens?, self.output_tokens?);
        let none = Details::default();
        let details = self.input_token_details.as_ref().unwrap_or(&none);
        let made = self.output_token_details.as_ref().unwrap_or(&none);
        let mut parts = Parts::default();
        let audio = parts.of(details.audio_tokens, input);
        let image = parts.of(details.image_tokens, input - audio);
        let text = input - audio - image;
        let cached = parts.of(details.cached_tokens, input);
        let told = details.cached_tokens_details.unwrap_or_default();
        // Without details what is cached is taken for text, which costs the least in full.
        let kinds = details.cached_tokens_details.is_some();
        let cached_audio = parts.of(told.audio_tokens, cached.min(audio));
        let cached_image = parts.of(told.image_tokens, (cached - cached_audio).min(image));
        let rest = cached - cached_audio - cached_image;
        let cached_text = rest.min(text);
        parts.wrong |= kinds && told.text_tokens.is_some_and(|told| told != rest);
        // What of the cache fits no kind stays at the full price.
        let spoken = parts.of(made.audio_tokens, output);
        let beyond = self
            .total_tokens
            .unwrap_or(0)
            .saturating_sub(input.saturating_add(output));
        Some(Told {
            usage: Usage {
                input: text - cached_text,
                cache_read: cached_text,
                output: (output - spoken).saturating_add(beyond),
                media: Media {
                    input_audio: audio - cached_audio,
                    cache_read_audio: cached_audio,
                    input_image: image - cached_image,
                    cache_read_image: cached_image,
                    output_audio: spoken,
                    ..Media::default()
                },
                ..Usage::default()
            },
            inconsistent: parts.wrong,
        })
    }
}

/// Parts of sums.
#[derive(Default)]
struct Parts {
    wrong: bool,
}

impl Parts {
    /// A part, no larger than its whole.
    fn of(&mut self, part: Option<u64>, whole: u64) -> u64 {
        let part = part.unwrap_or(0);
        self.wrong |= part > whole;
        part.min(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::Units;

    fn told(json: &str) -> Told {
        serde_json::from_str::<Wire>(json).unwrap().buckets().unwrap()
    }

    #[test]
    fn each_kind_of_token_has_its_bucket_and_the_cached_ones_are_taken_out_of_theirs() {
        let found = told(
            r#"{"total_tokens":253,"input_tokens":132,"output_tokens":121,
                "input_token_details":{"text_tokens":89,"audio_tokens":33,"image_tokens":10,"cached_tokens":64,
                "cached_tokens_details":{"text_tokens":44,"audio_tokens":12,"image_tokens":8}},
                "output_token_details":{"text_tokens":30,"audio_tokens":91}}"#,
        );
        let usage = found.usage;
        assert!(!found.inconsistent);
        assert_eq!((usage.input, usage.cache_read, usage.output), (45, 44, 30));
        let media = usage.media;
        assert_eq!((media.input_audio, media.cache_read_audio), (21, 12));
        assert_eq!(
            (media.input_image, media.cache_read_image, media.output_audio),
            (2, 8, 91)
        );
        assert_eq!((usage.total_input(), usage.total_output()), (132, 121));
    }

    #[test]
    fn parts_that_are_larger_than_their_whole_are_cut_and_said_to_be_so() {
        let found = told(
            r#"{"input_tokens":10,"output_tokens":5,"input_token_details":{"audio_tokens":50,"cached_tokens":99,
                "cached_tokens_details":{"audio_tokens":70}},"output_token_details":{"audio_tokens":6}}"#,
        );
        assert!(found.inconsistent);
        assert_eq!((found.usage.total_input(), found.usage.total_output()), (10, 5));
    }

    #[test]
    fn sound_that_is_billed_by_its_length_is_counted_in_thousandths_rounded_up() {
        let found = told(r#"{"type":"duration","seconds":2.0004}"#);
        assert_eq!(found.usage.units, Units::of(Unit::AudioMillis, 2_001));
        assert!(
            serde_json::from_str::<Wire>(r#"{"seconds":-1}"#)
                .unwrap()
                .buckets()
                .is_none()
        );
    }
}
