//! What a client's message on a Live socket leads to.

use crate::llm::few::Few;
use crate::llm::gemini::request::{contents_unseen, number};
use crate::llm::gemini::tools::{camel, declared, either};
use crate::llm::gemini::words::{Asked, Word};
use crate::llm::json_edit::{Container, Editor};
use crate::llm::{DeclaredTool, Malformed, json_strict};

/// The messages, each under its name.
const MESSAGES: [&str; 8] = [
    "setup",
    "clientContent",
    "client_content",
    "realtimeInput",
    "realtime_input",
    "toolResponse",
    "tool_response",
    "contextUpdate",
];
/// What a setup may say. What Guard does not know could cost anything.
const SETUP: [&str; 15] = [
    "model",
    "generationConfig",
    "systemInstruction",
    "tools",
    "toolConfig",
    "realtimeInputConfig",
    "sessionResumption",
    "contextWindowCompression",
    "inputAudioTranscription",
    "outputAudioTranscription",
    "proactivity",
    "explicitVadSignal",
    "historyConfig",
    "safetySettings",
    "labels",
];
/// Longest name of a model.
const NAME: usize = 512;
/// Plain sound, in characters, that stands for one token at most: 500 bytes (8 kHz, 16 bits, thirty-two tokens a second).
const SOUND: u64 = 666;

/// What a message is.
#[derive(Debug)]
pub(super) enum Said {
    /// It says what the turns are like.
    Setup(Settings),
    /// Something for the conversation.
    Put(Piece),
    /// The results of tool calls; whether something in them is not in sight.
    Answer { unseen: bool },
}

/// What a setup says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) model: String,
    pub(super) tools: Vec<DeclaredTool>,
    pub(super) cap: Option<u64>,
    /// It goes on with a conversation, or begins with something, that is not in sight.
    pub(super) unseen: bool,
}

/// Something for the conversation.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Tokens, at most.
    pub(super) tokens: u64,
    /// Something whose size is not in sight.
    pub(super) unseen: bool,
    /// The model answers it.
    pub(super) due: bool,
}

fn malformed(why: &str) -> Malformed {
    Malformed(why.to_owned())
}

fn read<'a, T: serde::Deserialize<'a>>(value: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(value).map_err(|error| json_strict::malformed(&error))
}

/// Reads a message. Also: tokens that pictures in it may take beyond their bytes.
pub(super) fn said(message: &[u8]) -> Result<(Said, u64), Malformed> {
    let (text, survey) = json_strict::survey(message, &MESSAGES)?;
    message_of(text).map(|said| (said, survey.pictures.beyond))
}

fn message_of(text: &str) -> Result<Said, Malformed> {
    let editor = Editor::new(text);
    let root = editor.root()?;
    let mut members = root.items.iter().filter(|member| member.value != "null");
    let (Some(member), None) = (members.next(), members.next()) else {
        return Err(malformed(
            "a message of Live is one of setup, clientContent, realtimeInput and toolResponse",
        ));
    };
    let inner = editor.object(member.value)?;
    match camel(&member.name).as_str() {
        "setup" if member.name == "setup" => setup(&editor, &inner).map(Said::Setup),
        "clientContent" => content(&inner, text.len() as u64).map(Said::Put),
        "realtimeInput" => input(&editor, &inner).map(Said::Put),
        "toolResponse" => Ok(Said::Answer {
            unseen: referred(member.value),
        }),
        _ => Err(malformed(
            "Guard does not know this message of Live, so it does not forward it. Use setup, clientContent, realtimeInput \
             and toolResponse.",
        )),
    }
}

