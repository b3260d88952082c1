//! A text that is to be spoken.
//!
//! It is billed by its characters, or by the tokens of what is spoken, which a reply in audio does not state. A character
//! takes about 1.4 tokens: OpenAI quotes both a price for a million tokens ($12) and what a minute comes to ($0.015), so
//! 21 tokens a second, in which 15 characters are spoken. [`SPOKEN`] is six times that, for what is spoken slowly; a short
//! text with long instructions may take [`SHORTEST`].

use std::borrow::Cow;

use serde::Deserialize;

use crate::llm::bound::Bound;
use crate::llm::media::is_json;
use crate::llm::{Malformed, RequestFacts, Unit, Units, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 5] = ["model", "input", "instructions", "stream_format", "stream"];

/// Tokens that one character takes when it is spoken.
const SPOKEN: u64 = 8;
/// Tokens that any text may take.
const SHORTEST: u64 = 2_048;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: Cow<'a, str>,
    #[serde(borrow)]
    instructions: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stream_format: Option<Cow<'a, str>>,
}

/// Reads a whole body.
pub(super) fn facts(
    content_type: Option<&str>,
    body: &[u8],
    model: Option<&str>,
) -> Result<RequestFacts, Malformed> {
    is_json(content_type)?;
    let (text, _) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let model = model
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .ok_or_else(|| Malformed("missing field `model`".to_owned()))?;
    let characters = body.input.chars().count() as u64;
    let read = body.input.len() + body.instructions.map_or(0, |text| text.len());
    let units = Units::of(Unit::Character, characters);
    Ok(RequestFacts {
        model,
        stream: body.stream_format.is_some_and(|format| format == "sse"),
        output_cap: Some(0),
        choices: 1,
        bound: Some(Bound {
            input: read as u64,
            output: characters.saturating_mul(SPOKEN).saturating_add(SHORTEST),
            units,
            sent: units,
        }),
        ..RequestFacts::default()
    })
}
