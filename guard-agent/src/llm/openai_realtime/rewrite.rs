//! Edits of a message that asks for a response or says what later ones are like, in place.

use bytes::Bytes;

use super::request::Shape;
use crate::llm::json_edit::{Container, Editor};
use crate::llm::mentions::{Where, mentions};
use crate::llm::openai_responses::rewrite::{Left, strip_list};
use crate::llm::{BodyEdits, Malformed, json_strict};

pub(super) fn rewrite(shape: Shape, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    // By its type, as it is read: a member that belongs to the other kind says nothing.
    let kind = root
        .get("type")
        .and_then(|kind| serde_json::from_str::<String>(kind.value).ok());
    let name = match kind.as_deref() {
        Some("response.create") => "response",
        _ => "session",
    };
    let Some(inner) = root.get_set(name) else {
        let added = edits
            .output_cap
            .map(|cap| format!("{{\"{}\":{cap}}}", shape.cap()));
        let added: Vec<_> = added.map(|value| (name, value)).into_iter().collect();
        editor.reshape(&root, |member| member.name == name, &added);
        return editor.apply().map(Bytes::from);
    };
    let inner = editor.object(inner.value)?;
    let mut added = Vec::new();
    if let Some(cap) = edits.output_cap {
        let names = [Shape::Current.cap(), Shape::Preview.cap()];
        let mut set = false;
        for known in names.iter().filter_map(|name| inner.get(name)) {
            editor.replace(known, cap.to_string());
            set = true;
        }
        if !set {
            added.push((shape.cap(), cap.to_string()));
        }
    }
    let gone = if edits.strip_tools.is_empty() {
        Vec::new()
    } else {
        strip(&mut editor, &inner, &edits.strip_tools)?
    };
    editor.reshape(&inner, |member| gone.contains(&&*member.name), &added);
    editor.apply().map(Bytes::from)
}

/// Removes the tools with these names; gives the members to remove.
fn strip<'a>(
    editor: &mut Editor<'a>,
    inner: &Container<'a>,
    names: &[String],
) -> Result<Vec<&'static str>, Malformed> {
    let listed = |name: &str| names.iter().any(|listed| listed == name);
    let mut gone = Vec::new();
    if let Some(list) = inner.get_set("tools")
        && strip_list(editor, list, &listed)? == Left::Nothing
    {
        // An empty list takes away what was declared before; without one that would stay.
        editor.replace(list, "[]");
        gone.push("tool_choice");
    }
    if inner.get_set("prompt").is_some() && listed("stored_prompt") {
        return Err(Malformed(
            "a stored prompt can't be removed from a session".to_owned(),
        ));
    }
    let choice = inner.get("tool_choice").filter(|_| gone.is_empty());
    if choice.is_some_and(|choice| mentions(choice.value, Where::Named, &listed)) {
        gone.push("tool_choice");
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_put_where_the_type_of_the_message_says_whatever_else_is_in_it() {
        let edits = BodyEdits {
            output_cap: Some(9),
            ..BodyEdits::default()
        };
        let capped = |message: &'static str| {
            let message = Bytes::from_static(message.as_bytes());
            rewrite(Shape::Current, &message, &edits).unwrap()
        };
        let out = capped(r#"{"type":"response.create","session":{}}"#);
        assert_eq!(
            out,
            r#"{"type":"response.create","session":{},"response":{"max_output_tokens":9}}"#
        );
        let out = capped(r#"{"type":"session.update","session":{"voice":"a"},"response":{}}"#);
        assert_eq!(
            out,
            r#"{"type":"session.update","session":{"voice":"a","max_output_tokens":9},"response":{}}"#
        );
    }
}
