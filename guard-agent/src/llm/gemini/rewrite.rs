//! Edits of a Gemini request, in place, in the spelling that the client uses.

use bytes::Bytes;

use crate::llm::gemini::tools::{either, strip};
use crate::llm::json_edit::Editor;
use crate::llm::{BodyEdits, Malformed, json_strict};

pub(in crate::llm) fn rewrite(body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
    let (text, _) = json_strict::survey(body, &[])?;
    let mut editor = Editor::new(text);
    let root = editor.root()?;
    let mut gone: Vec<String> = Vec::new();
    let mut added = Vec::new();
    if let Some(cap) = edits.output_cap {
        match either(&root, "generationConfig")? {
            Some(config) => {
                let config = editor.object(config.value)?;
                match either(&config, "maxOutputTokens")? {
                    Some(set) => editor.replace(set, cap.to_string()),
                    None => {
                        // A `null` in either spelling would stand beside the new one.
                        editor.reshape(
                            &config,
                            |member| matches!(&*member.name, "maxOutputTokens" | "max_output_tokens"),
                            &[("maxOutputTokens", cap.to_string())],
                        );
                    }
                }
            }
            None => {
                gone.extend(["generationConfig", "generation_config"].map(str::to_owned));
                added.push(("generationConfig", format!("{{\"maxOutputTokens\":{cap}}}")));
            }
        }
    }
    if !edits.strip_tools.is_empty() {
        if edits
            .strip_tools
            .iter()
            .any(|name| name == "cached_content" || name == "response_modalities")
        {
            return Err(Malformed(
                "a stored context or another kind of reply can't be removed from a request".to_owned(),
            ));
        }
        gone.extend(strip(&mut editor, &root, &edits.strip_tools)?);
    }
    editor.reshape(
        &root,
        |member| gone.iter().any(|name| **name == *member.name),
        &added,
    );
    editor.apply().map(Bytes::from)
}
