//! Cgroups that no pattern brought in: those of `guard-agent run`, and those that somebody else made and will remove.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    GovernedCgroup,
    cut::cut,
    scan::{is_gone, relative},
    set::{Entry, Origin, Shared, State},
};
use crate::kernel::cgroup;

/// Where `guard-agent run` makes its cgroups: `/guard.slice/<agent>/<run>`.
const RUN_SLICE: &str = "guard.slice";

impl Shared {
    /// A run of an earlier daemon goes on: its directory is its id.
    pub(super) fn adopt_runs(&self, state: &mut State) {
        for (id, agent) in self.kernel.governed() {
            if state.known.contains_key(&id) {
                continue;
            }
            let path = cgroup::path_of(id, &self.root).ok();
            if let Some((path, run)) = path.as_deref().and_then(|path| run_of(&self.root, path)) {
                if self.kernel.was_direct() {
                    cut(id, &self.directory(&path));
                }
                let cgroup = GovernedCgroup { agent, run, path };
                state.known.insert(
                    id,
                    Entry {
                        cgroup,
                        origin: Origin::Run,
                        enters_until: Instant::now(),
                    },
                );
            }
        }
    }

    /// Removes the cgroups of runs whose last process is gone, and lets go what its owner removed.
    pub(super) fn end_runs(&self, state: &mut State) {
        let adopted: Vec<(u64, PathBuf)> = state
            .known
            .iter()
            .filter(|(_, entry)| entry.origin != Origin::Pattern)
            .map(|(id, entry)| (*id, self.directory(&entry.cgroup.path)))
            .collect();
        for (id, directory) in adopted {
            // A container that starts again gets a cgroup of the same name.
            if cgroup::id_of(&directory).is_ok_and(|now| now != id) {
                self.let_go(state, id);
                continue;
            }
            match cgroup::is_populated(&directory) {
                Ok(true) => {
                    if let Some(entry) = state.known.get_mut(&id) {
                        entry.enters_until = Instant::now();
                    }
                }
                Ok(false)
                    if state
                        .known
                        .get(&id)
                        .is_some_and(|entry| entry.origin != Origin::Run) => {}
                Ok(false)
                    if state
                        .known
                        .get(&id)
                        .is_some_and(|entry| entry.enters_until > Instant::now()) => {}
                Ok(false) => {
                    if remove_tree(&directory).is_ok() {
                        self.let_go(state, id);
                    }
                }
                Err(error) if is_gone(&error) => self.let_go(state, id),
                Err(error) => tracing::warn!(%error, cgroup = %directory.display(), "cannot look at a run"),
            }
        }
    }
}

/// `/guard.slice/<agent>/<run>`, as `guard-agent run` makes them.
fn run_of(root: &Path, directory: &Path) -> Option<(String, String)> {
    let path = relative(root, directory);
    let mut names = path.split('/').skip(1);
    let (slice, _agent, run) = (names.next()?, names.next()?, names.next()?);
    (slice == RUN_SLICE && names.next().is_none()).then(|| (path.clone(), run.to_owned()))
}

/// An agent may have made cgroups of its own below its run; they are empty too.
fn remove_tree(directory: &Path) -> io::Result<()> {
    for child in fs::read_dir(directory)?.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path())?;
        }
    }
    fs::remove_dir(directory)
}
