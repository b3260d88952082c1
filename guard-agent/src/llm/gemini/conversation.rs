//! The turns of a Gemini request.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::Malformed;
use crate::llm::conversation::{Arguments, Conversation, STEPS, Teller};
use crate::llm::request::{Part, parts_of};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow, alias = "function_call", rename = "functionCall")]
    call: Option<Call<'a>>,
    #[serde(borrow, alias = "function_response", rename = "functionResponse")]
    response: Option<Response<'a>>,
    #[serde(borrow, alias = "inline_data", rename = "inlineData")]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    response: Option<&'a RawValue>,
}

/// What the parts of one content are.
#[derive(Default)]
struct Pieces<'a> {
    /// The last text.
    text: Option<&'a str>,
    calls: Vec<Call<'a>>,
    responses: Vec<Response<'a>>,
}

impl<'de> Part<'de> for Piece<'de> {
    type Sum = Pieces<'de>;
    fn add(self, pieces: &mut Pieces<'de>, _depth: u8) -> Result<(), Malformed> {
        pieces.text = self.text.map(RawValue::get).or(pieces.text);
        if self.data.is_some() {
            pieces.text = pieces.text.or(Some(""));
        }
        // More than are ever looked at need not be kept.
        if pieces.calls.len() < 2 * STEPS {
            pieces.calls.extend(self.call);
        }
        if pieces.responses.len() < 2 * STEPS {
            pieces.responses.extend(self.response);
        }
        Ok(())
    }
}

impl<'de> Part<'de> for Content<'de> {
    type Sum = Teller<'de>;
    fn add(self, told: &mut Teller<'de>, _depth: u8) -> Result<(), Malformed> {
        let Some(parts) = self.parts else {
            return Ok(());
        };
        let pieces = parts_of::<Piece<'de>>(parts.get(), 1)?;
        if self.role == "model" {
            told.turn();
            for call in pieces.calls {
                // Calls have an id only where the client gives them one; a result names its tool.
                let id = call.id.unwrap_or_else(|| call.name.clone());
                let args = call.args.map_or("{}", RawValue::get);
                told.call(id, call.name, Arguments::Json(args));
            }
            return Ok(());
        }
        let beside_results = !pieces.responses.is_empty();
        for response in pieces.responses {
            let id = response.id.unwrap_or(response.name);
            // The format has no flag for a failure.
            told.result(&id, response.response.map_or("", RawValue::get), None);
        }
        if let Some(text) = pieces.text {
            told.user(text, beside_results);
        }
        Ok(())
    }
}

/// What the body shows of the conversation. What does not fit is left out: `request` has judged the body already.
pub(super) fn of(text: &str) -> Conversation {
    let contents = serde_json::from_str::<Body<'_>>(text)
        .ok()
        .and_then(|body| body.contents);
    let told = contents.map(|contents| parts_of::<Content<'_>>(contents.get(), 0));
    told.and_then(Result::ok).unwrap_or_default().finish()
}
