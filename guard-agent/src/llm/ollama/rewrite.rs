//! Edits of a request to Ollama, in place.

use bytes::Bytes;

use crate::llm::json_edit::Editor;
use crate::llm::ollama::request::Tool;
use crate::llm::{BodyEdits, Malformed, json_strict};

pub(super) fn rewrite(body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    let (mut gone, mut added) = (Vec::new(), Vec::new());
    if let Some(cap) = edits.output_cap
        && let Some(whole) = editor.set_inside(&root, "options", "num_predict", cap.to_string())?
    {
        gone.push("options");
        added.push(("options", whole));
    }
    if !edits.strip_tools.is_empty()
        && let Some(list) = root.get_set("tools")
    {
        let list = editor.array(list.value)?;
        let mut marks = Vec::with_capacity(list.items.len());
        for element in &list.items {
            let tool: Tool<'_> =
                serde_json::from_str(element.value).map_err(|error| json_strict::malformed(&error))?;
            marks.push(edits.strip_tools.contains(&tool.name()?));
        }
        if !marks.is_empty() && marks.iter().all(|gone| *gone) {
            gone.push("tools");
        } else {
            let mut marks = marks.into_iter();
            editor.reshape(&list, |_| marks.next().unwrap_or(false), &[]);
        }
    }
    editor.reshape(&root, |member| gone.contains(&&*member.name), &added);
    editor.apply().map(Bytes::from)
}
