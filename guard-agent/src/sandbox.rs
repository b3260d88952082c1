//! What the worker gives up before it reads a byte of anybody's.
//!
//! In: a process that is already nobody's superuser, and the one directory that it may write. Out: the same process
//! without a way to gain privileges, with the system calls of a network service and no others, and without most of the
//! file system. On failure: the worker does not start; only Landlock may be missing on an older kernel, which is logged.
//!
//! Call [`enter`] before any thread is started: what is given up here is given up for every thread that follows.

use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid, getgroups, getppid};

mod files;
mod syscalls;

/// Gives everything up but what a network service needs, and `state_dir`.
///
/// # Errors
/// The process still has privileges, or the kernel refuses to take them away.
pub fn enter(state_dir: &Path) -> anyhow::Result<()> {
    if geteuid().is_root() || getegid().as_raw() == 0 {
        bail!("the worker runs as root: it must run as a user of its own");
    }
    // Group 0, or any other that came along, may open what the user may not.
    let further = getgroups().context("the groups of this process cannot be read")?;
    if further.iter().any(|group| *group != getegid()) {
        bail!("the worker has further groups: {further:?}");
    }
    prctl::set_no_new_privs().context("the way to new privileges cannot be closed")?;
    // No core dump, no debugger, no descriptor taken by another process of the same user: the keys are in this memory.
    prctl::set_dumpable(false).context("the memory of this process cannot be closed to others")?;
    files::restrict(state_dir).context("the file system cannot be closed off")?;
    syscalls::restrict().context("system calls cannot be restricted")
}

/// From now on this process dies with the one that started it.
///
/// # Errors
/// That one has died already.
pub fn die_with_parent() -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("the worker cannot be bound to the keeper")?;
    if getppid().as_raw() == 1 {
        bail!("the keeper is gone");
    }
    Ok(())
}
