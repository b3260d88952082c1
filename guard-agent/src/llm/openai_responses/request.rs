//! What a responses request asks for: the body of a POST, and the frame that asks for a response on a socket.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::openai_responses::conversation;
use crate::llm::openai_responses::tools::Tool;
use crate::llm::request::{Part, declare, is_set, lenient, parts, parts_of};
use crate::llm::{CacheWrite, DeclaredTool, Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 28] = [
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_output_tokens",
    "max_tool_calls",
    "stream",
    "stream_options",
    "background",
    "previous_response_id",
    "conversation",
    "prompt",
    "preset",
    "service_tier",
    "reasoning",
    "context_management",
    "truncation",
    "prompt_cache_options",
    "prompt_cache_retention",
    "store",
    "models",
    "plugins",
    "type",
    "generate",
    "stream_id",
    "response",
];

/// The tool that a stored prompt stands for: it may bring in any.
const STORED_PROMPT: &str = "stored_prompt";

/// The tool that a preset of Perplexity's stands for: it brings in searches.
const PRESET: &str = "preset";

/// The whole body; names that are not here change neither cost nor tools.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "parts::<Item<'_>, _>")]
    input: Seen,
    #[serde(default, deserialize_with = "parts::<Tool<'_>, _>")]
    tools: Vec<DeclaredTool>,
    max_output_tokens: Option<u64>,
    stream: Option<bool>,
    #[serde(borrow)]
    previous_response_id: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    /// Perplexity: a model and its tools under one name.
    #[serde(borrow)]
    preset: Option<Cow<'a, str>>,
    service_tier: Option<String>,
    #[serde(borrow)]
    context_management: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_options: Option<&'a RawValue>,
    /// OpenRouter: models to fall back to, and the provider's own tools.
    #[serde(borrow)]
    models: Option<&'a RawValue>,
    #[serde(borrow)]
    plugins: Option<&'a RawValue>,
}

/// What the items of the input add up to.
#[derive(Default)]
struct Seen {
    unseen: bool,
    tools: Vec<DeclaredTool>,
}

/// One item of `input`.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    role: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Part<'de> for Item<'a> {
    type Sum = Seen;
    fn add(self, sum: &mut Seen, _depth: u8) -> Result<(), Malformed> {
        if let Some(tools) = self.tools.filter(|tools| tools.get() != "null") {
            let found = parts_of::<Tool<'_>>(tools.get(), 0)?;
            found
                .into_iter()
                .try_for_each(|tool| declare(&mut sum.tools, tool))?;
        }
        for raw in [self.content, self.output].into_iter().flatten() {
            sum.unseen |= parts_of::<Content<'_>>(raw.get(), 0)?;
        }
        sum.unseen |= match self.r#type.as_deref() {
            // The short form of a message.
            None => self.role.is_none() && is_set(self.id),
            // Encrypted reasoning is as long as what it stands for; everything here has its size in the body.
            Some(
                "message"
                | "reasoning"
                | "function_call"
                | "function_call_output"
                | "custom_tool_call"
                | "custom_tool_call_output"
                | "computer_call"
                | "computer_call_output"
                | "local_shell_call"
                | "local_shell_call_output"
                | "shell_call"
                | "shell_call_output"
                | "apply_patch_call"
                | "apply_patch_call_output"
                | "web_search_call"
                | "tool_search_call"
                | "tool_search_output"
                | "additional_tools"
                | "mcp_list_tools"
                | "mcp_call"
                | "mcp_approval_request"
                | "mcp_approval_response",
            ) => false,
            // References to what is stored, and kinds that Guard does not know: they may bring in anything.
            Some(_) => true,
        };
        Ok(())
    }
}

/// One part of an item's content; the sum says whether something in it is not in the body.
#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    image_url: Option<&'a RawValue>,
    #[serde(borrow)]
    file_id: Option<&'a RawValue>,
    #[serde(borrow)]
    file_url: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Part<'de> for Content<'a> {
    type Sum = bool;
    fn add(self, unseen: &mut bool, _depth: u8) -> Result<(), Malformed> {
        let inline = |raw: Option<&RawValue>| {
            lenient::<String>(raw).is_some_and(|url| {
                url.get(..5)
                    .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
            })
        };
        let remote = is_set(self.file_id)
            || is_set(self.file_url)
            || (is_set(self.image_url) && !inline(self.image_url));
        // `input_file` too when its data is here: a page of a PDF is billed as text and as an image.
        let known = matches!(
            &*self.r#type,
            "input_text"
                | "output_text"
                | "text"
                | "summary_text"
                | "reasoning_text"
                | "refusal"
                | "input_image"
                | "input_audio"
                | "computer_screenshot"
                | "encrypted_content"
        );
        // What a command wrote comes without a type.
        let output = self.r#type.is_empty();
        *unseen |= remote || !(known || output);
        Ok(())
    }
}

/// Reads a whole body. `model` is the one that the path names, if it does.
pub(crate) fn facts(body: &[u8], model: Option<&str>) -> Result<RequestFacts, Malformed> {
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    if crate::llm::request::has_elements(body.models) {
        return Err(Malformed(
            "`models` names models to fall back to; name one model in `model`".to_owned(),
        ));
    }
    let model = model
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .or(body.preset.as_ref().map(|name| format!("preset/{name}")))
        .ok_or_else(|| Malformed("missing field `model`".to_owned()))?;
    let mut tools = body.tools;
    for tool in body.input.tools {
        declare(&mut tools, tool)?;
    }
    for (set, name) in [
        (is_set(body.prompt), STORED_PROMPT),
        (is_set(body.plugins), "plugins"),
        (body.preset.is_some(), PRESET),
    ] {
        if set {
            let name = name.to_owned();
            declare(&mut tools, DeclaredTool::provider(name))?;
        }
    }
    let stored = [body.previous_response_id, body.conversation, body.prompt];
    let cached = if is_set(body.prompt_cache_options) {
        CacheWrite::FiveMinutes
    } else {
        CacheWrite::None
    };
    Ok(RequestFacts {
        model,
        stream: body.stream.unwrap_or(false),
        output_cap: body.max_output_tokens,
        choices: 1,
        server_side: false,
        tools,
        service_tier: body.service_tier,
        pictures: survey.pictures,
        cache_write: survey.cache_write.max(cached),
        // A compaction at the provider reads the context once more.
        unseen_input: body.input.unseen || stored.into_iter().any(is_set) || is_set(body.context_management),
        conversation: conversation::of(text),
        ..RequestFacts::default()
    })
}
