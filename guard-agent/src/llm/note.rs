//! What a soft limit puts into a request: another model's name, and a note for the model behind the last message.
//!
//! In: the body, and where its format keeps its messages. Out: edits of the text in place. On failure: `Malformed`. The
//! note stands at the end, so that everything before it is still what a prompt cache knows.

use crate::llm::json_edit::{Container, Editor, Item};
use crate::llm::{Malformed, Takes, json_strict};

/// Where a format keeps what is said.
pub(crate) struct Messages {
    /// The list of messages.
    pub(crate) list: &'static str,
    /// A part of a message that is text, up to its text.
    pub(crate) part: &'static str,
}

/// OpenAI chat completions and their kin.
pub(crate) const CHAT: Messages = Messages {
    list: "messages",
    part: r#"{"type":"text","text":"#,
};

/// OpenAI responses.
pub(crate) const RESPONSES: Messages = Messages {
    list: "input",
    part: r#"{"type":"input_text","text":"#,
};

/// What a body can take.
pub(crate) fn takes(body: &[u8], messages: &Messages) -> Takes {
    let look = || -> Result<Takes, Malformed> {
        let (text, _) = json_strict::survey(body, &[])?;
        let editor = Editor::new(text);
        let root = editor.root()?;
        Ok(Takes {
            model: names_model(&root),
            note: last(&editor, &root, messages)?.is_some(),
        })
    };
    look().unwrap_or_default()
}

/// Whether the body itself names the model.
pub(crate) fn names_model(root: &Container<'_>) -> bool {
    root.get("model")
        .is_some_and(|model| model.value.starts_with('"'))
}

/// Names another model.
pub(crate) fn set_model(editor: &mut Editor<'_>, root: &Container<'_>, model: &str) -> Result<(), Malformed> {
    let named = root.get("model").filter(|_| names_model(root));
    let named = named.ok_or_else(|| Malformed("the body names no model that could be changed".to_owned()))?;
    editor.replace(named, quote(model));
    Ok(())
}

/// Adds a note behind what was said last.
pub(crate) fn add_note<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    messages: &Messages,
    note: &str,
) -> Result<(), Malformed> {
    let content = last(editor, root, messages)?;
    let content = content.ok_or_else(|| Malformed("there is no place for a note".to_owned()))?;
    if let Some(open) = content.value.strip_suffix('"') {
        // The text goes on, after an empty line.
        let quoted = quote(note);
        let more = quoted.strip_prefix('"').unwrap_or_default();
        editor.replace(&content, format!("{open}\\n\\n{more}"));
        return Ok(());
    }
    let parts = editor.array(content.value)?;
    editor.push(&parts, format!("{}{}}}", messages.part, quote(note)));
    Ok(())
}

/// The content of the last message, if the model did not say it and it is text or a list of parts.
fn last<'a>(
    editor: &Editor<'a>,
    root: &Container<'a>,
    messages: &Messages,
) -> Result<Option<Item<'a>>, Malformed> {
    let Some(list) = root.get(messages.list) else {
        return Ok(None);
    };
    // The input of a response may be one text.
    if list.value.starts_with('"') {
        return Ok(Some(list.clone()));
    }
    if !list.value.starts_with('[') {
        return Ok(None);
    }
    let Some(message) = editor.array(list.value)?.items.pop() else {
        return Ok(None);
    };
    if !message.value.starts_with('{') {
        return Ok(None);
    }
    let message = editor.object(message.value)?;
    let is = |name: &str, value: &str| message.get(name).is_some_and(|item| item.value == value);
    let content = if is("role", "\"user\"") || is("role", "\"tool\"") {
        message.get("content")
    } else if is("type", "\"function_call_output\"") {
        message.get("output")
    } else {
        None
    };
    Ok(content
        .filter(|content| content.value.starts_with(['"', '[']))
        .cloned())
}

fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use crate::llm::provider::dialect_of;
    use crate::llm::{BodyEdits, DialectKind, Takes};

    fn edited(kind: DialectKind, body: &Value) -> Option<Value> {
        let body = Bytes::from(body.to_string());
        let dialect = dialect_of(kind);
        let takes = dialect.takes(&body);
        let edits = BodyEdits {
            model: takes.model.then(|| "small".to_owned()),
            note: takes.note.then(|| "Be \"brief\".".to_owned()),
            ..BodyEdits::default()
        };
        if edits.is_empty() {
            assert_eq!(takes, Takes::default());
            return None;
        }
        let edited = dialect.rewrite(&body, &edits).unwrap();
        dialect.request(&edited).unwrap();
        Some(serde_json::from_slice(&edited).unwrap())
    }

    #[test]
    fn a_note_stands_behind_what_was_said_last_and_the_rest_stays() {
        let text = "hello\n\nBe \"brief\".";
        let part = json!({"type": "text", "text": "Be \"brief\"."});
        for (kind, last, wanted) in [
            (
                DialectKind::OpenaiChat,
                json!({"role": "user", "content": "hello"}),
                json!({"role": "user", "content": text}),
            ),
            (
                DialectKind::OpenaiChat,
                json!({"role": "tool", "tool_call_id": "c", "content": "hello"}),
                json!({"role": "tool", "tool_call_id": "c", "content": text}),
            ),
            (
                DialectKind::OpenaiChat,
                json!({"role": "user", "content": [{"type": "text", "text": "hello"}]}),
                json!({"role": "user", "content": [{"type": "text", "text": "hello"}, part]}),
            ),
            (
                DialectKind::AnthropicMessages,
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]}),
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}, part]}),
            ),
            (
                DialectKind::AnthropicMessages,
                json!({"role": "user", "content": "hello"}),
                json!({"role": "user", "content": text}),
            ),
        ] {
            let before = json!({"role": "user", "content": "first"});
            let body = json!({"model": "large", "max_tokens": 5, "messages": [before, last]});
            let wanted = json!({"model": "small", "max_tokens": 5, "messages": [before, wanted]});
            assert_eq!(edited(kind, &body), Some(wanted));
        }
        for (last, wanted) in [
            (json!("hello"), json!(text)),
            (
                json!([{"role": "user", "content": "hello"}]),
                json!([{"role": "user", "content": text}]),
            ),
            (
                json!([{"type": "function_call_output", "call_id": "c", "output": "hello"}]),
                json!([{"type": "function_call_output", "call_id": "c", "output": text}]),
            ),
            (
                json!([{"role": "user", "content": []}]),
                json!([{"role": "user", "content": [{"type": "input_text", "text": "Be \"brief\"."}]}]),
            ),
        ] {
            let body = json!({"model": "large", "input": last});
            let wanted = json!({"model": "small", "input": wanted});
            assert_eq!(edited(DialectKind::OpenaiResponses, &body), Some(wanted));
        }
    }

    #[test]
    fn what_the_model_said_itself_is_not_added_to() {
        for kind in [DialectKind::OpenaiChat, DialectKind::AnthropicMessages] {
            let body = json!({"model": "large", "max_tokens": 5, "messages": [{"role": "assistant", "content": "I"}]});
            let takes = dialect_of(kind).takes(body.to_string().as_bytes());
            assert_eq!((takes.model, takes.note), (true, false));
        }
        // Where the path names the model, the body does not.
        let takes = dialect_of(DialectKind::BedrockConverse).takes(b"{\"messages\":[]}");
        assert_eq!(takes, Takes::default());
    }
}
