//! What an item of a realtime conversation brings in.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{NAME, malformed};
use crate::llm::json_edit::Editor;
use crate::llm::{Malformed, json_strict};

/// What a piece of conversation brings in.
#[derive(Debug, Default)]
pub(super) struct Item {
    /// Something whose size is not in sight.
    pub(super) unseen: bool,
    /// Sound, which may be written down.
    pub(super) sound: bool,
    /// Calls that the client says the model has made, by their ids.
    pub(super) calls: Vec<String>,
}

/// Reads one item of the conversation.
pub(super) fn item_of(value: &str, found: &mut Item) -> Result<(), Malformed> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        r#type: Option<Cow<'a, str>>,
        #[serde(borrow)]
        id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        call_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        content: Option<&'a RawValue>,
    }
    json_strict::survey(value.as_bytes(), &["type", "content", "id", "call_id"])?;
    let item: Wire<'_> = serde_json::from_str(value).map_err(|error| json_strict::malformed(&error))?;
    match item.r#type.as_deref() {
        Some("function_call") => {
            let ids = [item.call_id, item.id].into_iter().flatten();
            found
                .calls
                .extend(ids.filter(|id| id.len() <= NAME).map(Cow::into_owned));
        }
        // A reference is to what is in the conversation already.
        Some("message" | "function_call_output" | "item_reference") | None => {}
        Some(_) => {
            return Err(malformed(
                "Guard does not know this type of item in a conversation, so it does not forward it",
            ));
        }
    }
    let Some(content) = item.content.filter(|raw| raw.get().starts_with('[')) else {
        return Ok(());
    };
    let editor = Editor::new(content.get());
    for part in &editor.array(content.get())?.items {
        if !part.value.starts_with('{') {
            continue;
        }
        json_strict::survey(part.value.as_bytes(), &["type", "image_url", "audio", "text"])?;
        let part = editor.object(part.value)?;
        match part.get("type").map(|kind| kind.value) {
            Some("\"input_text\"" | "\"text\"" | "\"output_text\"" | "\"output_audio\"") | None => {}
            Some("\"input_audio\"" | "\"audio\"") => found.sound = true,
            Some("\"input_image\"") => {
                let inline = |url: &str| {
                    url.get(..6)
                        .is_some_and(|begin| begin.eq_ignore_ascii_case("\"data:"))
                };
                found.unseen |= part.get_set("image_url").is_none_or(|url| !inline(url.value));
            }
            Some(_) => found.unseen = true,
        }
    }
    Ok(())
}
