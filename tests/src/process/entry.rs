//! From fork to exec: into the cgroup and the namespaces, and down to the user.
#![allow(
    unsafe_code,
    reason = "pre_exec: the cgroup and the namespaces must be joined between fork and exec"
)]

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where a process goes between fork and exec.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) cgroup: Option<RawFd>,
    pub(super) network: Option<RawFd>,
    pub(super) mounts: Option<RawFd>,
    pub(super) user: Option<u32>,
}

impl Entry {
    /// Makes the command go there. The descriptors must stay open until it has been spawned.
    pub(super) fn of(self, command: &mut Command) {
        // SAFETY: `enter` makes only async-signal-safe system calls and allocates nothing.
        unsafe { command.pre_exec(move || self.enter()) };
    }

    fn enter(self) -> io::Result<()> {
        if let Some(fd) = self.cgroup {
            // "0" means the process that writes
            // SAFETY: a plain system call on a descriptor that the parent keeps open until exec, reading one byte of
            // a static string.
            check(unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) })?;
        }
        if let Some(fd) = self.network {
            // SAFETY: as above.
            check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) } as isize)?;
        }
        if let Some(fd) = self.mounts {
            // SAFETY: as above.
            check(unsafe { libc::setns(fd, libc::CLONE_NEWNS) } as isize)?;
        }
        // a session of its own: its children go with it, and no terminal signal reaches it
        // SAFETY: as above.
        check(unsafe { libc::setsid() } as isize)?;
        if let Some(id) = self.user {
            // SAFETY: as above; a count of zero reads no memory.
            check(unsafe { libc::setgroups(0, std::ptr::null()) } as isize)?;
            // SAFETY: as above.
            check(unsafe { libc::setgid(id) } as isize)?;
            // SAFETY: as above.
            check(unsafe { libc::setuid(id) } as isize)?;
        }
        Ok(())
    }
}

fn check(answer: isize) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
