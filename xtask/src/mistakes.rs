//! A copy of the source with mistakes in it: what shows that a test or a fuzz target would notice them.
//!
//! In: which text is to be replaced by which, and where. Out: a tree that can be built. On failure: a mistake does not fit
//! the source any more, and the error says which.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::check::tracked;

/// One replacement. What is replaced stands in its file exactly once.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mistake {
    file: PathBuf,
    find: String,
    replace: String,
}

impl Mistake {
    /// The same, with this word of the replacement replaced.
    pub(crate) fn with(&self, word: &str, by: &str) -> Self {
        Self {
            replace: self.replace.replace(word, by),
            ..self.clone()
        }
    }
}

/// Makes or refreshes a copy of the source with these mistakes in it; each has a name for the error.
///
/// # Errors
/// A mistake does not fit, or a file cannot be read or written.
pub(crate) fn work_in<'a>(
    root: &Path,
    copy: &Path,
    mistakes: impl IntoIterator<Item = (&'a str, Mistake)>,
) -> Result<()> {
    let mut changed: Vec<(PathBuf, String)> = Vec::new();
    for (name, mistake) in mistakes {
        let known = changed.iter().position(|(file, _)| *file == mistake.file);
        let at = match known {
            Some(at) => at,
            None => {
                let path = root.join(&mistake.file);
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                changed.push((mistake.file.clone(), text));
                changed.len() - 1
            }
        };
        let (file, text) = changed.get_mut(at).context("a file that was just read")?;
        ensure!(
            text.matches(&mistake.find).count() == 1,
            "the mistake for {name} does not fit {} any more: what it replaces must stand there exactly once",
            file.display()
        );
        *text = text.replace(&mistake.find, &mistake.replace);
    }
    for file in tracked(root, ".")?.iter().filter(|file| file.is_file()) {
        let file = file.strip_prefix(root)?;
        let text = match changed.iter().find(|(changed, _)| changed == file) {
            Some((_, text)) => text.clone().into_bytes(),
            None => fs::read(root.join(file)).with_context(|| file.display().to_string())?,
        };
        let place = copy.join(file);
        fs::create_dir_all(place.parent().context("a file without a directory")?)?;
        // What did not change keeps its time, so that it is not compiled again.
        if fs::read(&place).ok().as_ref() != Some(&text) {
            fs::write(&place, text)?;
        }
    }
    Ok(())
}
