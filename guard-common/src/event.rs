//! What the programs tell the daemon: one record per refused call, through a ring buffer.

use crate::COMM_LEN;

/// Why a program refused a call.
///
/// The numbers are part of the layout; new reasons go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    /// The caller's network namespace has no listener, or is not known at all.
    NoListener = 1,
    /// A socket's storage could not hold the record.
    Storage = 2,
    /// A UDP destination other than DNS or loopback (QUIC among them).
    Udp = 3,
    /// A transport that is neither TCP nor UDP.
    Protocol = 4,
    /// An IPv6 link-local destination: its scope would be lost.
    LinkLocal = 5,
    /// A socket bound to a device would leave by that device whatever its destination says.
    DeviceBound = 6,
    /// The listener itself as destination.
    ProxyPort = 7,
    /// A loopback port that the daemon keeps for the host (metrics).
    DeniedPort = 8,
    /// `bind` to the listener's or a denied port.
    BindPort = 9,
    /// `socket()` for raw, ping, SCTP, UDP-Lite and the like.
    SocketKind = 10,
    /// `socket()` for Multipath TCP, which would hide its subflows.
    Multipath = 11,
    /// The caller is in a new container that nobody has identified yet.
    Unidentified = 12,
    /// `setsockopt` with an option that gives packets a route of their own.
    SocketOption = 13,
    /// A packet that was about to leave by a device other than loopback.
    Egress = 14,
    /// Loopback, which this agent's `egress` rules refuse.
    Loopback = 15,
    /// `socket()` of a family other than IPv4, IPv6, local and netlink, or a frame of such a socket at the host's end of
    /// a veth pair.
    Family = 16,
    /// A loopback listener that no governed process made, and that the agent's rules do not list.
    Relay = 17,
    /// The same, seen and let pass: the agent's rules allow what they do not list.
    RelayPassed = 18,
}

/// Every reason, in the order of their numbers.
pub const REASONS: [Reason; 18] = [
    Reason::NoListener,
    Reason::Storage,
    Reason::Udp,
    Reason::Protocol,
    Reason::LinkLocal,
    Reason::DeviceBound,
    Reason::ProxyPort,
    Reason::DeniedPort,
    Reason::BindPort,
    Reason::SocketKind,
    Reason::Multipath,
    Reason::Unidentified,
    Reason::SocketOption,
    Reason::Egress,
    Reason::Loopback,
    Reason::Family,
    Reason::Relay,
    Reason::RelayPassed,
];

impl Reason {
    /// The reason with this number, if this version knows it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        REASONS.get(index).copied()
    }

    /// A stable name for logs, metrics and audit records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoListener => "no_listener",
            Self::Storage => "storage",
            Self::Udp => "udp",
            Self::Protocol => "protocol",
            Self::LinkLocal => "link_local",
            Self::DeviceBound => "device_bound",
            Self::ProxyPort => "proxy_port",
            Self::DeniedPort => "denied_port",
            Self::BindPort => "bind_port",
            Self::SocketKind => "socket_kind",
            Self::Multipath => "multipath",
            Self::Unidentified => "unidentified",
            Self::SocketOption => "socket_option",
            Self::Egress => "egress",
            Self::Loopback => "loopback",
            Self::Family => "family",
            Self::Relay => "relay",
            Self::RelayPassed => "relay_passed",
        }
    }
}

/// One refused call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The monotonic clock.
    pub ktime_ns: u64,
    /// The cgroup of the task; of the socket for what was refused as a packet.
    pub cgroup_id: u64,
    /// The key in `AGENTS` that made the call governed.
    pub governed_cgroup_id: u64,
    /// The namespace, 0 where the hook cannot tell.
    pub netns_cookie: u64,
    /// The destination in the form of [`crate::flow::Flow::address`]; zero for `socket()` and `setsockopt`.
    pub address: [u32; 4],
    /// A [`Reason`].
    pub reason: u32,
    /// The agent.
    pub agent: u32,
    /// The process; 0 for a packet, where whoever happens to run is not the sender.
    pub pid: u32,
    /// The user.
    pub uid: u32,
    /// The destination's port, host order.
    pub port: u16,
    /// The IP protocol number (262 for Multipath TCP); the option's level for `setsockopt`; for [`Reason::Family`] the
    /// family.
    pub protocol: u16,
    /// Zero.
    pub reserved: u32,
    /// The thread's name; empty for a packet.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Event>() == 88 && align_of::<Event>() == 8);

#[cfg(feature = "user")]
mod user {
    #![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]
    // SAFETY: repr(C), only integers, no padding (the size is asserted above).
    unsafe impl aya::Pod for super::Event {}
}

#[cfg(test)]
mod tests {
    use super::{REASONS, Reason};

    #[test]
    fn every_reason_is_found_by_its_own_number() {
        for reason in REASONS {
            assert_eq!(Reason::from_number(reason as u32), Some(reason));
        }
        assert_eq!(Reason::from_number(0), None);
        assert_eq!(Reason::from_number(REASONS.len() as u32 + 1), None);
    }
}
