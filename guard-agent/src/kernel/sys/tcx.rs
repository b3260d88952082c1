//! Programs on a network device, by links (Linux 6.6).

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use super::{Create, LINK_CREATE, LinkInfo, PROG_QUERY, Query, bpf, owned, raw};

/// What comes in by a device.
const INGRESS: u32 = 46;
/// Every namespace's loopback device.
const LOOPBACK: u32 = 1;

/// Attaches a program to what comes in by this device of the calling thread's network namespace.
pub(in crate::kernel) fn link(program: BorrowedFd<'_>, device: u32) -> io::Result<OwnedFd> {
    owned(bpf(
        LINK_CREATE,
        &mut Create {
            program_fd: raw(program),
            target_fd: device,
            attach_type: INGRESS,
            flags: 0,
        },
    )?)
}

/// Whether the kernel knows such links.
pub(in crate::kernel) fn is_known() -> io::Result<bool> {
    let mut query = Query {
        target_fd: LOOPBACK,
        attach_type: INGRESS,
        query_flags: 0,
        attach_flags: 0,
        program_ids: 0,
        program_count: 0,
        padding: 0,
    };
    match bpf(PROG_QUERY, &mut query) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        // There are some, and no room was given for their numbers.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::ENOENT)) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The device that a link of this kind is on; 0 once that is gone.
pub(in crate::kernel) fn device_of(info: &LinkInfo) -> u32 {
    let [a, b, c, d, ..] = info.cgroup_id.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
