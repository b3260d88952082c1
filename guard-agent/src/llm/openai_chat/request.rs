//! What a chat completions request asks for.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::openai_chat::CapField;
use crate::llm::openai_chat::conversation;
use crate::llm::request::{Part, declare, has_elements, is_set, lenient, parts};
use crate::llm::{CacheWrite, DeclaredTool, Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 26] = [
    "model",
    "models",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "parallel_tool_calls",
    "web_search_options",
    "search_parameters",
    "plugins",
    "service_tier",
    "reasoning",
    "thinking",
    "thinking_budget",
    "prompt_cache_options",
    "prompt_cache_retention",
    "store",
    "user",
    "modalities",
    "audio",
];

/// The whole body; names that are not here change neither cost nor tools.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    /// OpenRouter: models to fall back to.
    #[serde(borrow)]
    models: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "parts::<Message<'_>, _>")]
    messages: bool,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    n: Option<u64>,
    #[serde(default, deserialize_with = "parts::<Tool<'_>, _>")]
    tools: Vec<DeclaredTool>,
    /// The form of 2023.
    #[serde(default, deserialize_with = "parts::<Function<'_>, _>")]
    functions: Vec<DeclaredTool>,
    #[serde(borrow)]
    web_search_options: Option<&'a RawValue>,
    /// xAI: live search.
    #[serde(borrow)]
    search_parameters: Option<&'a RawValue>,
    /// OpenRouter: web search, file parsing.
    #[serde(default, deserialize_with = "parts::<Plugin<'_>, _>")]
    plugins: Vec<DeclaredTool>,
    service_tier: Option<String>,
    /// OpenRouter: `max_tokens` in it.
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    /// Anthropic's and Z.ai's own field, taken over by compatible endpoints.
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    /// Qwen.
    #[serde(borrow)]
    thinking_budget: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_options: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, deserialize_with = "parts::<ContentPart<'_>, _>")]
    content: bool,
    /// An assistant's earlier spoken answer, by id: its size is not in the body.
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Part<'de> for Message<'a> {
    type Sum = bool;
    fn add(self, unseen: &mut bool, _depth: u8) -> Result<(), Malformed> {
        *unseen |= self.content || is_set(self.audio);
        Ok(())
    }
}

/// One part of a message's content; the sum says whether something in it is not in the body.
#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow)]
    file: Option<&'a RawValue>,
    #[serde(borrow)]
    video_url: Option<&'a RawValue>,
    #[serde(borrow)]
    document_url: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Part<'de> for ContentPart<'a> {
    type Sum = bool;
    fn add(self, unseen: &mut bool, _depth: u8) -> Result<(), Malformed> {
        let remote = [self.image_url, self.video_url, self.document_url]
            .into_iter()
            .any(|url| is_set(url) && !is_inline(url));
        // Also one whose data is here: a page of a PDF is billed as text and as an image, and compresses to almost nothing.
        let file = is_set(self.file);
        // A part of a kind that Guard does not know may bring in anything.
        let unknown = !matches!(
            &*self.r#type,
            "text"
                | "refusal"
                | "thinking"
                | "reasoning"
                | "input_text"
                | "output_text"
                | "input_audio"
                | "image_url"
                | "video_url"
                | "document_url"
                | "file"
        );
        *unseen |= remote || file || unknown;
        Ok(())
    }
}

/// Whether a `…_url` (text, or an object with `url`) carries its data in itself.
fn is_inline(raw: Option<&RawValue>) -> bool {
    #[derive(Deserialize)]
    struct Url<'a> {
        #[serde(borrow)]
        url: Cow<'a, str>,
    }
    let inline = |url: &str| {
        url.get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
    };
    lenient::<Url<'_>>(raw).is_some_and(|object| inline(&object.url))
        || lenient::<String>(raw).is_some_and(|url| inline(&url))
}

/// One element of `tools`.
#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    function: Option<Named>,
    custom: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

/// One element of `functions`.
#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// One element of `plugins`.
#[derive(Deserialize)]
struct Plugin<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl Tool<'_> {
    /// Every name by which the tool could be known. A provider's own tools are known by their type, and run by it.
    fn declared(self) -> Vec<DeclaredTool> {
        let kind = self.r#type.as_deref().unwrap_or("function");
        let server_side = !matches!(kind, "function" | "custom");
        let names = [self.function, self.custom]
            .into_iter()
            .flatten()
            .filter_map(|named| named.name);
        let mut all: Vec<String> = names.chain(self.name.map(Cow::into_owned)).collect();
        if server_side {
            all.push(kind.to_owned());
        }
        all.into_iter()
            .map(|name| DeclaredTool {
                server_side,
                ..DeclaredTool::client(name)
            })
            .collect()
    }
}

