//! What a Gemini request asks for. The model and whether to stream stand in the path.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::few::Few;
use crate::llm::gemini::conversation;
use crate::llm::gemini::tools::{camel, declared, either};
use crate::llm::gemini::words::{Asked, Word};
use crate::llm::json_edit::{Container, Editor};
use crate::llm::request::{declare, lenient};
use crate::llm::{DeclaredTool, Malformed, RequestFacts, json_strict};

/// Top-level names that decide something; another spelling of one of them (except with underscores, which the API
/// takes too) is refused.
const KNOWN: [&str; 14] = [
    "contents",
    "content",
    "requests",
    "systemInstruction",
    "system_instruction",
    "tools",
    "toolConfig",
    "tool_config",
    "generationConfig",
    "generation_config",
    "cachedContent",
    "cached_content",
    "serviceTier",
    "service_tier",
];

/// The tool that a stored context stands for: it may have declared any.
const CACHED_CONTENT: &str = "cached_content";

/// Deepest nesting of parts that is read: a function's response may have parts of its own.
const DEPTH: u8 = 3;

/// What the path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::llm) struct Operation {
    /// The model.
    pub(in crate::llm) model: String,
    /// The method behind the colon.
    pub(in crate::llm) method: String,
}

impl Operation {
    /// `/models/NAME:METHOD`, below the provider's base path.
    pub(in crate::llm) fn read(tail: &str) -> Option<Self> {
        let (name, method) = tail.strip_prefix("/models/")?.rsplit_once(':')?;
        let model = crate::llm::detect::model_name(name)?;
        (!model.contains('/')).then(|| Self {
            model,
            method: method.to_owned(),
        })
    }

    fn streams(&self) -> bool {
        self.method == "streamGenerateContent"
    }

    fn embeds(&self) -> bool {
        matches!(self.method.as_str(), "embedContent" | "batchEmbedContents")
    }
}

/// Reads a whole body.
pub(super) fn facts(operation: &Operation, body: &[u8]) -> Result<RequestFacts, Malformed> {
    let (text, survey) = json_strict::survey(body, &KNOWN)?;
    let editor = Editor::new(text);
    let root = editor.root()?;
    let mut facts = RequestFacts {
        model: operation.model.clone(),
        stream: operation.streams(),
        choices: 1,
        pictures: survey.pictures,
        cache_write: survey.cache_write,
        ..RequestFacts::default()
    };
    if operation.embeds() {
        // An embedding has no output tokens.
        facts.output_cap = Some(0);
        facts.unseen_input = embeds_unseen(operation, &editor, &root)?;
        return Ok(facts);
    }
    for name in ["contents", "systemInstruction"] {
        if let Some(contents) = either(&root, name)? {
            facts.unseen_input |= contents_unseen(contents.value, 0)?;
        }
    }
    facts.tools = declared(&editor, &root)?;
    facts.conversation = conversation::of(text);
    if either(&root, "cachedContent")?.is_some() {
        facts.unseen_input = true;
        declare(&mut facts.tools, DeclaredTool::client(CACHED_CONTENT))?;
    }
    facts.server_side = facts.tools.iter().any(|tool| tool.server_side);
    if let Some(tier) = either(&root, "serviceTier")? {
        let tier: String = read(tier.value)?;
        facts.service_tier = Some(tier.to_ascii_lowercase());
    }
    if let Some(config) = either(&root, "generationConfig")? {
        configure(&mut facts, &editor, &editor.object(config.value)?)?;
    }
    Ok(facts)
}

fn read<'a, T: Deserialize<'a>>(value: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(value).map_err(|error| json_strict::malformed(&error))
}

/// A whole number, which the API also takes as text or with a zero behind the point.
pub(in crate::llm) fn number(value: &str) -> Result<Option<u64>, Malformed> {
    let plain = value.trim_matches('"');
    let plain = plain.strip_suffix(".0").unwrap_or(plain);
    if plain.starts_with('-') && plain.len() > 1 {
        // -1: as much as the model likes.
        return Ok(None);
    }
    plain
        .parse()
        .map(Some)
        .map_err(|_not_a_number| Malformed("a number in the generation config can't be read".to_owned()))
}

