//! What a messages request asks for.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::anthropic::conversation;
use crate::llm::anthropic::tools::{self, McpServer, Tool, Tools};
use crate::llm::few::Few;
use crate::llm::request::{Part, has_elements, is_set, lenient, parts, parts_of};
use crate::llm::{Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them is refused.
const KNOWN: [&str; 19] = [
    "model",
    "fallbacks",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "thinking",
    "tools",
    "tool_choice",
    "mcp_servers",
    "service_tier",
    "speed",
    "container",
    "thread",
    "compaction",
    "context_management",
    "cache_control",
    "inference_geo",
    "output_config",
];

/// The whole body; names that are not here change neither cost nor tools.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    /// Models that the provider would try next.
    #[serde(borrow)]
    fallbacks: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "parts::<Message, _>")]
    messages: Seen,
    #[serde(default, deserialize_with = "parts::<Block<'_>, _>")]
    system: Seen,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "parts::<Tool<'_>, _>")]
    tools: Tools,
    #[serde(default, deserialize_with = "parts::<McpServer<'_>, _>")]
    mcp_servers: Vec<(String, String)>,
    service_tier: Option<String>,
    speed: Option<String>,
    /// Files and skills that are already at the provider.
    #[serde(borrow)]
    container: Option<&'a RawValue>,
    /// Messages that are already at the provider.
    #[serde(borrow)]
    thread: Option<&'a RawValue>,
    #[serde(borrow)]
    compaction: Option<&'a RawValue>,
    #[serde(borrow)]
    context_management: Option<&'a RawValue>,
    #[serde(borrow)]
    inference_geo: Option<&'a RawValue>,
}

/// What messages and blocks add up to.
#[derive(Default)]
struct Seen {
    unseen: bool,
    checksum: bool,
    tools: Tools,
}

impl Seen {
    fn merge(&mut self, other: Self) -> Result<(), Malformed> {
        self.unseen |= other.unseen;
        self.checksum |= other.checksum;
        self.tools.merge(other.tools)
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
        sum.merge(self.content)
    }
}

/// One block of a message or of the system prompt.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_changes: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Part<'de> for Block<'a> {
    type Sum = Seen;
    fn add(self, sum: &mut Seen, depth: u8) -> Result<(), Malformed> {
        match &*self.r#type {
            "text" => sum.checksum |= has_checksum(self.text),
            "image" => sum.unseen |= !source_is_inline(self.source, &["base64"], depth)?,
            // A PDF's page is billed as text and as an image, and compresses to almost nothing.
            "document" => sum.unseen |= !source_is_inline(self.source, &["text"], depth)?,
            "tool_result" | "mcp_tool_result" => sum.merge(nested(self.content, depth)?)?,
            "tool_addition" => sum.tools.merge(tools::addition(self.tool)?)?,
            "compaction" => sum.tools.merge(tools::changes(self.tool_changes)?)?,
            "thinking" | "redacted_thinking" | "tool_use" | "server_tool_use" | "mcp_tool_use"
            | "search_result" | "tool_reference" | "tool_removal" | "fallback" | "mcp_tool_listing" => {}
            kind if kind.ends_with("_tool_result") => {}
            // `container_upload`, and kinds that Guard does not know: they may bring in anything.
            _ => sum.unseen = true,
        }
        Ok(())
    }
}

/// Deepest nesting of blocks that is read: the API knows message, tool result, document, content. Each level is read
/// again for the one above it, so the depth is also a bound on work.
const BLOCK_DEPTH: u8 = 4;

/// The blocks inside a block that stands `depth` lists of parts deep.
fn nested(raw: Option<&RawValue>, depth: u8) -> Result<Seen, Malformed> {
    match raw {
        None => Ok(Seen::default()),
        Some(_) if depth >= BLOCK_DEPTH => Err(Malformed("content is nested too deeply".to_owned())),
        Some(raw) => parts_of::<Block<'_>>(raw.get(), depth + 1),
    }
}

/// Whether an image's or a document's data is in the body in one of the `shown` forms, or as blocks of its own.
fn source_is_inline(raw: Option<&RawValue>, shown: &[&str], depth: u8) -> Result<bool, Malformed> {
    #[derive(Deserialize)]
    struct Source<'a> {
        #[serde(borrow)]
        r#type: Cow<'a, str>,
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    let Some(source) = lenient::<Source<'_>>(raw) else {
        return Ok(false);
    };
    Ok(match &*source.r#type {
        kind if shown.contains(&kind) => true,
        "content" => !nested(source.content, depth)?.unseen,
        _ => false,
    })
}

