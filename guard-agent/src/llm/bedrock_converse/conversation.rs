//! The turns of a Converse request.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::Malformed;
use crate::llm::conversation::{Arguments, Conversation, STEPS, Teller};
use crate::llm::request::{Part, parts_of};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    image: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_use: Option<ToolUse<'a>>,
    #[serde(borrow)]
    tool_result: Option<ToolResult<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse<'a> {
    #[serde(borrow, default)]
    tool_use_id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult<'a> {
    #[serde(borrow, default)]
    tool_use_id: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
}

/// What the blocks of one message are.
#[derive(Default)]
struct Blocks<'a> {
    /// The last text.
    text: Option<&'a str>,
    calls: Vec<ToolUse<'a>>,
    results: Vec<ToolResult<'a>>,
}

impl<'de> Part<'de> for Block<'de> {
    type Sum = Blocks<'de>;
    fn add(self, blocks: &mut Blocks<'de>, _depth: u8) -> Result<(), Malformed> {
        blocks.text = self.text.map(RawValue::get).or(blocks.text);
        if self.image.is_some() {
            blocks.text = blocks.text.or(Some(""));
        }
        // More than are ever looked at need not be kept.
        if blocks.calls.len() < 2 * STEPS {
            blocks.calls.extend(self.tool_use);
        }
        if blocks.results.len() < 2 * STEPS {
            blocks.results.extend(self.tool_result);
        }
        Ok(())
    }
}

impl<'de> Part<'de> for Message<'de> {
    type Sum = Teller<'de>;
    fn add(self, told: &mut Teller<'de>, _depth: u8) -> Result<(), Malformed> {
        let Some(content) = self.content else {
            return Ok(());
        };
        let blocks = parts_of::<Block<'de>>(content.get(), 1)?;
        if self.role == "assistant" {
            told.turn();
            for call in blocks.calls {
                let input = call.input.map_or("{}", RawValue::get);
                told.call(call.tool_use_id, call.name, Arguments::Json(input));
            }
            return Ok(());
        }
        let beside_results = !blocks.results.is_empty();
        for result in blocks.results {
            let failed = result.status.as_deref() == Some("error");
            told.result(
                &result.tool_use_id,
                result.content.map_or("", RawValue::get),
                Some(failed),
            );
        }
        if let Some(text) = blocks.text {
            told.user(text, beside_results);
        }
        Ok(())
    }
}

/// What the body shows of the conversation. What does not fit is left out: `request` has judged the body already.
pub(super) fn of(text: &str) -> Conversation {
    let messages = serde_json::from_str::<Body<'_>>(text)
        .ok()
        .and_then(|body| body.messages);
    let told = messages.map(|messages| parts_of::<Message<'_>>(messages.get(), 0));
    told.and_then(Result::ok).unwrap_or_default().finish()
}
