//! What a session or a response says of sound: its form, when a turn is over, and who writes it down.
//!
//! In: the object that says it. Out: settings. On failure: `Malformed`.

use super::request::{INSIDE, Settings, malformed, text_of};
use crate::llm::json_edit::{Container, Editor};
use crate::llm::{Malformed, json_strict};

/// The form that sound has, in the names of today and of the preview. Gives what is said of what is heard, opened.
pub(super) fn form<'a>(
    out: &mut Settings,
    editor: &Editor<'a>,
    root: &Container<'a>,
) -> Result<Option<Container<'a>>, Malformed> {
    for name in ["input_audio_format", "output_audio_format"] {
        let format = root.get_set(name);
        out.slight_sound |= format.is_some_and(|format| format.value != "\"pcm16\"");
    }
    let Some(audio) = root.get_set("audio") else {
        return Ok(None);
    };
    json_strict::survey(audio.value.as_bytes(), &["input", "output"])?;
    let audio = editor.object(audio.value)?;
    let mut open = |name: &str| {
        let Some(place) = audio.get_set(name) else {
            return Ok(None);
        };
        json_strict::survey(place.value.as_bytes(), &INSIDE)?;
        let place = editor.object(place.value)?;
        slight(out, editor, &place)?;
        Ok(Some(place))
    };
    open("output")?;
    open("input")
}

/// What a session says of how it hears, in the names of today (in `input`) and of the preview.
pub(super) fn hearing<'a>(
    out: &mut Settings,
    editor: &Editor<'a>,
    root: &Container<'a>,
    input: Option<&Container<'a>>,
) -> Result<(), Malformed> {
    turns(out, editor, root)?;
    transcription(out, editor, root, "input_audio_transcription")?;
    let Some(input) = input else {
        return Ok(());
    };
    turns(out, editor, input)?;
    transcription(out, editor, input, "transcription")
}

/// Whether sound has another form than the usual one there.
fn slight<'a>(out: &mut Settings, editor: &Editor<'a>, place: &Container<'a>) -> Result<(), Malformed> {
    let Some(format) = place.get_set("format") else {
        return Ok(());
    };
    let format = editor.object(format.value)?;
    let kind = format
        .get("type")
        .is_some_and(|kind| kind.value == "\"audio/pcm\"");
    let rate = format.get_set("rate").is_none_or(|rate| rate.value == "24000");
    out.slight_sound |= !(kind && rate);
    Ok(())
}

/// Whether the provider is to find out when somebody has stopped speaking, and to answer then.
fn turns<'a>(out: &mut Settings, editor: &Editor<'a>, place: &Container<'a>) -> Result<(), Malformed> {
    let Some(detection) = place.get("turn_detection") else {
        return Ok(());
    };
    if detection.value == "null" {
        out.begins = Some(false);
        return Ok(());
    }
    json_strict::survey(detection.value.as_bytes(), &INSIDE)?;
    let detection = editor.object(detection.value)?;
    if detection.get_set("idle_timeout_ms").is_some() {
        return Err(malformed(
            "Guard does not forward `idle_timeout_ms`: the provider would begin responses that no input leads to. Send \
             input, or ask for a response, instead.",
        ));
    }
    out.begins = Some(
        detection
            .get("create_response")
            .is_none_or(|answer| answer.value != "false"),
    );
    Ok(())
}

fn transcription<'a>(
    out: &mut Settings,
    editor: &Editor<'a>,
    place: &Container<'a>,
    name: &str,
) -> Result<(), Malformed> {
    let Some(asked) = place.get(name) else {
        return Ok(());
    };
    if asked.value == "null" {
        out.transcription = Some(None);
        return Ok(());
    }
    json_strict::survey(asked.value.as_bytes(), &["model"])?;
    let model = text_of(&editor.object(asked.value)?, "model")?;
    let model =
        model.ok_or_else(|| malformed("name the model of the transcription, so that it can be priced"))?;
    out.transcription = Some(Some(model));
    Ok(())
}
