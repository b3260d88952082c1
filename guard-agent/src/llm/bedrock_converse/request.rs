//! What a Converse request asks for. The model and whether to stream stand in the path.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::llm::bedrock_converse::conversation;
use crate::llm::few::Few;
use crate::llm::request::{Part, declare, is_set, lenient, parts, parts_of};
use crate::llm::{CacheWrite, DeclaredTool, Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 11] = [
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "performanceConfig",
    "serviceTier",
    "requestMetadata",
    "outputConfig",
];

/// Output caps of the models' own formats: beside `inferenceConfig.maxTokens` it would not be clear which one holds.
const FOREIGN_CAPS: [&str; 9] = [
    "max_tokens",
    "max_tokens_to_sample",
    "max_completion_tokens",
    "max_new_tokens",
    "max_gen_len",
    "maxTokens",
    "maxTokenCount",
    "n",
    "num_generations",
];

/// The whole body; names that are not here change neither cost nor tools.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(default, deserialize_with = "parts::<Message, _>")]
    messages: Seen,
    #[serde(default, deserialize_with = "parts::<Block<'_>, _>")]
    system: Seen,
    inference_config: Option<InferenceConfig>,
    #[serde(borrow)]
    tool_config: Option<ToolConfig<'a>>,
    #[serde(borrow)]
    additional_model_request_fields: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_variables: Option<&'a RawValue>,
    #[serde(borrow)]
    performance_config: Option<&'a RawValue>,
    #[serde(borrow)]
    service_tier: Option<&'a RawValue>,
    #[serde(borrow)]
    guardrail_config: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InferenceConfig {
    max_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct ToolConfig<'a> {
    #[serde(borrow)]
    tools: Option<Few<&'a RawValue>>,
}

/// What messages and blocks add up to.
#[derive(Default)]
struct Seen {
    unseen: bool,
    cache: CacheWrite,
}

impl Seen {
    fn merge(&mut self, other: &Self) {
        self.unseen |= other.unseen;
        self.cache = self.cache.max(other.cache);
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(default, deserialize_with = "parts::<Block<'_>, _>")]
    content: Seen,
}

impl<'de> Part<'de> for Message {
    type Sum = Seen;
    fn add(self, sum: &mut Seen, _depth: u8) -> Result<(), Malformed> {
        sum.merge(&self.content);
        Ok(())
    }
}

/// One block: an object with one member, whose name says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    text: Option<IgnoredAny>,
    tool_use: Option<IgnoredAny>,
    reasoning_content: Option<IgnoredAny>,
    json: Option<IgnoredAny>,
    search_result: Option<IgnoredAny>,
    citations_content: Option<IgnoredAny>,
    #[serde(borrow)]
    image: Option<Media<'a>>,
    #[serde(borrow)]
    tool_result: Option<ToolResult<'a>>,
    cache_point: Option<CachePoint>,
    guard_content: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    source: Option<Source<'a>>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    bytes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolResult<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CachePoint {
    ttl: Option<String>,
}

impl CachePoint {
    /// An unknown lifetime counts as the dearest one.
    fn write(&self) -> CacheWrite {
        match self.ttl.as_deref() {
            None | Some("5m") => CacheWrite::FiveMinutes,
            Some(_) => CacheWrite::OneHour,
        }
    }
}

/// Deepest nesting of blocks: message, tool result, content.
const BLOCK_DEPTH: u8 = 3;

impl<'de: 'a, 'a> Part<'de> for Block<'a> {
    type Sum = Seen;
    fn add(self, sum: &mut Seen, depth: u8) -> Result<(), Malformed> {
        let plain = [
            &self.text,
            &self.tool_use,
            &self.reasoning_content,
            &self.json,
            &self.search_result,
            &self.citations_content,
            &self.guard_content,
        ];
        let known = plain.into_iter().any(Option::is_some);
        if let Some(point) = &self.cache_point {
            sum.cache = sum.cache.max(point.write());
        } else if let Some(image) = &self.image {
            sum.unseen |= image.source.as_ref().is_none_or(|source| !is_set(source.bytes));
        } else if let Some(result) = self.tool_result {
            if depth >= BLOCK_DEPTH {
                return Err(Malformed("content is nested too deeply".to_owned()));
            }
            if let Some(content) = result.content {
                sum.merge(&parts_of::<Block<'_>>(content.get(), depth + 1)?);
            }
        } else {
            // Documents, videos, sound, and kinds that Guard does not know: they may bring in anything.
            sum.unseen |= !known;
        }
        Ok(())
    }
}

/// One element of `toolConfig.tools`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool<'a> {
    #[serde(borrow)]
    tool_spec: Option<Named<'a>>,
    #[serde(borrow)]
    system_tool: Option<Named<'a>>,
    cache_point: Option<CachePoint>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// The name of one element of `toolConfig.tools`; none for a cache mark.
pub(super) fn name_of(element: &str) -> Result<Option<DeclaredTool>, Malformed> {
    let tool: Tool<'_> = serde_json::from_str(element).map_err(|error| json_strict::malformed(&error))?;
    let declared = |named: Named<'_>, server_side| DeclaredTool::run_by(server_side, named.name);
    match (tool.tool_spec, tool.system_tool, tool.cache_point) {
        (Some(spec), None, _) => Ok(Some(declared(spec, false))),
        (None, Some(system), _) => Ok(Some(declared(system, true))),
        (None, None, Some(_)) => Ok(None),
        _ => Err(Malformed("a tool has no name".to_owned())),
    }
}

