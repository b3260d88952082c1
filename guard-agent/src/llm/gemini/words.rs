//! The words of an enumeration, which Google's own clients ask for as numbers (`$alt=json;enum-encoding=int`).
//!
//! In: a word or its number. Out: the word; a number without one that Guard knows stands for itself. On failure: what is
//! neither is an error, as any value of a wrong type is.
//! Numbers: googleapis, `google/cloud/aiplatform/v1/content.proto` and `google/ai/generativelanguage/v1beta`, which agree
//! in all that stand here.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// An enumeration: its words in the order of their numbers.
pub(in crate::llm) trait Words {
    /// The words, from number 0 on.
    const WORDS: &'static [&'static str];
}

/// Why a candidate ended.
pub(in crate::llm) enum Ending {}
impl Words for Ending {
    const WORDS: &'static [&'static str] = &[
        "FINISH_REASON_UNSPECIFIED",
        "STOP",
        "MAX_TOKENS",
        "SAFETY",
        "RECITATION",
        "OTHER",
    ];
}

/// Why a prompt had no answer.
pub(in crate::llm) enum Blocking {}
impl Words for Blocking {
    const WORDS: &'static [&'static str] = &[
        "BLOCK_REASON_UNSPECIFIED",
        "SAFETY",
        "OTHER",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
    ];
}

/// What tokens stand for.
pub(in crate::llm) enum Modality {}
impl Words for Modality {
    const WORDS: &'static [&'static str] = &[
        "MODALITY_UNSPECIFIED",
        "TEXT",
        "IMAGE",
        "VIDEO",
        "AUDIO",
        "DOCUMENT",
    ];
}

/// How a call is paid for.
pub(in crate::llm) enum Traffic {}
impl Words for Traffic {
    const WORDS: &'static [&'static str] =
        &["TRAFFIC_TYPE_UNSPECIFIED", "ON_DEMAND", "PROVISIONED_THROUGHPUT"];
}

/// What a reply is to be made of.
pub(in crate::llm) enum Asked {}
impl Words for Asked {
    const WORDS: &'static [&'static str] = &["MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO"];
}

/// A word whose numbers are not known.
pub(in crate::llm) enum Plain {}
impl Words for Plain {
    const WORDS: &'static [&'static str] = &[];
}

/// A word of an enumeration.
pub(in crate::llm) struct Word<W> {
    /// The word.
    pub(in crate::llm) text: String,
    of: PhantomData<W>,
}

impl<'de, W: Words> Deserialize<'de> for Word<W> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read<W>(PhantomData<W>);
        impl<W: Words> Visitor<'_> for Read<W> {
            type Value = String;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or its number")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<String, E> {
                Ok(word.to_owned())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
                let known = usize::try_from(number).ok().and_then(|at| W::WORDS.get(at));
                Ok(known.map_or_else(|| number.to_string(), |word| (*word).to_owned()))
            }
        }
        let text = from.deserialize_any(Read::<W>(PhantomData))?;
        Ok(Self {
            text,
            of: PhantomData,
        })
    }
}
