//! Edits of a messages request, in place.

use bytes::Bytes;

use crate::llm::anthropic::request::limits;
use crate::llm::anthropic::tools::{McpServer, name_of};
use crate::llm::json_edit::{Container, Editor};
use crate::llm::{BodyEdits, Malformed, json_strict, note};

pub(super) fn rewrite(body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let (checksum, thinking_budget) = limits(text)?;
    if checksum {
        return Err(Malformed(
            "the body carries a checksum over itself and can't be changed".to_owned(),
        ));
    }
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    let (mut gone, mut added) = (Vec::new(), Vec::new());
    if let Some(cap) = edits.output_cap {
        if thinking_budget.is_some_and(|budget| cap < budget) {
            return Err(Malformed(format!(
                "an output cap of {cap} is below the thinking budget"
            )));
        }
        match root.get("max_tokens") {
            Some(set) => editor.replace(set, cap.to_string()),
            None => added.push(("max_tokens", cap.to_string())),
        }
    }
    if let Some(model) = &edits.model {
        note::set_model(&mut editor, &root, model)?;
    }
    if let Some(text) = &edits.note {
        note::add_note(&mut editor, &root, &note::CHAT, text)?;
    }
    if !edits.strip_tools.is_empty() {
        gone = strip_tools(&mut editor, &root, &edits.strip_tools)?;
    }
    editor.reshape(&root, |member| gone.contains(&&*member.name), &added);
    editor.apply().map(Bytes::from)
}

/// Removes the tools with these names from `tools` and `mcp_servers`; gives the top-level members to remove. A tool
/// added inside a message can't be removed without breaking the conversation's order: an error.
fn strip_tools<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    names: &[String],
) -> Result<Vec<&'static str>, Malformed> {
    let listed = |name: &str| names.iter().any(|listed| listed == name);
    let mut gone = Vec::new();
    let mut servers = Vec::new();
    if let Some(list) = root.get_set("mcp_servers") {
        let list = editor.array(list.value)?;
        for element in &list.items {
            servers.push(server(element.value)?);
        }
        let mut marks = servers.iter().map(|(_, tool)| listed(tool));
        if !servers.is_empty() && servers.iter().all(|(_, tool)| listed(tool)) {
            gone.push("mcp_servers");
        } else {
            editor.reshape(&list, |_| marks.next().unwrap_or(false), &[]);
        }
    }
    // What the model calls a tool, for `tool_choice`: a dated tool's name is not its type.
    let mut called = Vec::new();
    if let Some(list) = root.get_set("tools") {
        let list = editor.array(list.value)?;
        let mut marks = Vec::with_capacity(list.items.len());
        for element in &list.items {
            let strip = listed(&name_of(element.value, &servers)?);
            if strip {
                called.extend(called_name(element.value));
            }
            marks.push(strip);
        }
        if !marks.is_empty() && marks.iter().all(|strip| *strip) {
            gone.extend(["tools", "tool_choice"]);
        } else {
            let mut marks = marks.into_iter();
            editor.reshape(&list, |_| marks.next().unwrap_or(false), &[]);
        }
    }
    if let Some(choice) = root.get_set("tool_choice") {
        let forced = called_name(choice.value);
        if forced.is_some_and(|forced| called.contains(&forced) || listed(&forced))
            && !gone.contains(&"tool_choice")
        {
            gone.push("tool_choice");
        }
    }
    if added_in_messages(root)?.iter().any(|name| listed(name)) {
        return Err(Malformed(
            "a tool that is added inside a message can't be removed".to_owned(),
        ));
    }
    Ok(gone)
}

fn server(element: &str) -> Result<(String, String), Malformed> {
    let server: McpServer<'_> =
        serde_json::from_str(element).map_err(|error| json_strict::malformed(&error))?;
    Ok((server.name().to_owned(), server.tool_name()))
}

/// The `name` in an object.
fn called_name(object: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    serde_json::from_str::<Named>(object).ok().map(|named| named.name)
}

/// Names of the tools that messages add by definition.
fn added_in_messages(root: &Container<'_>) -> Result<Vec<String>, Malformed> {
    match (root.get("messages"), root.get("mcp_servers")) {
        (Some(messages), servers) => {
            super::request::added_in_messages(messages.value, servers.map(|servers| servers.value))
        }
        (None, _) => Ok(Vec::new()),
    }
}
