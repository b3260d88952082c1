//! What the daemon tells the programs: the values of the policy maps, and the counters that come back.

/// `Config::flags`: while the daemon's heartbeat is stale, governed processes are left alone.
pub const FAIL_OPEN: u32 = 1;
/// `Config::flags`: governed sockets do not answer connections from outside.
pub const REFUSE_INBOUND: u32 = 2;
/// `Config::flags`: while the daemon's heartbeat is stale, whoever is not identified yet is left alone.
pub const FAIL_OPEN_UNKNOWN: u32 = 4;
/// `Config::flags`: new cgroups whose names begin as one of `NAMES` are held back until they are known.
pub const HOLD_NAMES: u32 = 8;

/// `AgentEntry::flags`: this agent's sockets do not answer connections from outside.
pub const AGENT_REFUSES_INBOUND: u32 = 1;
/// `AgentEntry::flags`: this agent does not reach loopback, a resolver on it apart.
pub const AGENT_REFUSES_LOOPBACK: u32 = 2;

/// `AgentEntry::flags`: this agent does not reach listeners on loopback that no governed process made, unless they are
/// listed.
pub const AGENT_REFUSES_RELAYS: u32 = 4;

/// `NetnsEntry::flags`: the namespace has `::1`, so that IPv6 connections can stay IPv6.
pub const HAS_V6_LOOPBACK: u16 = 1;

/// The deepest cgroup level (root is 0) at which an agent can be registered, plus one.
pub const MAX_LEVEL: u32 = 16;

/// The agent number of whoever is held back because nobody has said yet who it is; no agent has it.
pub const UNIDENTIFIED: u32 = 0;

/// Entries of `PARENTS`.
pub const MAX_PARENTS: u32 = 64;
/// Entries of `KNOWN`. A full map holds the next container back; nothing is evicted.
pub const MAX_KNOWN: u32 = 16_384;
/// Entries of `AGENTS`. A full map refuses the next agent; nothing is evicted.
pub const MAX_AGENTS: u32 = 4096;
/// Entries of `NAMES`: two for each of four units of as many agents as there may be.
pub const MAX_NAMES: u32 = 32_768;
/// Entries of `HELD`. While it is full a new cgroup is not held back.
pub const MAX_HELD: u32 = 4096;
/// Bytes of a cgroup's name that are compared, and a zero after them.
pub const NAME_LEN: usize = 64;
/// Entries of `RELAYS`.
pub const MAX_RELAYS: u32 = 4096;
/// Relays that are remembered as reported; the oldest is forgotten.
pub const MAX_SEEN: u32 = 1024;
/// How long one is.
pub const MAX_SEEN_NS: u64 = 60_000_000_000;
/// Entries of `NETNS`.
pub const MAX_NETNS: u32 = 4096;
/// Entries of `DENY_PORTS`.
pub const MAX_DENY_PORTS: u32 = 64;
/// Connections between SYN and acceptance.
pub const MAX_FLOWS: u32 = 16_384;
/// Bytes of the ring buffer of denials.
pub const EVENTS_BYTES: u32 = 1 << 20;

/// The one entry of `CFG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// [`FAIL_OPEN`], [`REFUSE_INBOUND`], [`FAIL_OPEN_UNKNOWN`], [`HOLD_NAMES`].
    pub flags: u32,
    /// Bit N: some agent is registered at cgroup level N. Keeps the look-up short for everyone else.
    pub levels: u32,
    /// The configuration's generation, copied into each record.
    pub generation: u32,
    /// Bit N: some parent of containers is registered at cgroup level N.
    pub parent_levels: u32,
    /// The monotonic clock when the daemon last said that it lives.
    pub heartbeat_ns: u64,
    /// How old the heartbeat may be before [`FAIL_OPEN`] and [`FAIL_OPEN_UNKNOWN`] apply.
    pub heartbeat_timeout_ns: u64,
    /// Counter-measures that the lab switched off ([`crate::countermeasure`]); zero in a daemon.
    pub disabled: u32,
    /// Zero.
    pub reserved_tail: u32,
}

/// A governed cgroup: the value of `AGENTS`, keyed by cgroup id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentEntry {
    /// The agent's number in the configuration.
    pub agent: u32,
    /// [`AGENT_REFUSES_INBOUND`], [`AGENT_REFUSES_LOOPBACK`], [`AGENT_REFUSES_RELAYS`].
    pub flags: u32,
}

/// The listener of a network namespace: the value of `NETNS`, keyed by namespace cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NetnsEntry {
    /// The listener's port on loopback, host order.
    pub port: u16,
    /// [`HAS_V6_LOOPBACK`].
    pub flags: u16,
    /// Zero.
    pub reserved: u32,
}

/// Where the kernel's own structures keep what is read of a new cgroup, in bytes: the one entry of `LAYOUT`. Read from the
/// kernel's type information by the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// `cgroup.root`.
    pub root: u32,
    /// `cgroup.level`.
    pub level: u32,
    /// `cgroup.kn`.
    pub node: u32,
    /// `cgroup_root.hierarchy_id`.
    pub hierarchy: u32,
    /// `kernfs_node.id`.
    pub id: u32,
    /// `kernfs_node.name`.
    pub name: u32,
}

/// An index of the per-CPU array `STATS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stat {
    /// Connections sent to a listener.
    Redirected = 0,
    /// Calls refused.
    Refused = 1,
    /// Refusals that found the ring buffer full.
    EventsLost = 2,
    /// Records that found `FLOWS` full: those connections arrive without identity and are reset.
    PublishFailed = 3,
    /// Socket storage that could not be had: those calls were refused.
    StorageFailed = 4,
    /// Records moved onto an accepted socket.
    Moved = 5,
    /// Accepted sockets that could not take their record: those connections are reset.
    MoveFailed = 6,
    /// Governed connections let through because the owner chose `when_down = "direct"`.
    FailedOpen = 7,
    /// DNS queries (or UDP sockets connected for them) sent to Guard's own socket.
    DnsRedirected = 8,
}

/// The key of `RELAYS`: an agent and a loopback port.
#[inline(always)]
#[must_use]
pub const fn relay(agent: u32, port: u16) -> u64 {
    (agent as u64) << 16 | port as u64
}

/// How many counters `STATS` has (room to grow without a new layout).
pub const STATS: u32 = 32;

const _: () = assert!(size_of::<Config>() == 40 && align_of::<Config>() == 8);
const _: () = assert!(size_of::<AgentEntry>() == 8);
const _: () = assert!(size_of::<NetnsEntry>() == 8);
const _: () = assert!(size_of::<Layout>() == 24);

#[cfg(feature = "user")]
mod user {
    #![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]
    // SAFETY: repr(C), only integers, no padding (the sizes are asserted above).
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AgentEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::NetnsEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Layout {}
}
