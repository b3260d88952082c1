//! `guard-agent run`: a cgroup for one command.
//!
//! In: the asking process and an agent. Out: the process inside a new, already governed cgroup, and its environment.
//! On failure: the process stays where it was, and the cgroup is removed again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ulid::Ulid;

use crate::identify::number;
use crate::kernel::governed::GovernedSet;
use crate::seam::Run;

/// Below the cgroup root; `systemd/guard.slice` is the same cgroup where systemd runs.
const SLICE: &str = "guard.slice";

/// Makes the cgroup, governs it, and only then moves the process in, so that no call of the command is ever ungoverned.
pub(super) fn start(root: &Path, governed: &GovernedSet, agent: &str, pid: u32) -> Result<Run, String> {
    let id = Ulid::new().to_string();
    let relative: PathBuf = [SLICE, agent, &id].iter().collect();
    let directory = root.join(&relative);
    fs::create_dir_all(&directory).map_err(|why| said("cannot make the cgroup", &directory, &why))?;
    let entered = governed
        .adopt_run(&directory, number(agent), &id)
        .map_err(|why| why.to_string())
        .and_then(|()| enter(&directory, pid));
    if let Err(why) = entered {
        // Left empty, it would be removed a few seconds later anyway.
        if let Err(kept) = fs::remove_dir(&directory) {
            tracing::debug!(%kept, directory = %directory.display(), "the cgroup of a run that did not start stays for now");
        }
        return Err(why);
    }
    Ok(Run {
        id,
        cgroup: format!("/{}", relative.display()),
    })
}

fn enter(directory: &Path, pid: u32) -> Result<(), String> {
    let file = directory.join("cgroup.procs");
    fs::write(&file, pid.to_string()).map_err(|why| said("cannot move the process into", &file, &why))
}

fn said(what: &str, path: &Path, why: &io::Error) -> String {
    format!("{what} {}: {why}", path.display())
}
