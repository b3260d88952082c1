//! A recording that is to be written down, or translated: a form with the file in it.
//!
//! It is billed by its length, or by tokens. Providers do not say how many tokens a second of sound has. OpenAI quotes both
//! a price for a million tokens ($2.50) and what a minute comes to ($0.006), so 40 tokens; [`HEARD`] is a little more.
//! What is written down is not more than [`SAID`] tokens for a second of speech, and the last of them may be a whole
//! answer of the model's that runs on ([`RUNS_ON`], its most: developers.openai.com/api/docs/models/gpt-4o-transcribe).

use crate::llm::bound::Bound;
use crate::llm::media::audio;
use crate::llm::media::form::Form;
use crate::llm::{Malformed, RequestFacts, Unit, Units};

/// Fields that decide something.
const KNOWN: [&str; 6] = ["model", "file", "stream", "response_format", "url", "file_id"];

/// Tokens of a second of sound.
const HEARD: u64 = 50;
/// Tokens of what is said in a second.
const SAID: u64 = 25;
/// Tokens of an answer that runs on.
const RUNS_ON: u64 = 2_000;

/// Reads a form. `least_millis`: what the shortest recording is billed as.
pub(super) fn facts(
    content_type: Option<&str>,
    body: &[u8],
    model: Option<&str>,
    least_millis: u64,
) -> Result<RequestFacts, Malformed> {
    let missing = |name: &str| Malformed(format!("missing field `{name}`"));
    let form = Form::read(content_type, body, &KNOWN)?;
    let model = match model {
        Some(model) => model,
        None => form.text("model")?.ok_or_else(|| missing("model"))?,
    };
    for elsewhere in ["url", "file_url", "file_id"] {
        if form.all(elsewhere).next().is_some() {
            return Err(Malformed(
                "the recording is not in the request, so nothing bounds what it costs; send it as `file`"
                    .to_owned(),
            ));
        }
    }
    let file = form.all("file").find(|part| part.is_file);
    let file = file.ok_or_else(|| missing("file"))?;
    let millis = audio::longest_millis(file.content).ok_or_else(|| {
        Malformed(
            "how long the recording is cannot be told; send WAV, MP3, FLAC, Ogg, WebM, MP4 or AAC".to_owned(),
        )
    })?;
    // Started seconds are billed whole.
    let seconds = millis.div_ceil(1_000).max(1);
    let billed = seconds.saturating_mul(1_000).max(least_millis);
    Ok(RequestFacts {
        model: model.to_owned(),
        stream: form.flag("stream")?,
        output_cap: Some(0),
        choices: 1,
        bound: Some(Bound {
            input: seconds.saturating_mul(HEARD).saturating_add(form.text_bytes()),
            output: seconds.saturating_mul(SAID).saturating_add(RUNS_ON),
            units: Units::of(Unit::AudioMillis, billed),
            ..Bound::default()
        }),
        ..RequestFacts::default()
    })
}
