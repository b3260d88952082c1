//! One walk over the cgroup tree: which directories match, and which have to be watched.

use std::fs;
use std::path::{Path, PathBuf};

use super::pattern::Pattern;
use crate::kernel::cgroup;

/// What a walk found.
#[derive(Default)]
pub(super) struct Found {
    /// Cgroup id, agent, directory.
    pub(super) matching: Vec<(u64, u32, PathBuf)>,
    /// Where new matches may appear.
    pub(super) watch: Vec<PathBuf>,
}

/// Walks only the directories on the way to a possible match. `names` are those from `root` to `directory`.
pub(super) fn scan(
    patterns: &[Pattern],
    root: &Path,
    directory: &Path,
    names: &mut Vec<String>,
    found: &mut Found,
) {
    let parts: Vec<&str> = names.iter().map(String::as_str).collect();
    if !patterns.iter().any(|pattern| pattern.might_lie_below(&parts)) {
        return;
    }
    if let Some(agent) = agent_of(patterns, root, directory)
        && let Ok(id) = cgroup::id_of(directory)
    {
        found.matching.push((id, agent, directory.to_owned()));
    }
    found.watch.push(directory.to_owned());
    // Gone in the meantime: the next event or scan sees it.
    let Ok(children) = fs::read_dir(directory) else {
        return;
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(child.file_name().to_string_lossy().into_owned());
            scan(patterns, root, &child.path(), names, found);
            names.pop();
        }
    }
}

/// The agent whose pattern matches this directory.
pub(super) fn agent_of(patterns: &[Pattern], root: &Path, directory: &Path) -> Option<u32> {
    let path = relative(root, directory);
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    patterns
        .iter()
        .find(|pattern| pattern.matches(&names))
        .map(|pattern| pattern.agent)
}

/// A directory as it is written in patterns: from the root, with a leading slash.
pub(super) fn relative(root: &Path, directory: &Path) -> String {
    let below = directory.strip_prefix(root).unwrap_or(directory);
    format!("/{}", below.to_string_lossy().trim_start_matches('/'))
}
