//! The turns of a responses request: items, of which calls and their results are ones of their own.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::Malformed;
use crate::llm::conversation::{Arguments, Conversation, Teller};
use crate::llm::request::{Part, is_set, parts_of};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    previous_response_id: Option<&'a RawValue>,
    #[serde(borrow)]
    conversation: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    call_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<&'a RawValue>,
}

/// A conversation, and whether the item before was the model's: several in a row are one reply.
#[derive(Default)]
struct Telling<'a> {
    told: Teller<'a>,
    replying: bool,
}

impl<'de> Part<'de> for Item<'de> {
    type Sum = Telling<'de>;
    fn add(self, telling: &mut Telling<'de>, _depth: u8) -> Result<(), Malformed> {
        let kind = self.r#type.as_deref().unwrap_or("message");
        let by_model =
            kind == "reasoning" || kind.ends_with("_call") || (kind == "message" && self.role == "assistant");
        if by_model && !telling.replying {
            telling.told.turn();
        }
        telling.replying = by_model;
        let id = self.call_id.unwrap_or_default();
        match kind {
            "message" if self.role == "user" => {
                telling.told.user(self.content.map_or("", RawValue::get), false);
            }
            "function_call" | "custom_tool_call" | "local_shell_call" | "shell_call" | "apply_patch_call"
            | "computer_call" => {
                let raw = self.arguments.or(self.input).or(self.action);
                let arguments = match raw.map(RawValue::get) {
                    Some(raw) if raw.starts_with('"') => Arguments::Quoted(raw),
                    Some(raw) => Arguments::Json(raw),
                    None => Arguments::Json("{}"),
                };
                // What has no name of its own is known by its kind, as in the tools that a request declares.
                let kind = kind.strip_suffix("_call").unwrap_or(kind).to_owned();
                let name = self.name.unwrap_or(Cow::Owned(kind));
                telling.told.call(id, name, arguments);
            }
            // The format has no flag for a failure.
            kind if kind.ends_with("_call_output") => {
                telling
                    .told
                    .result(&id, self.output.map_or("", RawValue::get), None);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the body shows of the conversation: all of it, or (when it names a stored one) what is new.
pub(super) fn of(text: &str) -> Conversation {
    let Ok(body) = serde_json::from_str::<Body<'_>>(text) else {
        return Conversation::default();
    };
    let told = match body.input.map(RawValue::get) {
        Some(said) if said.starts_with('"') => {
            let mut told = Teller::default();
            told.user(said, false);
            told
        }
        Some(items) => parts_of::<Item<'_>>(items, 0)
            .map(|telling| telling.told)
            .unwrap_or_default(),
        None => Teller::default(),
    };
    if is_set(body.previous_response_id) || is_set(body.conversation) {
        told.finish_partial()
    } else {
        told.finish()
    }
}