fn configure(facts: &mut RequestFacts, editor: &Editor<'_>, config: &Container<'_>) -> Result<(), Malformed> {
    if let Some(cap) = either(config, "maxOutputTokens")? {
        facts.output_cap = number(cap.value)?;
    }
    if let Some(count) = either(config, "candidateCount")? {
        facts.choices = number(count.value)?.unwrap_or(1).max(1);
    }
    if let Some(thinking) = either(config, "thinkingConfig")? {
        let thinking = editor.object(thinking.value)?;
        if let Some(budget) = either(&thinking, "thinkingBudget")? {
            facts.thinking_budget = number(budget.value)?;
        }
    }
    if let Some(modalities) = either(config, "responseModalities")? {
        let asked: Few<Word<Asked>> = read(modalities.value)?;
        if asked.iter().any(|one| !one.text.eq_ignore_ascii_case("TEXT")) {
            // Images and speech have prices of their own.
            let name = "response_modalities".to_owned();
            declare(&mut facts.tools, DeclaredTool::provider(name))?;
            facts.server_side = true;
        }
    }
    Ok(())
}

/// Whether contents (one, or a list of them) bring in something whose size the body does not show.
pub(in crate::llm) fn contents_unseen(value: &str, depth: u8) -> Result<bool, Malformed> {
    let own = Editor::new(value);
    if value.starts_with('"') {
        return Ok(false);
    }
    if value.starts_with('[') {
        let mut unseen = false;
        for item in &own.array(value)?.items {
            unseen |= content_unseen(item.value, depth)?;
        }
        return Ok(unseen);
    }
    content_unseen(value, depth)
}

fn content_unseen(value: &str, depth: u8) -> Result<bool, Malformed> {
    let own = Editor::new(value);
    let content = own.object(value)?;
    let Some(parts) = either(&content, "parts")? else {
        return Ok(false);
    };
    parts_unseen(parts.value, depth)
}

fn parts_unseen(value: &str, depth: u8) -> Result<bool, Malformed> {
    if depth >= DEPTH {
        return Err(Malformed("content is nested too deeply".to_owned()));
    }
    let own = Editor::new(value);
    let parts = match value.as_bytes().first() {
        Some(b'[') => own.array(value)?.items.iter().map(|item| item.value).collect(),
        _ => vec![value],
    };
    let mut unseen = false;
    for part in parts {
        let object = Editor::new(part).object(part)?;
        for member in object.items.iter().filter(|member| member.value != "null") {
            unseen |= match camel(&member.name).as_str() {
                "text"
                | "thought"
                | "thoughtSignature"
                | "functionCall"
                | "executableCode"
                | "codeExecutionResult"
                | "mediaResolution"
                | "partMetadata" => false,
                "inlineData" => !is_plain_data(member.value)?,
                "functionResponse" => {
                    let response = Editor::new(member.value).object(member.value)?;
                    match either(&response, "parts")? {
                        Some(parts) => parts_unseen(parts.value, depth + 1)?,
                        None => false,
                    }
                }
                // Files, videos, and kinds that Guard does not know.
                _ => true,
            };
        }
    }
    Ok(unseen)
}

/// Whether inline data costs at most about as many tokens as it has bytes: text and single images do, documents,
/// sound and films may not.
fn is_plain_data(value: &str) -> Result<bool, Malformed> {
    let data = Editor::new(value).object(value)?;
    let Some(kind) = either(&data, "mimeType")? else {
        return Ok(false);
    };
    let kind: String = read(kind.value)?;
    let kind = kind.to_ascii_lowercase();
    Ok(kind.starts_with("image/") || kind.starts_with("text/"))
}

/// Whether an embedding's content is not in the body; each request of a batch must name the path's model.
fn embeds_unseen(
    operation: &Operation,
    editor: &Editor<'_>,
    root: &Container<'_>,
) -> Result<bool, Malformed> {
    #[derive(Deserialize)]
    struct Named<'a> {
        model: Option<String>,
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    let mut requests = Vec::new();
    if let Some(list) = either(root, "requests")? {
        requests.extend(editor.array(list.value)?.items.iter().map(|item| item.value));
    }
    let mut unseen = false;
    if let Some(content) = either(root, "content")? {
        unseen |= contents_unseen(content.value, 0)?;
    }
    for request in requests {
        let named: Named<'_> = read(request)?;
        let other = named
            .model
            .as_deref()
            .is_some_and(|model| model.strip_prefix("models/").unwrap_or(model) != operation.model);
        if other {
            return Err(Malformed(
                "a request of the batch names another model than the path".to_owned(),
            ));
        }
        if let Some(content) = named.content {
            unseen |= contents_unseen(content.get(), 0)?;
        }
    }
    if let Some(model) = either(root, "model")? {
        let model = lenient::<String>(read::<&RawValue>(model.value).ok()).unwrap_or_default();
        if model.rsplit('/').next() != Some(operation.model.as_str()) {
            return Err(Malformed("the body names another model than the path".to_owned()));
        }
    }
    Ok(unseen)
}
