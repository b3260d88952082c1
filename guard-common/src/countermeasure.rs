//! Each thing that stops a way around Guard, by a name of its own, so that the lab can switch one off and
//! watch the attack succeed: a test that passes without its counter-measure proves nothing.
//!
//! The daemon cannot switch any of them off, and switches all of them on when it starts.

/// One counter-measure: a bit of [`crate::policy::Config::disabled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Countermeasure {
    /// `connect`: TCP goes to the listener.
    Redirect = 0,
    /// The current task's cgroup makes a call governed.
    CurrentTask = 1,
    /// The cgroup of the socket's creator does, too.
    Creator = 2,
    /// An ancestor's registration covers what is below it.
    Ancestors = 3,
    /// A namespace without listener is refused.
    Listener = 4,
    /// `connect` on UDP sockets.
    DatagramConnect = 5,
    /// `sendmsg` on unconnected UDP sockets.
    DatagramSend = 6,
    /// `socket()` for transports that no other hook sees.
    SocketKind = 7,
    /// `socket()` for Multipath TCP.
    Multipath = 8,
    /// `connect` on sockets that are bound to a device.
    DeviceBound = 9,
    /// `connect` to IPv6 link-local addresses.
    LinkLocal = 10,
    /// `connect` to the listener itself.
    ProxyPort = 11,
    /// `connect` to loopback ports that the daemon keeps for the host.
    DeniedPort = 12,
    /// `bind` to either.
    BindPort = 13,
    /// `setsockopt` with a route of its own.
    SocketOption = 14,
    /// The second line: packets that leave by a device other than loopback.
    Egress = 15,
    /// DNS over UDP goes to Guard's own socket.
    Dns = 16,
    /// `socket()` of families that no cgroup hook sees.
    Family = 17,
    /// Loopback listeners that no governed process made.
    Relay = 18,
    /// Frames of such families at the host's end of a veth pair.
    Edge = 19,
    /// A new cgroup of a name that agents' units have is held back until it is known.
    Name = 20,
}

impl Countermeasure {
    /// Every one.
    pub const ALL: [Self; 21] = [
        Self::Redirect,
        Self::CurrentTask,
        Self::Creator,
        Self::Ancestors,
        Self::Listener,
        Self::DatagramConnect,
        Self::DatagramSend,
        Self::SocketKind,
        Self::Multipath,
        Self::DeviceBound,
        Self::LinkLocal,
        Self::ProxyPort,
        Self::DeniedPort,
        Self::BindPort,
        Self::SocketOption,
        Self::Egress,
        Self::Dns,
        Self::Family,
        Self::Relay,
        Self::Edge,
        Self::Name,
    ];

    /// Its bit.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}
