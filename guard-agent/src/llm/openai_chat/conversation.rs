//! The turns of a chat completions request.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::Malformed;
use crate::llm::conversation::{Arguments, Conversation, Teller};
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
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    /// The form of 2023.
    #[serde(borrow)]
    function_call: Option<Function<'a>>,
    #[serde(borrow)]
    tool_call_id: Option<Cow<'a, str>>,
    /// Of a `function` message of 2023: whose result it is.
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
    #[serde(borrow)]
    custom: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl<'a> Function<'a> {
    fn tell(self, id: Cow<'a, str>, told: &mut Teller<'a>) {
        let arguments = match self.arguments.or(self.input).map(RawValue::get) {
            Some(raw) if raw.starts_with('"') => Arguments::Quoted(raw),
            // Some compatible providers take an object where OpenAI takes text.
            Some(raw) => Arguments::Json(raw),
            None => Arguments::Json("{}"),
        };
        told.call(id, self.name, arguments);
    }
}

impl<'de> Part<'de> for ToolCall<'de> {
    type Sum = Vec<ToolCall<'de>>;
    fn add(self, calls: &mut Self::Sum, _depth: u8) -> Result<(), Malformed> {
        if calls.len() < 2 * crate::llm::conversation::STEPS {
            calls.push(self);
        }
        Ok(())
    }
}

impl<'de> Part<'de> for Message<'de> {
    type Sum = Teller<'de>;
    fn add(self, told: &mut Teller<'de>, _depth: u8) -> Result<(), Malformed> {
        let content = self.content.map_or("", RawValue::get);
        match &*self.role {
            "user" => told.user(content, false),
            "assistant" => {
                told.turn();
                let calls = self
                    .tool_calls
                    .map(|calls| parts_of::<ToolCall<'de>>(calls.get(), 1));
                for call in calls.transpose()?.unwrap_or_default() {
                    if let Some(function) = call.function.or(call.custom) {
                        function.tell(call.id, told);
                    }
                }
                if let Some(function) = self.function_call {
                    let id = function.name.clone();
                    function.tell(id, told);
                }
            }
            // The format has no flag for a failure.
            "tool" => told.result(self.tool_call_id.as_deref().unwrap_or_default(), content, None),
            "function" => told.result(self.name.as_deref().unwrap_or_default(), content, None),
            _ => {}
        }
        Ok(())
    }
}

/// What the body shows of the conversation. What does not fit is left out: `request` has judged the body already.
pub(in crate::llm) fn of(text: &str) -> Conversation {
    let messages = serde_json::from_str::<Body<'_>>(text)
        .ok()
        .and_then(|body| body.messages);
    let told = messages.map(|messages| parts_of::<Message<'_>>(messages.get(), 0));
    told.and_then(Result::ok).unwrap_or_default().finish()
}
