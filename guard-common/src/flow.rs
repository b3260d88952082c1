//! Who opened a connection, and where to: written at connect, read from the accepted socket.

use crate::COMM_LEN;

/// The option level of the private `getsockopt` that answers with a [`Flow`].
///
/// No protocol uses it, so that the kernel itself always answers `ENOPROTOOPT` and an absent program
/// can be told from an absent record.
pub const SOCKOPT_LEVEL: i32 = 0x6775;
/// The option name that goes with [`SOCKOPT_LEVEL`].
pub const SOCKOPT_FLOW: i32 = 1;

/// The identity of one redirected connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The client socket's cookie: unique while the machine runs.
    pub cookie: u64,
    /// The network namespace in which the connection was opened.
    pub netns_cookie: u64,
    /// The cgroup of the task that called `connect`.
    pub cgroup_id: u64,
    /// The cgroup in which the socket was made, 0 if that one was not governed.
    pub creator_cgroup_id: u64,
    /// The key in `AGENTS` that made this connection governed.
    pub governed_cgroup_id: u64,
    /// The monotonic clock at connect.
    pub ktime_ns: u64,
    /// The original destination as an IPv6 address in network order (IPv4 as `::ffff:a.b.c.d`).
    pub address: [u32; 4],
    /// The agent that `AGENTS` named.
    pub agent: u32,
    /// The process (thread group) that connected.
    pub pid: u32,
    /// The thread that connected.
    pub tid: u32,
    /// The user that connected.
    pub uid: u32,
    /// The group that connected.
    pub gid: u32,
    /// The configuration generation that was in force.
    pub generation: u32,
    /// The original destination's port, host order.
    pub port: u16,
    /// The port that the connection was sent to: tells this record's connection from a later one of the
    /// same socket.
    pub listener_port: u16,
    /// Zero; keeps the layout free of implicit padding.
    pub reserved: u32,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A connection between its SYN and its acceptance; IPv4 in mapped form, so that both ends agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey {
    /// The namespace that holds both ends.
    pub netns_cookie: u64,
    /// The client's address, network order.
    pub client: [u32; 4],
    /// The listener's address, network order.
    pub server: [u32; 4],
    /// The client's port, host order.
    pub client_port: u32,
    /// The listener's port, host order.
    pub server_port: u32,
}

/// What `socket()` left on a socket of a governed process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tag {
    /// The cgroup of the task that made the socket.
    pub cgroup_id: u64,
    /// The key in `AGENTS` that governed it then.
    pub governed_cgroup_id: u64,
}

const _: () = assert!(size_of::<Flow>() == 112 && align_of::<Flow>() == 8);
const _: () = assert!(size_of::<FlowKey>() == 48);
const _: () = assert!(size_of::<Tag>() == 16);

#[cfg(feature = "user")]
mod user {
    #![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]
    // SAFETY: repr(C), only integers, no padding (the sizes are asserted above).
    unsafe impl aya::Pod for super::Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Tag {}
}