/// Fields that go to the model in its own format.
#[derive(Deserialize)]
struct Additional<'a> {
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_config: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    mcp_servers: Option<&'a RawValue>,
}

/// Reads a whole body. `model` and `stream` are what the path says.
pub(super) fn facts(model: String, stream: bool, body: &[u8]) -> Result<RequestFacts, Malformed> {
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    let mut seen = body.messages;
    seen.merge(&body.system);
    let mut tools = Vec::new();
    for element in body
        .tool_config
        .and_then(|config| config.tools)
        .unwrap_or_default()
    {
        match name_of(element.get())? {
            Some(tool) => declare(&mut tools, tool)?,
            None => seen.cache = seen.cache.max(CacheWrite::FiveMinutes),
        }
    }
    let thinking_budget = additional(body.additional_model_request_fields, &mut tools)?;
    // A stored prompt may bring in text, tools and a cap of its own.
    let stored = is_set(body.prompt_variables) || model.contains(":prompt/");
    if stored {
        declare(&mut tools, DeclaredTool::provider("stored_prompt"))?;
    }
    if is_set(body.guardrail_config) {
        // Billed by the text unit, beside the model.
        declare(&mut tools, DeclaredTool::provider("guardrail"))?;
    }
    Ok(RequestFacts {
        model,
        stream,
        output_cap: body.inference_config.and_then(|config| config.max_tokens),
        thinking_budget,
        choices: 1,
        server_side: false,
        tools,
        service_tier: tier(body.service_tier, body.performance_config),
        pictures: survey.pictures,
        cache_write: survey.cache_write.max(seen.cache),
        unseen_input: seen.unseen || stored,
        conversation: conversation::of(text),
        ..RequestFacts::default()
    })
}

/// The tools that the fields for the model itself declare.
pub(super) fn declared_in_fields(fields: &str) -> Result<Vec<DeclaredTool>, Malformed> {
    let raw = serde_json::from_str(fields).map_err(|error| json_strict::malformed(&error))?;
    let mut tools = Vec::new();
    additional(Some(raw), &mut tools)?;
    Ok(tools)
}

/// What the fields for the model itself add; gives the thinking budget.
fn additional(raw: Option<&RawValue>, tools: &mut Vec<DeclaredTool>) -> Result<Option<u64>, Malformed> {
    #[derive(Deserialize)]
    struct Thinking {
        budget_tokens: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Given<'a> {
        #[serde(borrow)]
        r#type: Option<Cow<'a, str>>,
        #[serde(borrow)]
        name: Option<Cow<'a, str>>,
    }
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
        return Ok(None);
    };
    let names: std::collections::BTreeMap<String, IgnoredAny> =
        serde_json::from_str(raw.get()).map_err(|error| json_strict::malformed(&error))?;
    if let Some(cap) = FOREIGN_CAPS.iter().find(|cap| names.contains_key(**cap)) {
        return Err(Malformed(format!(
            "`additionalModelRequestFields` has `{cap}`; set the output cap with `inferenceConfig.maxTokens`"
        )));
    }
    let fields: Additional<'_> =
        serde_json::from_str(raw.get()).map_err(|error| json_strict::malformed(&error))?;
    // Client-run tools in the model's own format; what the provider runs is known by its type.
    for given in lenient::<Few<Given<'_>>>(fields.tools).unwrap_or_default() {
        let custom = matches!(given.r#type.as_deref(), None | Some("custom"));
        let name = if custom { given.name } else { given.r#type };
        let name = name.ok_or_else(|| Malformed("a tool has no name".to_owned()))?;
        let client_run = ["bash_", "text_editor_", "computer_", "memory_"]
            .iter()
            .any(|family| name.starts_with(family));
        declare(tools, DeclaredTool::run_by(!custom && !client_run, name))?;
    }
    if is_set(fields.tools) && lenient::<Few<Given<'_>>>(fields.tools).is_none() {
        return Err(Malformed(
            "the tools in `additionalModelRequestFields` can't be read".to_owned(),
        ));
    }
    if is_set(fields.mcp_servers) {
        declare(tools, DeclaredTool::provider("mcp:unreadable"))?;
    }
    let budgets = [fields.thinking, fields.reasoning_config];
    Ok(budgets
        .into_iter()
        .filter_map(|raw| lenient::<Thinking>(raw)?.budget_tokens)
        .max())
}

/// The tier: a named one, or the faster and dearer machines that `performanceConfig` asks for.
fn tier(tier: Option<&RawValue>, performance: Option<&RawValue>) -> Option<String> {
    #[derive(Deserialize)]
    struct Tier {
        r#type: String,
    }
    #[derive(Deserialize)]
    struct Performance {
        latency: String,
    }
    let fast = lenient::<Performance>(performance)
        .map(|performance| performance.latency)
        .filter(|latency| latency != "standard");
    fast.or(lenient::<Tier>(tier).map(|tier| tier.r#type))
}