fn setup(editor: &Editor<'_>, setup: &Container<'_>) -> Result<Settings, Malformed> {
    let unknown = |name: &str| !SETUP.contains(&camel(name).as_str());
    if let Some(member) = setup.items.iter().find(|member| unknown(&member.name)) {
        return Err(Malformed(format!(
            "Guard does not know what {} in a setup of Live costs, so it does not forward it. Leave it out.",
            crate::policy::quoted(&member.name)
        )));
    }
    let model = either(setup, "model")?.ok_or_else(|| malformed("the setup names no model"))?;
    let model: String = read(model.value)?;
    let name = model.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || model.len() > NAME {
        return Err(malformed("the setup names no model that can be read"));
    }
    let mut out = Settings {
        model: name.to_owned(),
        tools: declared(editor, setup)?,
        ..Settings::default()
    };
    if let Some(resumption) = either(setup, "sessionResumption")? {
        out.unseen = either(&editor.object(resumption.value)?, "handle")?.is_some();
    }
    if let Some(instruction) = either(setup, "systemInstruction")? {
        out.unseen |= contents_unseen(instruction.value, 0)?;
    }
    let Some(config) = either(setup, "generationConfig")? else {
        return Ok(out);
    };
    let config = editor.object(config.value)?;
    if let Some(cap) = either(&config, "maxOutputTokens")? {
        out.cap = number(cap.value)?;
    }
    if let Some(modalities) = either(&config, "responseModalities")? {
        let asked: Few<Word<Asked>> = read(modalities.value)?;
        let plain = |word: &Word<Asked>| {
            ["TEXT", "AUDIO"]
                .iter()
                .any(|known| word.text.eq_ignore_ascii_case(known))
        };
        if !asked.iter().all(plain) {
            return Err(malformed(
                "Guard meters turns of text and of sound on this socket",
            ));
        }
    }
    Ok(out)
}

/// Whether something is named by its address, which results may hold at any depth: in either spelling of the name, and
/// whatever else has it.
fn referred(value: &str) -> bool {
    ["fileUri", "file_uri", "\\u"]
        .iter()
        .any(|name| value.contains(name))
}

/// Turns that are written down. A turn that is not complete waits for the rest of it.
fn content(content: &Container<'_>, bytes: u64) -> Result<Piece, Malformed> {
    let unseen = match either(content, "turns")? {
        Some(turns) => contents_unseen(turns.value, 0)?,
        None => false,
    };
    let complete = either(content, "turnComplete")?;
    Ok(Piece {
        tokens: bytes,
        unseen,
        due: complete.is_some_and(|complete| complete.value == "true"),
    })
}

/// What is heard and seen as it comes.
fn input(editor: &Editor<'_>, input: &Container<'_>) -> Result<Piece, Malformed> {
    let mut piece = Piece::default();
    for member in input.items.iter().filter(|member| member.value != "null") {
        match camel(&member.name).as_str() {
            "audio" | "video" => blob(&mut piece, member.value)?,
            "mediaChunks" => {
                for chunk in &editor.array(member.value)?.items {
                    blob(&mut piece, chunk.value)?;
                }
            }
            "text" => {
                piece.tokens = piece.tokens.saturating_add(member.value.len() as u64);
                piece.due = true;
            }
            "activityEnd" => piece.due = true,
            "activityStart" | "audioStreamEnd" => {}
            _ => {
                return Err(malformed(
                    "Guard does not know this kind of realtime input, so it does not forward it",
                ));
            }
        }
    }
    Ok(piece)
}

fn blob(piece: &mut Piece, value: &str) -> Result<(), Malformed> {
    let blob = Editor::new(value).object(value)?;
    let kind = either(&blob, "mimeType")?
        .map(|kind| read::<String>(kind.value))
        .transpose()?;
    let length = either(&blob, "data")?.map_or(0, |data| data.value.len() as u64);
    let plain = kind.is_some_and(|kind| is_plain_sound(&kind.to_ascii_lowercase()));
    let tokens = if plain { length.div_ceil(SOUND) } else { length };
    piece.tokens = piece.tokens.saturating_add(tokens);
    Ok(())
}

/// PCM at the rates that are usual; sound at another rate counts by its bytes.
fn is_plain_sound(kind: &str) -> bool {
    let Some(parameters) = kind.strip_prefix("audio/pcm") else {
        return false;
    };
    match parameters.trim().strip_prefix(';').map(str::trim) {
        None => parameters.trim().is_empty(),
        Some(rate) => rate
            .strip_prefix("rate=")
            .and_then(|rate| rate.parse::<u32>().ok())
            .is_some_and(|rate| rate >= 8_000),
    }
}
