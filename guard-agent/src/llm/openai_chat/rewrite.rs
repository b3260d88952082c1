//! Edits of a chat completions request, in place.

use bytes::Bytes;

use crate::llm::json_edit::{Container, Editor};
use crate::llm::openai_chat::CapField;
use crate::llm::openai_chat::request::{LIVE_SEARCH, WEB_SEARCH, names_of};
use crate::llm::{BodyEdits, Malformed, json_strict, note};

/// Top-level changes, gathered before the object is reshaped once.
#[derive(Default)]
struct Plan {
    gone: Vec<&'static str>,
    added: Vec<(&'static str, String)>,
}

pub(super) fn rewrite(body: &Bytes, edits: &BodyEdits, cap_field: CapField) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    let mut plan = Plan::default();
    if let Some(cap) = edits.output_cap {
        set_cap(&mut editor, &root, &mut plan, cap, cap_field);
    }
    // Without a stream the API refuses `stream_options`, and the plain reply has usage anyway.
    if edits.include_usage && root.get("stream").is_some_and(|stream| stream.value == "true") {
        include_usage(&mut editor, &root, &mut plan)?;
    }
    if let Some(model) = &edits.model {
        note::set_model(&mut editor, &root, model)?;
    }
    if let Some(text) = &edits.note {
        note::add_note(&mut editor, &root, &note::CHAT, text)?;
    }
    if !edits.strip_tools.is_empty() {
        strip_tools(&mut editor, &root, &mut plan, &edits.strip_tools)?;
    }
    editor.reshape(&root, |member| plan.gone.contains(&&*member.name), &plan.added);
    editor.apply().map(Bytes::from)
}

/// Sets every cap that the client set; adds one if it set none. Both at once are refused by the API, so a second one is
/// never added; a newer name that the provider may ignore gives way to the older one.
fn set_cap<'a>(editor: &mut Editor<'a>, root: &Container<'a>, plan: &mut Plan, cap: u64, field: CapField) {
    let names = match field {
        CapField::MaxCompletionTokens => ["max_completion_tokens", "max_tokens"],
        CapField::MaxTokens => ["max_tokens", "max_completion_tokens"],
    };
    if field == CapField::MaxTokens && root.get_set(names[0]).is_none() && root.get_set(names[1]).is_some() {
        plan.gone.push(names[1]);
        match root.get(names[0]) {
            Some(null) => editor.replace(null, cap.to_string()),
            None => plan.added.push((names[0], cap.to_string())),
        }
        return;
    }
    let set: Vec<_> = names.iter().filter_map(|name| root.get_set(name)).collect();
    if set.is_empty() {
        match root.get(names[0]) {
            Some(null) => editor.replace(null, cap.to_string()),
            None => plan.added.push((names[0], cap.to_string())),
        }
    }
    for item in set {
        editor.replace(item, cap.to_string());
    }
}

fn include_usage<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    plan: &mut Plan,
) -> Result<(), Malformed> {
    const ASK: &str = r#"{"include_usage":true}"#;
    match root.get("stream_options") {
        None => plan.added.push(("stream_options", ASK.to_owned())),
        Some(null) if null.value == "null" => editor.replace(null, ASK),
        Some(options) => {
            let options = editor.object(options.value)?;
            match options.get("include_usage") {
                Some(asked) => editor.replace(asked, "true"),
                None => {
                    editor.reshape(&options, |_| false, &[("include_usage", "true".to_owned())]);
                }
            }
        }
    }
    Ok(())
}

/// Removes the tools with these names wherever this format declares tools, and what would refer to them.
fn strip_tools<'a>(
    editor: &mut Editor<'a>,
    root: &Container<'a>,
    plan: &mut Plan,
    names: &[String],
) -> Result<(), Malformed> {
    let listed = |name: &str| names.iter().any(|listed| listed == name);
    for (field, last_gone) in [
        ("tools", &["tools", "tool_choice", "parallel_tool_calls"][..]),
        ("functions", &["functions", "function_call"]),
        ("plugins", &["plugins"]),
    ] {
        let Some(list) = root.get_set(field) else { continue };
        let list = editor.array(list.value)?;
        let mut gone = Vec::with_capacity(list.items.len());
        for element in &list.items {
            gone.push(names_of(field, element.value)?.iter().any(|name| listed(name)));
        }
        if gone.iter().any(|gone| *gone) && gone.iter().all(|gone| *gone) {
            plan.gone.extend(last_gone);
        } else {
            let mut gone = gone.into_iter();
            editor.reshape(&list, |_| gone.next().unwrap_or(false), &[]);
        }
    }
    for (field, name) in [
        ("web_search_options", WEB_SEARCH),
        ("search_parameters", LIVE_SEARCH),
    ] {
        if listed(name) && root.get(field).is_some() {
            plan.gone.push(field);
        }
    }
    for field in ["tool_choice", "function_call"] {
        let choice = root
            .get(field)
            .filter(|choice| !plan.gone.contains(&&*choice.name));
        if choice.is_some_and(|choice| mentions(choice.value, &listed)) {
            plan.gone.push(field);
        }
    }
    Ok(())
}

/// Whether a tool choice has one of the names in it, at any depth (`allowed_tools` lists several).
fn mentions(choice: &str, listed: &impl Fn(&str) -> bool) -> bool {
    fn any(value: &serde_json::Value, listed: &impl Fn(&str) -> bool) -> bool {
        match value {
            serde_json::Value::Object(members) => members.iter().any(|(name, value)| {
                let named = matches!(name.as_str(), "name" | "type") && value.as_str().is_some_and(listed);
                named || any(value, listed)
            }),
            serde_json::Value::Array(elements) => elements.iter().any(|value| any(value, listed)),
            _ => false,
        }
    }
    serde_json::from_str(choice).is_ok_and(|value| any(&value, listed))
}
