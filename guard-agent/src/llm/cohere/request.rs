//! What a request to Cohere's second API asks for: chat, embed or rerank.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::llm::openai_chat::conversation;
use crate::llm::request::{Part, declare, is_set, lenient, parts};
use crate::llm::{DeclaredTool, Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 15] = [
    "model",
    "messages",
    "documents",
    "tools",
    "tool_choice",
    "stream",
    "max_tokens",
    "thinking",
    "connectors",
    "texts",
    "images",
    "inputs",
    "query",
    "conversation_id",
    "priority",
];

/// The whole body; names that are not here change neither cost nor tools.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
    #[serde(default, deserialize_with = "parts::<Message, _>")]
    messages: bool,
    #[serde(default, deserialize_with = "parts::<Content<'_>, _>")]
    inputs: bool,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    #[serde(default, deserialize_with = "parts::<Tool<'_>, _>")]
    tools: Vec<DeclaredTool>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    /// The first API's own searches.
    #[serde(borrow)]
    connectors: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation_id: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default, deserialize_with = "parts::<Content<'_>, _>")]
    content: bool,
}

impl<'de> Part<'de> for Message {
    type Sum = bool;
    fn add(self, unseen: &mut bool, _depth: u8) -> Result<(), Malformed> {
        *unseen |= self.content;
        Ok(())
    }
}

/// One part of a message's content; the sum says whether something in it is not in the body.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
    /// An embedding's input has its parts one level further down.
    #[serde(default, deserialize_with = "parts::<Inner<'_>, _>")]
    content: bool,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
}

fn is_remote(raw: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Url {
        url: String,
    }
    let inline = |url: &str| {
        url.get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
    };
    is_set(raw)
        && !lenient::<Url>(raw).is_some_and(|object| inline(&object.url))
        && !lenient::<String>(raw).is_some_and(|url| inline(&url))
}

impl<'de: 'a, 'a> Part<'de> for Inner<'a> {
    type Sum = bool;
    fn add(self, unseen: &mut bool, _depth: u8) -> Result<(), Malformed> {
        *unseen |= is_remote(self.image_url);
        Ok(())
    }
}

impl<'de: 'a, 'a> Part<'de> for Content<'a> {
    type Sum = bool;
    fn add(self, unseen: &mut bool, _depth: u8) -> Result<(), Malformed> {
        let known = matches!(
            self.r#type.as_deref(),
            None | Some("text" | "thinking" | "image_url" | "document")
        );
        *unseen |= is_remote(self.image_url) || self.content || !known;
        Ok(())
    }
}

/// One element of `tools`.
#[derive(Deserialize)]
pub(super) struct Tool<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    function: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl Tool<'_> {
    /// The name by which the tool is known; a kind that is not a function is the provider's own.
    pub(super) fn declared(self) -> Result<DeclaredTool, Malformed> {
        let kind = self.r#type.as_deref().unwrap_or("function");
        match self.function {
            Some(function) if kind == "function" => Ok(DeclaredTool::client(function.name.into_owned())),
            None if kind == "function" => Err(Malformed("a tool has no name".to_owned())),
            _ => Ok(DeclaredTool::provider(kind)),
        }
    }
}

impl<'de: 'a, 'a> Part<'de> for Tool<'a> {
    type Sum = Vec<DeclaredTool>;
    fn add(self, tools: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        declare(tools, self.declared()?)
    }
}

/// Reads a whole body. Only chat has an output.
pub(super) fn facts(chat: bool, body: &[u8]) -> Result<RequestFacts, Malformed> {
    #[derive(Deserialize)]
    struct Thinking {
        token_budget: Option<u64>,
    }
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let mut tools = body.tools;
    if lenient::<Vec<IgnoredAny>>(body.connectors).is_none_or(|list| !list.is_empty())
        && is_set(body.connectors)
    {
        declare(&mut tools, DeclaredTool::provider("connectors"))?;
    }
    Ok(RequestFacts {
        model: body.model.into_owned(),
        stream: body.stream.unwrap_or(false),
        output_cap: if chat { body.max_tokens } else { Some(0) },
        thinking_budget: lenient::<Thinking>(body.thinking).and_then(|thinking| thinking.token_budget),
        choices: 1,
        server_side: false,
        tools,
        pictures: survey.pictures,
        cache_write: survey.cache_write,
        unseen_input: body.messages || body.inputs || is_set(body.conversation_id),
        // Its messages are those of chat completions.
        conversation: conversation::of(text),
        ..RequestFacts::default()
    })
}
