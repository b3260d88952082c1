//! What a client's message on a realtime socket asks for.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::item::{Item, item_of};
use super::sound;
use crate::llm::json_edit::{Container, Editor};
use crate::llm::openai_responses::socket::stops;
use crate::llm::openai_responses::tools::Tool;
use crate::llm::request::{declare, is_set, parts_of};
use crate::llm::{DeclaredTool, Malformed, json_strict};

/// Top-level names that decide what a message is.
const KNOWN: [&str; 7] = [
    "type",
    "event_id",
    "session",
    "response",
    "item",
    "audio",
    "response_id",
];
/// Names in a session or a response that decide something.
pub(super) const INSIDE: [&str; 19] = [
    "type",
    "model",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "max_response_output_tokens",
    "audio",
    "turn_detection",
    "input_audio_transcription",
    "input_audio_format",
    "output_audio_format",
    "prompt",
    "instructions",
    "conversation",
    "input",
    "transcription",
    "idle_timeout_ms",
    "create_response",
    "format",
];
/// Longest name that a client gives to a message, and longest name of a model.
pub(super) const NAME: usize = 512;
/// The tool that a stored prompt stands for: it may bring in any.
const STORED_PROMPT: &str = "stored_prompt";

/// Whose names a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Those of today.
    Current,
    /// Those of the preview.
    Preview,
}

impl Shape {
    /// The name of the cap on a response's output.
    pub(super) fn cap(self) -> &'static str {
        match self {
            Self::Current => "max_output_tokens",
            Self::Preview => "max_response_output_tokens",
        }
    }
}

/// The message, as far as it says what it is.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

/// What a message is.
pub(super) enum Said {
    /// It asks for a response.
    Create(Settings),
    /// It says what later responses are like.
    Update(Settings),
    /// Sound, of so many characters.
    Audio(u64),
    /// What was heard so far is a turn.
    Commit,
    /// Something for the conversation.
    Item(Item),
    /// It ends a response.
    Stop,
    /// It leads to no response.
    Aside,
}

/// What is said of responses: of one, or of all that follow.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) model: Option<String>,
    /// The tools, if it says which there are.
    pub(super) tools: Option<Vec<DeclaredTool>>,
    /// The cap, if it says one; none inside is no cap.
    pub(super) cap: Option<Option<u64>>,
    /// Whether the provider begins responses by itself, if it says so.
    pub(super) begins: Option<bool>,
    /// The model that writes down what is heard, if it says one; none inside is no such model.
    pub(super) transcription: Option<Option<String>>,
    /// What is heard or spoken may have another form than the usual one, with fewer bytes a second.
    pub(super) slight_sound: bool,
    /// A stored prompt is named.
    pub(super) prompt: bool,
    /// The response is no part of the conversation.
    pub(super) apart: bool,
    /// The response reads what it is given in the place of the conversation.
    pub(super) selects: bool,
    /// The response has instructions or tools of its own, in the place of the session's.
    pub(super) overrides: bool,
    /// What the response is to read.
    pub(super) input: Item,
}

pub(super) fn malformed(why: &str) -> Malformed {
    Malformed(why.to_owned())
}

/// A message, read.
pub(super) struct Read {
    /// By which the client knows it.
    pub(super) named: Option<String>,
    /// Tokens that pictures in it may take beyond their bytes.
    pub(super) beyond: u64,
    /// What it is, or why it cannot go on.
    pub(super) said: Result<Said, Malformed>,
}

/// Reads a message.
pub(super) fn read(message: &[u8]) -> Read {
    let mut read = Read {
        named: None,
        beyond: 0,
        said: Err(malformed("`event_id` is too long")),
    };
    let (text, survey) = match json_strict::survey(message, &KNOWN) {
        Ok(surveyed) => surveyed,
        Err(why) => {
            return Read {
                said: Err(why),
                ..read
            };
        }
    };
    read.beyond = survey.pictures.beyond;
    let frame: Frame<'_> = match serde_json::from_str(text) {
        Ok(frame) => frame,
        Err(error) => {
            let said = Err(json_strict::malformed(&error));
            return Read { said, ..read };
        }
    };
    read.named = frame
        .event_id
        .as_deref()
        .filter(|name| name.len() <= NAME)
        .map(str::to_owned);
    if frame.event_id.is_none() || read.named.is_some() {
        read.said = said(text, &frame);
    }
    read
}

