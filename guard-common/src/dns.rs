//! Who sent a DNS query over UDP, and to which resolver: written when the packet passes, asked for by the daemon.

use crate::flow::Flow;

/// The port of DNS, over UDP and TCP.
pub const DNS_PORT: u16 = 53;

/// The option level of the private `getsockopt` that answers with a [`Query`], on the daemon's own UDP sockets.
///
/// The option name says which one: see [`option_name`]. A socket option has no other way to ask.
pub const SOCKOPT_QUERY_LEVEL: i32 = 0x6776;

/// Queries whose sender is known. An evicted one is refused, so that pressure un-governs nobody.
pub const MAX_QUERIES: u32 = 8192;

/// A query on its way; with the namespace this is all that an option name can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct QueryKey {
    /// The namespace that holds both ends.
    pub netns_cookie: u64,
    /// The client's port, host order.
    pub client_port: u16,
    /// The message's id, as a number.
    pub id: u16,
    /// Zero.
    pub reserved: u32,
}

/// One query: its sender, and the resolver that it was meant for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Query {
    /// As for a connection; the original destination is the resolver.
    pub flow: Flow,
    /// The client's address, network order, IPv4 in mapped form. Two sockets may have one port: the daemon compares.
    pub client: [u32; 4],
    /// The monotonic clock when the packet passed.
    pub ktime_ns: u64,
}

/// The option name by which a query is asked for.
#[must_use]
pub const fn option_name(client_port: u16, id: u16) -> i32 {
    ((client_port as u32) << 16 | id as u32).cast_signed()
}

const _: () = assert!(size_of::<QueryKey>() == 16);
const _: () = assert!(size_of::<Query>() == 136 && align_of::<Query>() == 8);

#[cfg(feature = "user")]
mod user {
    #![allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]
    // SAFETY: repr(C), only integers, no padding (the sizes are asserted above).
    unsafe impl aya::Pod for super::QueryKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Query {}
}
