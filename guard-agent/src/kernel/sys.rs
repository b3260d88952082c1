//! The few `bpf(2)` commands that the library lacks: atomic link replacement, queries, and programs that decide what a
//! kernel function returns.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper; each call passes one plain struct"
)]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub(super) mod tcx;

const PROG_LOAD: libc::c_long = 5;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

const TRACING: u32 = 26;
const MODIFY_RETURN: u32 = 26;
/// What the verifier may say about a program that it refuses.
const LOG: usize = 256 * 1024;

/// Programs on one cgroup and hook that [`query`] can return.
const QUERY_MAX: usize = 64;

/// Where a cgroup program can be attached; the numbers are the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getsockopt = 21,
    Setsockopt = 22,
    Peer4 = 29,
    Peer6 = 30,
}

/// What the kernel says about a cgroup link.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    /// The program behind it.
    pub(super) program_id: u32,
    padding: u32,
    /// The cgroup that it is attached to, 0 once that cgroup is gone.
    pub(super) cgroup_id: u64,
    attach_type: u32,
    tail: u32,
}

/// As much of the kernel's as is used here.
#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    attach_type: u32,
    type_information: u32,
    function_record: u32,
    functions: u64,
    function_count: u32,
    line_record: u32,
    lines: u64,
    line_count: u32,
    /// The number of the kernel function.
    function: u32,
}

const _: () = assert!(size_of::<Load>() == 112);

#[repr(C)]
struct Obj {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
struct Create {
    program_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct Tracepoint {
    name: u64,
    program_fd: u32,
    padding: u32,
}

#[repr(C)]
struct Update {
    link_fd: u32,
    new_program_fd: u32,
    flags: u32,
    old_program_fd: u32,
}

#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: each attribute struct above is repr(C) and laid out as this command expects; the kernel takes
    // the missing tail as zero and writes at most `size_of::<T>()` bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned object.
pub(super) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    owned(bpf(
        OBJ_GET,
        &mut Obj {
            path: path.as_ptr() as u64,
            fd: 0,
            flags: 0,
        },
    )?)
}

/// Pins an object.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    bpf(
        OBJ_PIN,
        &mut Obj {
            path: path.as_ptr() as u64,
            fd: raw(fd),
            flags: 0,
        },
    )
    .map(drop)
}

/// Puts a pin in the place of another: the new one is in force before the old one goes.
pub(super) fn replace_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    // bpffs takes no dots in names.
    let mut aside = path.as_os_str().to_owned();
    aside.push("_new");
    // Left behind by a daemon that was killed in between.
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    pin(fd, Path::new(&aside))?;
    std::fs::rename(&aside, path)
}

/// Attaches a program to a cgroup. Links always run beside the links of others; none can replace them.
pub(super) fn link(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, to: AttachType) -> io::Result<OwnedFd> {
    let (program_fd, target_fd) = (raw(program), raw(cgroup));
    owned(bpf(
        LINK_CREATE,
        &mut Create {
            program_fd,
            target_fd,
            attach_type: to as u32,
            flags: 0,
        },
    )?)
}

/// Loads a program that decides what a kernel function returns. An error carries the verifier's log.
pub(super) fn load_modify_return(
    instructions: &[aya_obj::generated::bpf_insn],
    license: &CStr,
    function: u32,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut load = Load {
        kind: TRACING,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        attach_type: MODIFY_RETURN,
        function,
        ..Load::default()
    };
    if let Ok(program) = bpf(PROG_LOAD, &mut load).and_then(owned) {
        return Ok(program);
    }
    // Once more, for its words.
    let mut log = vec![0_u8; LOG];
    load.log_level = 1;
    load.log_size = u32::try_from(log.len()).unwrap_or_default();
    load.log = log.as_mut_ptr() as u64;
    bpf(PROG_LOAD, &mut load).and_then(owned).map_err(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or_default();
        (error, String::from_utf8_lossy(&log[..end]).into_owned())
    })
}

/// Puts a program of [`load_modify_return`] in front of its function.
pub(super) fn link_function(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    owned(bpf(
        LINK_CREATE,
        &mut Create {
            program_fd: raw(program),
            target_fd: 0,
            attach_type: MODIFY_RETURN,
            flags: 0,
        },
    )?)
}

/// Attaches a program to one of the kernel's tracepoints.
pub(super) fn link_tracepoint(program: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(io::Error::other)?;
    owned(bpf(
        RAW_TRACEPOINT_OPEN,
        &mut Tracepoint {
            name: name.as_ptr() as u64,
            program_fd: raw(program),
            padding: 0,
        },
    )?)
}

/// Puts another program behind a link, atomically.
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link_fd, new_program_fd) = (raw(link), raw(program));
    bpf(
        LINK_UPDATE,
        &mut Update {
            link_fd,
            new_program_fd,
            flags: 0,
            old_program_fd: 0,
        },
    )
    .map(drop)
}

/// Whether the kernel knows links whose program can be replaced.
pub(super) fn has_links() -> io::Result<bool> {
    // No process has this descriptor: a kernel that knows the command looks for it and says so.
    let mut nothing = Update {
        link_fd: u32::MAX,
        new_program_fd: u32::MAX,
        flags: 0,
        old_program_fd: 0,
    };
    match bpf(LINK_UPDATE, &mut nothing) {
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("the kernel updated a link that is not there")),
    }
}

/// Describes a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let len = u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?;
    let info_at = std::ptr::from_mut(&mut info) as u64;
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut Info {
            fd: raw(link),
            len,
            info: info_at,
        },
    )?;
    Ok(info)
}

/// The id of a loaded program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // bpf_prog_info begins with its type and its id; the kernel writes as much as there is room for.
    let mut start = [0_u32; 2];
    let len = u32::try_from(size_of_val(&start)).map_err(io::Error::other)?;
    let info_at = std::ptr::from_mut(&mut start) as u64;
    bpf(
        OBJ_GET_INFO_BY_FD,
        &mut Info {
            fd: raw(program),
            len,
            info: info_at,
        },
    )?;
    Ok(start[1])
}

/// The programs attached to this very cgroup at this hook.
pub(super) fn query(cgroup: BorrowedFd<'_>, at: AttachType) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; QUERY_MAX];
    let mut query = Query {
        target_fd: raw(cgroup),
        attach_type: at as u32,
        query_flags: 0,
        attach_flags: 0,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: u32::try_from(ids.len()).map_err(io::Error::other)?,
        padding: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    ids.truncate(usize::try_from(query.program_count).map_err(io::Error::other)?);
    Ok(ids)
}

/// The file system that a path is on, by its magic number.
pub(super) fn filesystem(path: &Path) -> io::Result<libc::c_long> {
    let path = c_path(path)?;
    // SAFETY: all-zero is a valid statfs; the kernel fills it.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is terminated and the struct is ours.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_type)
}

/// The monotonic clock, as the programs read it.
pub(super) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the struct is ours; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
