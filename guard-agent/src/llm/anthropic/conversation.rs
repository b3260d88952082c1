//! The turns of a messages request.

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

impl<'de> Part<'de> for Message<'de> {
    type Sum = Teller<'de>;
    fn add(self, told: &mut Teller<'de>, _depth: u8) -> Result<(), Malformed> {
        let Some(content) = self.content else {
            return Ok(());
        };
        let blocks = match content.get().starts_with('"') {
            true => Blocks {
                text: Some(content.get()),
                ..Blocks::default()
            },
            false => parts_of::<Block<'de>>(content.get(), 1)?,
        };
        blocks.tell(&self.role, told);
        Ok(())
    }
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_use_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    is_error: Option<bool>,
}

/// What the blocks of one message are.
#[derive(Default)]
struct Blocks<'a> {
    /// The last text.
    text: Option<&'a str>,
    calls: Vec<Block<'a>>,
    results: Vec<Block<'a>>,
}

impl<'de> Part<'de> for Block<'de> {
    type Sum = Blocks<'de>;
    fn add(self, blocks: &mut Blocks<'de>, _depth: u8) -> Result<(), Malformed> {
        match &*self.r#type {
            "text" => blocks.text = self.text.map(RawValue::get).or(blocks.text),
            "image" | "document" => blocks.text = blocks.text.or(Some("")),
            "tool_use" => keep(&mut blocks.calls, self),
            "tool_result" => keep(&mut blocks.results, self),
            _ => {}
        }
        Ok(())
    }
}

/// More than are ever looked at need not be kept.
fn keep<'a>(list: &mut Vec<Block<'a>>, block: Block<'a>) {
    if list.len() < 2 * STEPS {
        list.push(block);
    }
}

impl<'a> Blocks<'a> {
    fn tell(self, role: &str, told: &mut Teller<'a>) {
        match role {
            "assistant" => {
                told.turn();
                for call in self.calls {
                    let input = call.input.map_or("{}", RawValue::get);
                    told.call(
                        call.id.unwrap_or_default(),
                        call.name.unwrap_or_default(),
                        Arguments::Json(input),
                    );
                }
            }
            "user" => {
                let beside_results = !self.results.is_empty();
                for result in self.results {
                    let raw = result.content.map_or("", RawValue::get);
                    // An absent flag is the format's way to say that it did not fail.
                    let failed = Some(result.is_error.unwrap_or(false));
                    told.result(result.tool_use_id.as_deref().unwrap_or_default(), raw, failed);
                }
                if let Some(text) = self.text {
                    told.user(text, beside_results);
                }
            }
            _ => {}
        }
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
