//! What a stream has taken so far, while it passes: a lower bound, by which a reservation is known to be outgrown.
//!
//! In: the pieces of output, as a format finds them. Out: tokens, at least so many. On failure: none; what is not
//! streamed (hidden reasoning) is not seen.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::llm::Usage;

/// No text has more bytes than this for each of its tokens over the length of a reply; English has four to five.
const BYTES_PER_TOKEN: u64 = 16;

/// What a reply has taken so far, at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Tokens of input, once the provider has said so.
    pub input: u64,
    /// Tokens of output, over all choices.
    pub output: u64,
}

/// Counts pieces of output.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Output {
    pieces: u64,
    bytes: u64,
}

impl Output {
    /// One more piece: a token at least, if there is anything in it.
    pub(crate) fn piece(&mut self, bytes: u64) {
        if bytes > 0 {
            self.pieces = self.pieces.saturating_add(1);
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    /// Tokens, at least.
    pub(crate) fn tokens(&self) -> u64 {
        self.pieces.max(self.bytes / BYTES_PER_TOKEN)
    }

    /// The same, beside what the provider has said so far.
    pub(crate) fn beside(&self, told: Option<&Usage>) -> Seen {
        Seen {
            input: told.map_or(0, Usage::total_input),
            output: told.map_or(0, Usage::total_output).max(self.tokens()),
        }
    }
}

/// The bytes of a JSON value as it stands there.
pub(crate) fn raw(value: Option<&RawValue>) -> u64 {
    value.map_or(0, |value| value.get().len() as u64)
}

/// The bytes of all text in a JSON value, without keeping it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weight(pub(crate) u64);

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Weigh;
        impl<'de> Visitor<'de> for Weigh {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_str<E>(self, text: &str) -> Result<Weight, E> {
                Ok(Weight(text.len() as u64))
            }

            fn visit_unit<E>(self) -> Result<Weight, E> {
                Ok(Weight(0))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Weight, E> {
                Ok(Weight(0))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Weight, E> {
                Ok(Weight(0))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Weight, E> {
                Ok(Weight(0))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Weight, E> {
                Ok(Weight(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Weight, A::Error> {
                let mut sum = 0_u64;
                while let Some(Weight(part)) = seq.next_element()? {
                    sum = sum.saturating_add(part);
                }
                Ok(Weight(sum))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weight, A::Error> {
                let mut sum = 0_u64;
                while let Some((IgnoredAny, Weight(part))) = map.next_entry()? {
                    sum = sum.saturating_add(part);
                }
                Ok(Weight(sum))
            }
        }
        from.deserialize_any(Weigh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_weighed_wherever_it_stands() {
        for (json, bytes) in [
            ("null", 0),
            ("\"hällo\"", 6),
            ("[{\"type\":\"text\",\"text\":\"hello\"}, 7, true, 1.5, -1]", 9),
        ] {
            assert_eq!(serde_json::from_str::<Weight>(json).unwrap().0, bytes, "{json}");
        }
    }

    #[test]
    fn a_piece_is_a_token_and_a_long_one_several() {
        let mut output = Output::default();
        output.piece(0);
        assert_eq!(output.tokens(), 0);
        output.piece(1);
        output.piece(3);
        assert_eq!(output.tokens(), 2);
        output.piece(1600);
        assert_eq!(output.tokens(), 100);
    }
}
