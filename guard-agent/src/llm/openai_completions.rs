//! OpenAI's older completions, and Mistral's fill-in-the-middle, which adds a suffix: a prompt and its continuation.
//!
//! In: requests, replies and refusals of the common vocabulary. Out: the same in this format. On failure: `Malformed`.
//! Replies and refusals are those of chat completions: `choices`, `usage`, `error` are the same.
//! Sources: OpenAI's SDK types (`completion_create_params`); docs.mistral.ai/api (`/v1/fim/completions`).

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::json_edit::Editor;
use crate::llm::openai_chat::COMPATIBLE;
use crate::llm::request::list_of;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, Place, RefusalReply, ReplyHead, ReplyReader,
    RequestFacts, json_strict,
};
use crate::refusal::Refusal;

/// This format.
#[derive(Debug, Clone, Copy)]
pub struct OpenaiCompletions;

/// The one value of it.
pub static COMPLETIONS: OpenaiCompletions = OpenaiCompletions;

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 9] = [
    "model",
    "prompt",
    "suffix",
    "max_tokens",
    "n",
    "best_of",
    "stream",
    "stream_options",
    "service_tier",
];

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    max_tokens: Option<u64>,
    n: Option<u64>,
    /// As many are made and billed; the best `n` are returned.
    best_of: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    service_tier: Option<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// How many prompts there are: a list of texts or of token lists is as many, a list of tokens is one.
fn prompts(raw: Option<&RawValue>) -> u64 {
    let Some((count, _)) = list_of(raw, b"") else {
        return 1;
    };
    let tokens = raw
        .and_then(|raw| raw.get().strip_prefix('['))
        .is_some_and(|inside| inside.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    if count == 0 || tokens { 1 } else { count }
}

fn facts(body: &[u8], model: Option<&str>, fim: bool) -> Result<RequestFacts, Malformed> {
    let (text, _) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let model = model
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .ok_or_else(|| Malformed("missing field `model`".to_owned()))?;
    let each = body.n.unwrap_or(1).max(body.best_of.unwrap_or(1)).max(1);
    let asked = body.stream_options.and_then(|options| options.include_usage);
    Ok(RequestFacts {
        model,
        stream: body.stream.unwrap_or(false),
        output_cap: body.max_tokens,
        choices: each.saturating_mul(prompts(body.prompt)),
        // Mistral's stream has usage in its last chunk unasked.
        include_usage: fim || asked.unwrap_or(false),
        service_tier: body.service_tier,
        ..RequestFacts::default()
    })
}

impl Dialect for OpenaiCompletions {
    fn kind(&self) -> DialectKind {
        DialectKind::OpenaiCompletions
    }

    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        let tail = path
            .strip_prefix("/v1")
            .or_else(|| path.strip_prefix("/beta"))
            .unwrap_or(path);
        match (method, tail) {
            (&Method::POST, "/completions" | "/fim/completions") => EndpointKind::Inference,
            _ => EndpointKind::Other,
        }
    }

    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        facts(body, None, false)
    }

    fn request_at(&self, place: &Place, body: &[u8]) -> Result<RequestFacts, Malformed> {
        facts(
            body,
            place.model.as_deref(),
            place.tail.ends_with("/fim/completions"),
        )
    }

    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        if edits.is_empty() {
            return Ok(body.clone());
        }
        let (text, _) = json_strict::survey(body, &[])?;
        let mut editor = Editor::new(text);
        let root = editor.root()?;
        let mut added = Vec::new();
        if let Some(cap) = edits.output_cap {
            match root.get("max_tokens") {
                Some(set) => editor.replace(set, cap.to_string()),
                None => added.push(("max_tokens", cap.to_string())),
            }
        }
        let streams = root.get("stream").is_some_and(|stream| stream.value == "true");
        if edits.include_usage && streams {
            const ASK: &str = r#"{"include_usage":true}"#;
            match root.get_set("stream_options") {
                Some(options) => {
                    let inner = editor.object(options.value)?;
                    match inner.get("include_usage") {
                        Some(asked) => editor.replace(asked, "true"),
                        None => {
                            editor.reshape(&inner, |_| false, &[("include_usage", "true".to_owned())]);
                        }
                    }
                }
                None => added.push(("stream_options", ASK.to_owned())),
            }
        }
        let null_options = |name: &str| name == "stream_options" && added.iter().any(|(new, _)| *new == name);
        editor.reshape(&root, |member| null_options(&member.name), &added);
        editor.apply().map(Bytes::from)
    }

    fn reply(&self, head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        COMPATIBLE.reply(head)
    }

    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        COMPATIBLE.refusal(refusal, request_id)
    }
}
