//! Cutting the connections of a cgroup and of all below it, in the network namespace of the calling thread and in every
//! other one that their threads are in.

use std::{collections::HashSet, fs, io, path::Path};

use crate::kernel::{Cut, cgroup, cut_connections, inside, namespaces_of};

/// Cuts the connections of a cgroup and of all below it.
pub(super) fn cut(id: u64, directory: &Path) {
    let mut ids = HashSet::from([id]);
    let mut threads = Vec::new();
    // A directory that took its place is none of ours; one that is gone has nothing below.
    if cgroup::id_of(directory).is_ok_and(|found| found == id) {
        collect(directory, &mut ids, &mut threads);
    }
    match cut_everywhere(&ids, threads) {
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

/// A namespace in which it fails does not keep it from the others.
fn cut_everywhere(ids: &HashSet<u64>, threads: Vec<u32>) -> io::Result<Cut> {
    let mut outcome = cut_connections(ids);
    for namespace in namespaces_of(threads)? {
        let ids = ids.clone();
        let there = inside(namespace, move || cut_connections(&ids));
        outcome = outcome.and_then(|here| {
            let there = there?;
            Ok(Cut {
                closed: here.closed + there.closed,
                failed: here.failed + there.failed,
            })
        });
    }
    outcome
}

/// The cgroups below a directory, and the threads in all of them.
fn collect(directory: &Path, ids: &mut HashSet<u64>, threads: &mut Vec<u32>) {
    threads.extend(cgroup::threads(directory));
    let Ok(children) = fs::read_dir(directory) else {
        return;
    };
    for child in children.flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.extend(cgroup::id_of(&child.path()));
            collect(&child.path(), ids, threads);
        }
    }
}
