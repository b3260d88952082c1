//! One walk over the cgroup tree: which directories match, and which have to be watched.

use std::fs;
use std::io;
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
    /// A directory that is there could not be looked at (no memory, no descriptors): nothing follows from what is not
    /// in the lists above.
    pub(super) incomplete: Option<io::Error>,
}

impl Found {
    /// The value, if there is one; what is gone in the meantime the next event or scan sees.
    fn seen<T>(&mut self, outcome: io::Result<T>) -> Option<T> {
        let error = match outcome {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        if !is_gone(&error) {
            self.incomplete = Some(error);
        }
        None
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
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
        && let Some(id) = found.seen(cgroup::id_of(directory))
    {
        found.matching.push((id, agent, directory.to_owned()));
    }
    found.watch.push(directory.to_owned());
    let Some(children) = found.seen(fs::read_dir(directory)) else {
        return;
    };
    for child in children {
        let Some(child) = found.seen(child) else { continue };
        if found.seen(child.file_type()).is_some_and(|kind| kind.is_dir()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::governed::pattern;

    #[test]
    fn what_is_gone_is_not_there_and_what_cannot_be_looked_at_is_not_known() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let patterns = pattern::parse(&[(1, vec!["/a/*".to_owned()])]).unwrap();
        let of = |directory: &Path| {
            let mut found = Found::default();
            scan(&patterns, home.path(), directory, &mut Vec::new(), &mut found);
            found.incomplete.is_some()
        };
        assert!(!of(home.path()));
        assert!(!of(&home.path().join("gone")));
        assert!(of(&file), "it is there, and it cannot be listed");
    }
}
