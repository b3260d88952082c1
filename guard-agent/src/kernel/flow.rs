//! Who opened an accepted connection, asked by descriptor.
//!
//! In: an accepted socket. Out: its record. On failure: the connection has no identity and must be reset.
//! Needs no capability, so a process that holds none can call it.
#![allow(unsafe_code, reason = "a private socket option has no safe wrapper")]

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
};

use guard_common::{
    COMM_LEN,
    flow::{SOCKOPT_FLOW, SOCKOPT_LEVEL},
};

/// The identity of one governed connection, as the kernel saw it at connect.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Flow {
    /// Where the client wanted to go.
    pub original_destination: SocketAddr,
    /// The client socket's cookie: unique while the machine runs.
    pub cookie: u64,
    /// The client's network namespace.
    pub netns_cookie: u64,
    /// The cgroup of the thread that connected.
    pub cgroup_id: u64,
    /// The cgroup in which the socket was made; 0 if that one was not governed then.
    pub creator_cgroup_id: u64,
    /// The governed cgroup that made this connection governed.
    pub governed_cgroup_id: u64,
    /// Its agent.
    pub agent: u32,
    /// The process that connected.
    pub pid: u32,
    /// The thread that connected.
    pub tid: u32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The thread's name. The process chooses it: for people to read, not to decide by.
    pub comm: String,
    /// The monotonic clock at connect.
    pub ktime_ns: u64,
    /// The configuration's generation at connect.
    pub generation: u32,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum NoFlow {
    /// The connection was not redirected: a stray or hostile client of the listener's own port.
    #[error("the connection has no record: it was not redirected by Guard")]
    NoRecord,
    /// No program answers for this socket.
    #[error(
        "no program answers for this socket: it was opened outside the daemon's cgroup, or Guard is detached"
    )]
    NotAttached,
    /// Anything else.
    #[error("the record cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads the record of an accepted connection.
pub fn flow_of(fd: BorrowedFd<'_>) -> Result<Flow, NoFlow> {
    let mut record = guard_common::flow::Flow::default();
    read(fd, SOCKOPT_LEVEL, SOCKOPT_FLOW, &mut record)?;
    Ok(Flow::from(&record))
}

/// Fills a record by the programs' private socket option. Any bytes must make a valid one.
pub(super) fn read<T: aya::Pod>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    record: &mut T,
) -> Result<(), NoFlow> {
    let size = size_of::<T>();
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the buffer is as long as `length` says, and any bytes make a valid record.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(record).cast(),
            &mut length,
        )
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENOENT) => NoFlow::NoRecord,
            Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => NoFlow::NotAttached,
            _ => NoFlow::Io(error),
        });
    }
    if usize::try_from(length).ok() != Some(size) {
        return Err(NoFlow::Io(io::Error::other("a record of another length")));
    }
    Ok(())
}

impl From<&guard_common::flow::Flow> for Flow {
    fn from(record: &guard_common::flow::Flow) -> Self {
        Self {
            original_destination: socket_address(&record.address, record.port),
            cookie: record.cookie,
            netns_cookie: record.netns_cookie,
            cgroup_id: record.cgroup_id,
            creator_cgroup_id: record.creator_cgroup_id,
            governed_cgroup_id: record.governed_cgroup_id,
            agent: record.agent,
            pid: record.pid,
            tid: record.tid,
            uid: record.uid,
            gid: record.gid,
            comm: comm(&record.comm),
            ktime_ns: record.ktime_ns,
            generation: record.generation,
        }
    }
}

/// An address as the programs write it; mapped IPv4 becomes IPv4, which is what the client meant.
pub(super) fn socket_address(words: &[u32; 4], port: u16) -> SocketAddr {
    let mut octets = [0; 16];
    for (octets, word) in octets.chunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port)
}

/// A thread's name up to its terminating zero.
pub(super) fn comm(bytes: &[u8; COMM_LEN]) -> String {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{comm, socket_address};

    fn words(octets: [u8; 16]) -> [u32; 4] {
        let word =
            |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        [word(0), word(4), word(8), word(12)]
    }

    #[test]
    fn a_mapped_address_is_shown_as_the_ipv4_address_that_the_client_meant() {
        let mapped = "::ffff:203.0.113.10".parse::<std::net::Ipv6Addr>().unwrap();
        assert_eq!(
            socket_address(&words(mapped.octets()), 443).to_string(),
            "203.0.113.10:443"
        );
        let native = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap();
        assert_eq!(
            socket_address(&words(native.octets()), 443).to_string(),
            "[2001:db8::7]:443"
        );
    }

    #[test]
    fn a_thread_name_ends_at_its_zero() {
        assert_eq!(comm(b"python3\0garbage\0"), "python3");
        assert_eq!(comm(b"sixteen-bytes-xy"), "sixteen-bytes-xy");
    }
}