impl<'de: 'a, 'a> Part<'de> for Tool<'a> {
    type Sum = Vec<DeclaredTool>;
    fn add(self, tools: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        let declared = self.declared();
        if declared.is_empty() {
            return Err(Malformed("a tool has no name".to_owned()));
        }
        declared.into_iter().try_for_each(|tool| declare(tools, tool))
    }
}

impl<'de: 'a, 'a> Part<'de> for Function<'a> {
    type Sum = Vec<DeclaredTool>;
    fn add(self, tools: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        declare(tools, DeclaredTool::client(self.name))
    }
}

impl<'de: 'a, 'a> Part<'de> for Plugin<'a> {
    type Sum = Vec<DeclaredTool>;
    fn add(self, tools: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        declare(tools, DeclaredTool::provider(self.id))
    }
}

/// The tool that `web_search_options` declares.
pub(super) const WEB_SEARCH: &str = "web_search";

/// OpenRouter: the suffix of a model's name that asks for its web search.
pub(super) const ONLINE: &str = ":online";

/// The tool that xAI's `search_parameters` declare.
pub(super) const LIVE_SEARCH: &str = "live_search";

/// The names of one element of `tools`, `functions` or `plugins`.
pub(super) fn names_of(field: &str, element: &str) -> Result<Vec<String>, Malformed> {
    let names = match field {
        "tools" => serde_json::from_str::<Tool<'_>>(element)
            .map(|tool| tool.declared().into_iter().map(|tool| tool.name).collect()),
        "functions" => serde_json::from_str::<Function<'_>>(element).map(|f| vec![f.name.into_owned()]),
        _ => serde_json::from_str::<Plugin<'_>>(element).map(|p| vec![p.id.into_owned()]),
    };
    names.map_err(|error| json_strict::malformed(&error))
}

/// Reads a whole body. `named` is the model that the path names, if it does; then the body's own does not count.
pub(super) fn facts(
    body: &[u8],
    cap_field: CapField,
    named: Option<&str>,
) -> Result<RequestFacts, Malformed> {
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    if has_elements(body.models) {
        return Err(Malformed(
            "`models` names models to fall back to; name one model in `model`".to_owned(),
        ));
    }
    let thinking_budget = thinking_budget(&body);
    let model = named
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .ok_or_else(|| Malformed("missing field `model`".to_owned()))?;
    let mut tools = body.tools;
    for tool in body.functions.into_iter().chain(body.plugins) {
        declare(&mut tools, tool)?;
    }
    if is_set(body.web_search_options) || model.ends_with(ONLINE) {
        declare(&mut tools, DeclaredTool::provider(WEB_SEARCH))?;
    }
    if is_set(body.search_parameters) {
        declare(&mut tools, DeclaredTool::provider(LIVE_SEARCH))?;
    }
    // A quick look for the words is enough: where one is found without its meaning, the estimate is only higher.
    let spoken = ["input_audio", "audio", "video_url", "image_url"];
    let text_only = !spoken
        .iter()
        .any(|word| memchr::memmem::find(text.as_bytes(), word.as_bytes()).is_some());
    let cached = if is_set(body.prompt_cache_options) {
        CacheWrite::FiveMinutes
    } else {
        CacheWrite::None
    };
    Ok(RequestFacts {
        model,
        stream: body.stream.unwrap_or(false),
        output_cap: output_cap(cap_field, body.max_tokens, body.max_completion_tokens),
        thinking_budget,
        choices: body.n.unwrap_or(1).max(1),
        include_usage: body
            .stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false),
        text_only,
        tools,
        service_tier: body.service_tier,
        pictures: survey.pictures,
        cache_write: survey.cache_write.max(cached),
        unseen_input: body.messages,
        conversation: conversation::of(text),
        ..RequestFacts::default()
    })
}

/// The cap that the provider will keep to: of two, the larger one. The newer name alone counts only where the provider
/// knows it: one that ignores it has no cap at all.
fn output_cap(field: CapField, max_tokens: Option<u64>, max_completion_tokens: Option<u64>) -> Option<u64> {
    match field {
        CapField::MaxTokens if max_tokens.is_none() => None,
        CapField::MaxTokens | CapField::MaxCompletionTokens => max_completion_tokens.max(max_tokens),
    }
}

fn thinking_budget(body: &Body<'_>) -> Option<u64> {
    #[derive(Deserialize)]
    struct Budget {
        #[serde(alias = "max_tokens")]
        budget_tokens: Option<u64>,
    }
    let nested = [body.reasoning, body.thinking]
        .into_iter()
        .filter_map(lenient::<Budget>);
    nested
        .filter_map(|budget| budget.budget_tokens)
        .chain(lenient::<u64>(body.thinking_budget))
        .max()
}
