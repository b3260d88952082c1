//! Cgroup ids and paths. An id is the directory's inode number; it is never used again for another one.
#![allow(unsafe_code, reason = "open_by_handle_at has no safe wrapper")]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use super::sys;

const CGROUP2_MAGIC: libc::c_long = 0x6367_7270;
/// The file handle of a kernfs node is its id.
const FILEID_KERNFS: libc::c_int = 0xfe;
/// The root of a whole hierarchy; a root with another number belongs to a cgroup namespace.
const HIERARCHY_ROOT: u64 = 1;

#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

/// The id of a cgroup directory.
pub fn id_of(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

/// The processes of a cgroup; gone in the meantime is the same as empty.
#[must_use]
pub fn processes(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The threads of a cgroup, by their ids. A threaded cgroup names its processes elsewhere, and a thread may be in
/// namespaces of its own.
pub(super) fn threads(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.threads")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

pub(super) fn id_of_file(cgroup: &File) -> io::Result<u64> {
    Ok(cgroup.metadata()?.ino())
}

/// Whether the path lies in a cgroup hierarchy of version 2.
#[must_use]
pub fn is_cgroup2(path: &Path) -> bool {
    sys::filesystem(path).is_ok_and(|magic| magic == CGROUP2_MAGIC)
}

/// The directory of a cgroup. `mount` is any directory of the hierarchy.
///
/// A removed cgroup answers `ESTALE`: whoever needs the path later must keep it.
pub fn path_of(id: u64, mount: &Path) -> io::Result<PathBuf> {
    let mount = File::open(mount)?;
    let mut handle = Handle {
        bytes: 8,
        kind: FILEID_KERNFS,
        id,
    };
    // SAFETY: Handle is laid out as struct file_handle with an 8 byte handle, as `bytes` says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            std::ptr::from_mut(&mut handle),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    let directory = unsafe { OwnedFd::from_raw_fd(fd) };
    fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// The directory of a process's cgroup, in the hierarchy in which `directory` lies.
///
/// # Errors
/// The process is gone, or the hierarchy is not version 2.
pub fn of_process(pid: u32, directory: &Path) -> io::Result<PathBuf> {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    // The line of version 2 has number 0 and no controllers (cgroups(7)).
    let path = lines
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or_else(|| io::Error::other("the process has no cgroup of version 2"))?;
    let mount = directory
        .ancestors()
        .take_while(|at| is_cgroup2(at))
        .last()
        .ok_or_else(|| io::Error::other(format!("{} is not a cgroup of version 2", directory.display())))?;
    Ok(mount.join(path.trim_start_matches('/')))
}

/// How deep a cgroup lies below its hierarchy's root; none if that cannot be seen from here.
pub(super) fn level_of(path: &Path) -> io::Result<Option<u32>> {
    let mut level = 0;
    let mut at = path;
    loop {
        if id_of(at)? == HIERARCHY_ROOT {
            return Ok(Some(level));
        }
        match at.parent() {
            Some(parent) if is_cgroup2(parent) => at = parent,
            _ => return Ok(None),
        }
        level += 1;
    }
}

/// Whether any process is left in the cgroup or below.
pub(super) fn is_populated(path: &Path) -> io::Result<bool> {
    let events = fs::read_to_string(path.join("cgroup.events"))?;
    Ok(events.lines().any(|line| line == "populated 1"))
}
