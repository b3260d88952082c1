//! What a request to Ollama asks for: chat, generate or embed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::openai_chat::conversation;
use crate::llm::request::{Part, declare, is_set, parts};
use crate::llm::{DeclaredTool, Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused (Ollama's own JSON reader takes
/// any spelling).
const KNOWN: [&str; 14] = [
    "model", "messages", "prompt", "suffix", "system", "template", "context", "stream", "options", "tools",
    "think", "images", "input", "raw",
];

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    stream: Option<bool>,
    options: Option<Options>,
    #[serde(default, deserialize_with = "parts::<Tool<'_>, _>")]
    tools: Vec<DeclaredTool>,
    /// Tokens of an earlier answer, a number each.
    #[serde(borrow)]
    context: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Options {
    /// Negative: as much as the model likes.
    num_predict: Option<i64>,
}

/// One element of `tools`.
#[derive(Deserialize)]
pub(super) struct Tool<'a> {
    #[serde(borrow)]
    function: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl Tool<'_> {
    /// The name by which the tool is known.
    pub(super) fn name(self) -> Result<String, Malformed> {
        self.function
            .map(|function| function.name.into_owned())
            .ok_or_else(|| Malformed("a tool has no name".to_owned()))
    }
}

impl<'de: 'a, 'a> Part<'de> for Tool<'a> {
    type Sum = Vec<DeclaredTool>;
    fn add(self, tools: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        let name = self.name()?;
        declare(tools, DeclaredTool::client(name))
    }
}

/// Reads a whole body. An embedding has no output.
pub(super) fn facts(embeds: bool, body: &[u8]) -> Result<RequestFacts, Malformed> {
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let asked = body.options.and_then(|options| options.num_predict);
    let cap = asked.and_then(|cap| u64::try_from(cap).ok());
    Ok(RequestFacts {
        pictures: survey.pictures,
        model: body.model.into_owned(),
        // Ollama streams unless it is told not to.
        stream: !embeds && body.stream.unwrap_or(true),
        output_cap: if embeds { Some(0) } else { cap },
        choices: 1,
        tools: body.tools,
        // Two bytes are enough for a token of this form.
        unseen_input: is_set(body.context),
        // Its messages are those of chat completions, but for the ids of calls.
        conversation: conversation::of(text),
        ..RequestFacts::default()
    })
}