/// Whether a block is the one in which Claude Code sends a checksum over the body.
fn has_checksum(text: Option<&RawValue>) -> bool {
    // Only a short text can be it, and Claude Code writes it without escapes: all others cost no copy.
    let short = text.filter(|text| text.get().len() < 1024 && text.get().contains("cch="));
    lenient::<String>(short).is_some_and(|text| {
        text.trim_start().starts_with("x-anthropic-billing-header:") && text.contains("cch=")
    })
}

/// Reads a whole body. `named` is the model that the path names, if it does; then the body's own does not count.
pub(super) fn facts(body: &[u8], named: Option<&str>) -> Result<RequestFacts, Malformed> {
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let body: Body<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    if has_elements(body.fallbacks) {
        return Err(Malformed(
            "`fallbacks` names models to fall back to; name one model in `model`".to_owned(),
        ));
    }
    let region = lenient::<String>(body.inference_geo);
    let (compacts, thinking_budget) = (compacts(&body), thinking_budget(body.thinking));
    // The mark counts in the system prompt only; in a message it is somebody's text.
    let untouchable = body.system.checksum;
    let mut seen = body.messages;
    seen.merge(body.system)?;
    let mut tools = body.tools;
    tools.merge(seen.tools)?;
    let tools = tools.finish(&body.mcp_servers)?;
    let model = named
        .map(str::to_owned)
        .or(body.model.map(Cow::into_owned))
        .ok_or_else(|| Malformed("missing field `model`".to_owned()))?;
    Ok(RequestFacts {
        bound: None,
        model,
        stream: body.stream.unwrap_or(false),
        output_cap: body.max_tokens,
        thinking_budget,
        choices: 1,
        include_usage: false,
        server_side: compacts,
        // Images are billed as text.
        text_only: true,
        tools,
        // Fast mode has prices of its own, as a tier has.
        service_tier: body
            .speed
            .filter(|speed| speed != "standard")
            .or(body.service_tier),
        pictures: survey.pictures,
        cache_write: survey.cache_write,
        unseen_input: seen.unseen || is_set(body.container) || is_set(body.thread),
        untouchable,
        region,
        conversation: conversation::of(text),
        ..RequestFacts::default()
    })
}

/// Whether the provider may summarise the context, which is a sampling pass of its own beside the output cap.
fn compacts(body: &Body<'_>) -> bool {
    #[derive(Deserialize)]
    struct Management {
        edits: Option<Few<Edit>>,
    }
    #[derive(Deserialize)]
    struct Edit {
        r#type: Option<String>,
    }
    let harmless = |edit: &Edit| {
        edit.r#type
            .as_deref()
            .is_some_and(|kind| kind.starts_with("clear_"))
    };
    let managed = is_set(body.context_management)
        && lenient::<Management>(body.context_management)
            .is_none_or(|management| !management.edits.unwrap_or_default().iter().all(harmless));
    managed || is_set(body.compaction)
}

fn thinking_budget(raw: Option<&RawValue>) -> Option<u64> {
    #[derive(Deserialize)]
    struct Thinking {
        budget_tokens: Option<u64>,
    }
    lenient::<Thinking>(raw).and_then(|thinking| thinking.budget_tokens)
}

/// Whether the body carries a checksum over itself, and its thinking budget: what a rewrite has to respect.
pub(super) fn limits(text: &str) -> Result<(bool, Option<u64>), Malformed> {
    #[derive(Deserialize)]
    struct Limits<'a> {
        #[serde(default, deserialize_with = "parts::<Block<'_>, _>")]
        system: Seen,
        #[serde(borrow)]
        thinking: Option<&'a RawValue>,
    }
    let limits: Limits<'_> = serde_json::from_str(text).map_err(|error| json_strict::malformed(&error))?;
    Ok((limits.system.checksum, thinking_budget(limits.thinking)))
}

/// Names of the tools that messages declare, by reference or definition.
pub(super) fn added_in_messages(messages: &str, servers: Option<&str>) -> Result<Vec<String>, Malformed> {
    let seen = parts_of::<Message>(messages, 0)?;
    let servers = servers
        .map(|servers| parts_of::<McpServer<'_>>(servers, 0))
        .transpose()?
        .unwrap_or_default();
    Ok(seen
        .tools
        .finish(&servers)?
        .into_iter()
        .map(|tool| tool.name)
        .collect())
}