fn said(text: &str, frame: &Frame<'_>) -> Result<Said, Malformed> {
    match &*frame.r#type {
        "response.create" => {
            let settings = match frame.response.filter(|raw| is_set(Some(raw))) {
                Some(raw) => settings(raw.get(), false)?,
                None => Settings::default(),
            };
            Ok(Said::Create(settings))
        }
        "session.update" => {
            let session = frame.session.filter(|raw| is_set(Some(raw)));
            let session = session.ok_or_else(|| malformed("a `session.update` has a `session`"))?;
            settings(session.get(), true).map(Said::Update)
        }
        "input_audio_buffer.append" => {
            let audio = frame.audio.filter(|raw| raw.get().starts_with('"'));
            let audio = audio.ok_or_else(|| malformed("an `input_audio_buffer.append` has `audio`"))?;
            Ok(Said::Audio((audio.get().len() as u64).saturating_sub(2)))
        }
        "input_audio_buffer.commit" if stops(text) => Ok(Said::Commit),
        "conversation.item.create" => {
            let item = frame.item.filter(|raw| is_set(Some(raw)));
            let raw = item.ok_or_else(|| malformed("a `conversation.item.create` has an `item`"))?;
            let mut found = Item::default();
            item_of(raw.get(), &mut found)?;
            Ok(Said::Item(found))
        }
        "response.cancel" if stops(text) => Ok(Said::Stop),
        "input_audio_buffer.clear"
        | "output_audio_buffer.clear"
        | "conversation.item.delete"
        | "conversation.item.truncate"
            if stops(text) =>
        {
            Ok(Said::Aside)
        }
        "conversation.item.retrieve" => Err(malformed(
            "Guard does not forward `conversation.item.retrieve`: it would bring back tool calls that were taken out.",
        )),
        _ => Err(malformed(
            "Guard does not know this type of message on a realtime socket, so it does not forward it. Use session.update, \
             conversation.item.create, input_audio_buffer.append and response.create.",
        )),
    }
}

/// Reads a session, or what a response says of itself.
fn settings(value: &str, session: bool) -> Result<Settings, Malformed> {
    json_strict::survey(value.as_bytes(), &INSIDE)?;
    let editor = Editor::new(value);
    let root = editor.root()?;
    if session
        && root
            .get("type")
            .is_some_and(|kind| !matches!(kind.value, "\"realtime\"" | "null"))
    {
        return Err(malformed(
            "Guard meters sessions of the type `realtime` on this socket. Have sound written down with the endpoint for \
             transcriptions.",
        ));
    }
    let mut out = Settings {
        model: text_of(&root, "model")?,
        cap: cap_of(&root)?,
        prompt: root.get_set("prompt").is_some(),
        ..Settings::default()
    };
    if let Some(tools) = root.get("tools") {
        let mut declared = match tools.value {
            "null" => Vec::new(),
            list => parts_of::<Tool<'_>>(list, 0)?,
        };
        if out.prompt {
            declare(&mut declared, DeclaredTool::provider(STORED_PROMPT))?;
        }
        out.tools = Some(declared);
    } else if out.prompt {
        out.tools = Some(vec![DeclaredTool::provider(STORED_PROMPT)]);
    }
    let heard = sound::form(&mut out, &editor, &root)?;
    if !session {
        out.apart = root
            .get("conversation")
            .is_some_and(|named| named.value == "\"none\"");
        let set = |name: &str| root.get_set(name).is_some();
        out.overrides = set("instructions") || set("prompt") || out.tools.is_some();
        if let Some(input) = root.get_set("input") {
            out.selects = true;
            for item in &editor.array(input.value)?.items {
                item_of(item.value, &mut out.input)?;
            }
        }
        return Ok(out);
    }
    sound::hearing(&mut out, &editor, &root, heard.as_ref())?;
    Ok(out)
}

/// A text of a bounded length.
pub(super) fn text_of(place: &Container<'_>, name: &str) -> Result<Option<String>, Malformed> {
    let Some(set) = place.get_set(name) else {
        return Ok(None);
    };
    let text: String = serde_json::from_str(set.value).map_err(|error| json_strict::malformed(&error))?;
    if text.len() > NAME {
        return Err(Malformed(format!("`{name}` is too long")));
    }
    Ok(Some(text))
}

/// The cap under either name; the larger one of two.
fn cap_of(place: &Container<'_>) -> Result<Option<Option<u64>>, Malformed> {
    let mut found = None;
    for name in [Shape::Current.cap(), Shape::Preview.cap()] {
        let Some(set) = place.get(name) else { continue };
        let cap = match set.value {
            "null" | "\"inf\"" => None,
            number => Some(
                number
                    .parse::<u64>()
                    .map_err(|_not_a_number| Malformed(format!("`{name}` is a number or \"inf\"")))?,
            ),
        };
        found = match found {
            None => Some(cap),
            Some(None) => Some(None),
            Some(Some(other)) => Some(cap.map(|cap| cap.max(other))),
        };
    }
    Ok(found)
}
