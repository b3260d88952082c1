//! Edits of a responses request, in place.

use bytes::Bytes;

use crate::llm::json_edit::{Container, Editor, Item};
use crate::llm::mentions::{Where, mentions};
use crate::llm::openai_responses::tools::{is_namespace, names_of};
use crate::llm::{BodyEdits, Malformed, json_strict, note};

pub(super) fn rewrite(body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    let (mut gone, mut added) = (Vec::new(), Vec::new());
    if let Some(cap) = edits.output_cap {
        match root.get("max_output_tokens") {
            Some(set) => editor.replace(set, cap.to_string()),
            None => added.push(("max_output_tokens", cap.to_string())),
        }
    }
    if let Some(model) = &edits.model {
        note::set_model(&mut editor, &root, model)?;
    }
    if let Some(text) = &edits.note {
        note::add_note(&mut editor, &root, &note::RESPONSES, text)?;
    }
    if !edits.strip_tools.is_empty() {
        gone = strip_tools(&mut editor, &root, &edits.strip_tools)?;
    }
    editor.reshape(&root, |member| gone.contains(&&*member.name), &added);
    editor.apply().map(Bytes::from)
}

/// Removes the tools with these names wherever this format declares tools; gives the top-level members to remove.
fn strip_tools<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    names: &[String],
) -> Result<Vec<&'static str>, Malformed> {
    let listed = |name: &str| names.iter().any(|listed| listed == name);
    let mut gone = Vec::new();
    if let Some(list) = root.get_set("tools")
        && strip_list(editor, list, &listed)? == Left::Nothing
    {
        gone.extend(["tools", "tool_choice", "parallel_tool_calls"]);
    }
    for field in ["prompt", "plugins"] {
        let name = if field == "prompt" { "stored_prompt" } else { field };
        if root.get_set(field).is_some() && listed(name) {
            // A stored prompt is the request itself: without it another one would be sent.
            if field == "prompt" {
                return Err(Malformed(
                    "a stored prompt can't be removed from a request".to_owned(),
                ));
            }
            gone.push("plugins");
        }
    }
    strip_input(editor, root, &listed)?;
    let choice = root.get("tool_choice").filter(|_| !gone.contains(&"tool_choice"));
    if choice.is_some_and(|choice| mentions(choice.value, Where::Named, &listed)) {
        gone.push("tool_choice");
    }
    Ok(gone)
}

/// What is left of a list.
#[derive(PartialEq, Eq)]
pub(in crate::llm) enum Left {
    Something,
    Nothing,
}

/// Removes tools from one list of them, which is a member of an object. The list itself stays.
pub(in crate::llm) fn strip_list<'a>(
    editor: &mut Editor<'a>,
    list: &Item<'a>,
    listed: &impl Fn(&str) -> bool,
) -> Result<Left, Malformed> {
    let list = editor.array(list.value)?;
    let mut marks = Vec::with_capacity(list.items.len());
    for element in &list.items {
        let names = names_of(element.value)?;
        let all = !names.is_empty() && names.iter().all(|name| listed(name));
        marks.push(all);
        let some = names.iter().any(|name| listed(name));
        if some && !all && is_namespace(element.value) {
            let namespace = editor.object(element.value)?;
            if let Some(members) = namespace.get_set("tools") {
                strip_list(editor, members, listed)?;
            }
        }
    }
    if marks.is_empty() || !marks.iter().all(|gone| *gone) {
        let mut marks = marks.into_iter();
        editor.reshape(&list, |_| marks.next().unwrap_or(false), &[]);
        return Ok(Left::Something);
    }
    Ok(Left::Nothing)
}

/// Removes tools from the items of the input that bring some in; an item that brings in nothing else goes.
fn strip_input<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    listed: &impl Fn(&str) -> bool,
) -> Result<(), Malformed> {
    let Some(input) = root.get_set("input").filter(|input| input.value.starts_with('[')) else {
        return Ok(());
    };
    let input = editor.array(input.value)?;
    let mut marks = Vec::with_capacity(input.items.len());
    for element in &input.items {
        let mut gone = false;
        if element.value.starts_with('{') {
            let item = editor.object(element.value)?;
            if let Some(list) = item.get_set("tools")
                && strip_list(editor, list, listed)? == Left::Nothing
            {
                // The answer to a call must stay, without its tools; a bare addition is nothing without them.
                let addition = item
                    .get("type")
                    .is_some_and(|kind| kind.value == "\"additional_tools\"");
                if addition {
                    gone = true;
                } else {
                    editor.replace(list, "[]");
                }
            }
        }
        marks.push(gone);
    }
    let mut marks = marks.into_iter();
    editor.reshape(&input, |_| marks.next().unwrap_or(false), &[]);
    Ok(())
}
