//! Edits of a Converse request, in place.

use bytes::Bytes;

use crate::llm::bedrock_converse::request::{declared_in_fields, name_of};
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
    let mut elsewhere = false;
    if let Some(fields) = root.get_set("additionalModelRequestFields") {
        // As they are read, not as they are spelt: a name can be written with escapes.
        let fields = declared_in_fields(fields.value)?;
        elsewhere = fields.iter().any(|tool| names.contains(&tool.name));
    }
    if elsewhere
        || left
            .iter()
            .any(|name| matches!(*name, "stored_prompt" | "guardrail"))
    {
        return Err(Malformed(
            "a tool in `additionalModelRequestFields`, a stored prompt or a guardrail can't be removed"
                .to_owned(),
        ));
    }
    Ok(none_left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_for_the_model_itself_is_not_left_in_by_another_spelling_of_its_name() {
        let edits = BodyEdits {
            strip_tools: vec!["Bash".to_owned()],
            ..BodyEdits::default()
        };
        for name in ["Bash", r"B\u0061sh"] {
            let body = format!(
                r#"{{"messages":[],"additionalModelRequestFields":{{"tools":[{{"name":"{name}"}}]}}}}"#
            );
            let error = rewrite(&Bytes::from(body), &edits).unwrap_err();
            assert!(error.to_string().contains("can't be removed"), "{name}: {error}");
        }
        let other = r#"{"messages":[],"additionalModelRequestFields":{"tools":[{"name":"Read"}]}}"#;
        assert_eq!(rewrite(&Bytes::from(other), &edits).unwrap(), other);
    }
}
