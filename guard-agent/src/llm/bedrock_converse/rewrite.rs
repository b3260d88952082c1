//! Edits of a Converse request, in place.

use bytes::Bytes;

use crate::llm::bedrock_converse::request::name_of;
use crate::llm::json_edit::{Container, Editor};
use crate::llm::mentions::{Where, mentions};
use crate::llm::{BodyEdits, Malformed, json_strict};

pub(super) fn rewrite(body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    let (mut gone, mut added) = (Vec::new(), Vec::new());
    if let Some(cap) = edits.output_cap
        && let Some(whole) = editor.set_inside(&root, "inferenceConfig", "maxTokens", cap.to_string())?
    {
        gone.push("inferenceConfig");
        added.push(("inferenceConfig", whole));
    }
    if !edits.strip_tools.is_empty() && strip_tools(&mut editor, &root, &edits.strip_tools)? {
        gone.push("toolConfig");
    }
    editor.reshape(&root, |member| gone.contains(&&*member.name), &added);
    editor.apply().map(Bytes::from)
}

/// Removes the tools with these names from `toolConfig`; whether nothing of it is left. A tool in the fields for the
/// model itself can't be removed: an error.
fn strip_tools<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    names: &[String],
) -> Result<bool, Malformed> {
    let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut none_left = false;
    if let Some(config) = root.get_set("toolConfig") {
        let config = editor.object(config.value)?;
        if let Some(tools) = config.get_set("tools") {
            let list = editor.array(tools.value)?;
            let mut marks = Vec::with_capacity(list.items.len());
            let mut stay = 0_usize;
            for element in &list.items {
                let name = name_of(element.value)?.map(|tool| tool.name);
                let strip = name.as_ref().is_some_and(|name| names.contains(name));
                if let Some(name) = name.as_deref().filter(|_| strip) {
                    left.retain(|other| *other != name);
                }
                stay += usize::from(name.is_some() && !strip);
                marks.push(strip);
            }
            none_left = stay == 0;
            if !none_left {
                let mut marks = marks.into_iter();
                editor.reshape(&list, |_| marks.next().unwrap_or(false), &[]);
                if let Some(choice) = config.get_set("toolChoice") {
                    let listed = |name: &str| names.iter().any(|listed| listed == name);
                    if mentions(choice.value, Where::Named, &listed) {
                        editor.reshape(&config, |member| member.name == "toolChoice", &[]);
                    }
                }
            }
        }
    }
    let elsewhere = root
        .get_set("additionalModelRequestFields")
        .is_some_and(|fields| {
            left.iter()
                .any(|name| fields.value.contains(&format!("\"{name}\"")))
        });
    if elsewhere
        || left
            .iter()
            .any(|name| matches!(*name, "stored_prompt" | "guardrail" | "mcp:unreadable"))
    {
        return Err(Malformed(
            "a tool in `additionalModelRequestFields`, a stored prompt or a guardrail can't be removed"
                .to_owned(),
        ));
    }
    Ok(none_left)
}
