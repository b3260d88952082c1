//! Cutting the connections of a cgroup and of all below it, in the network namespace of the calling thread.

use std::{collections::HashSet, fs, path::Path};

use crate::kernel::{Cut, cgroup, cut_connections};

/// Cuts the connections of a cgroup and of all below it.
pub(super) fn cut(id: u64, directory: &Path) {
    let mut ids = HashSet::from([id]);
    // A directory that took its place is none of ours; one that is gone has nothing below.
    if cgroup::id_of(directory).is_ok_and(|found| found == id) {
        collect_below(directory, &mut ids);
    }
    match cut_connections(&ids) {
        Ok(Cut { closed: 0, failed: 0 }) => {}
        Ok(cut) => tracing::info!(
            cgroup = %directory.display(),
            closed = cut.closed,
            failed = cut.failed,
            "connections were cut"
        ),
        Err(error) => {
            tracing::error!(%error, cgroup = %directory.display(), "old connections cannot be cut; what they send is dropped");
        }
    }
}

fn collect_below(directory: &Path, ids: &mut HashSet<u64>) {
    let Ok(children) = fs::read_dir(directory) else {
        return;
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.extend(cgroup::id_of(&child.path()));
            collect_below(&child.path(), ids);
        }
    }
}
