//! The second line: what a governed cgroup's sockets put on a device other than loopback.
//!
//! In: a packet of a socket that was made in a governed cgroup (the program is attached to each of them, so
//! nobody else pays). Out: pass for loopback and for answers to clients from outside. On
//! failure: dropped, counted and reported; a UDP sender sees EPERM, TCP times out.
//!
//! It judges by the device, never by the address: a packet to 127.0.0.1 can leave the machine. Neighbour
//! discovery needs no exception, since the kernel sends it from sockets of its own. DNS needs none either: it goes
//! to Guard's sockets on loopback. Here a query's sender is noted (`dns`), since only now it has a source port.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{
        bpf_get_socket_uid, bpf_sk_fullsock, bpf_skb_ancestor_cgroup_id, bpf_skb_cgroup_id,
        bpf_skb_load_bytes,
    },
};
use guard_common::{
    COMM_LEN,
    countermeasure::Countermeasure,
    event::{Event, Reason},
    policy::{AGENT_REFUSES_INBOUND, AgentEntry, Config, FAIL_OPEN, MAX_LEVEL, REFUSE_INBOUND, Stat},
};

use crate::{
    address::{LOOPBACK_IFINDEX, field, mapped},
    caller, dns,
    maps::{AGENTS, CFG, EVENTS, INBOUND},
    refuse::count,
    storage,
};

const DROP: i32 = 0;
const PASS: i32 = 1;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const LISTEN: u32 = 10;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
/// More fragments, or not the first one: what follows the header need not be a transport header.
const FRAGMENT: u16 = 0x3fff;

/// A packet as far as it matters here.
pub(crate) struct Packet {
    /// In mapped form.
    pub(crate) destination: [u32; 4],
    pub(crate) protocol: u8,
    /// Host order; 0 if there is no transport header where it is usual.
    pub(crate) port: u16,
    /// Where the transport header starts; 0 if it does not follow a plain IP header.
    pub(crate) transport: u32,
}

#[inline(always)]
pub(crate) fn egress(skb: *mut __sk_buff) -> i32 {
    if field!(skb, ifindex) == LOOPBACK_IFINDEX {
        dns::publish(skb);
        return PASS;
    }
    let Some(config) = CFG.get(0) else { return DROP };
    if config.disabled & Countermeasure::Egress.bit() != 0 || caller::is_direct(config, FAIL_OPEN) {
        return PASS;
    }
    let packet = Packet::read(skb);
    if let Some(packet) = &packet
        && is_answer(skb, packet, config)
    {
        return PASS;
    }
    count(Stat::Refused);
    let packet = packet.unwrap_or(Packet {
        destination: [0; 4],
        protocol: 0,
        port: 0,
        transport: 0,
    });
    let who = owner(skb, config).map_or((0, 0), |(id, entry)| (id, entry.agent));
    report(skb, Reason::Egress, who, &packet);
    DROP
}

impl Packet {
    #[inline(always)]
    fn read(skb: *mut __sk_buff) -> Option<Self> {
        let version = load::<1>(skb, 0)?[0] >> 4;
        let mut packet = match version {
            4 => Self::v4(&load::<V4_HEADER>(skb, 0)?),
            6 => Self::v6(&load::<V6_HEADER>(skb, 0)?),
            _ => return None,
        };
        if packet.transport != 0
            && let Some([_, _, high, low]) = load::<4>(skb, packet.transport)
        {
            packet.port = u16::from_be_bytes([high, low]);
        }
        Some(packet)
    }

    /// A header with options is never a plain one: options carry routes.
    #[inline(always)]
    fn v4(header: &[u8; V4_HEADER]) -> Self {
        let plain = header[0] & 0xf == 5 && u16::from_be_bytes([header[6], header[7]]) & FRAGMENT == 0;
        Self {
            destination: mapped(word(header, 16)),
            protocol: header[9],
            port: 0,
            transport: if plain { V4_HEADER as u32 } else { 0 },
        }
    }

    /// Extension headers are not followed: nothing that may leave has any.
    #[inline(always)]
    fn v6(header: &[u8; V6_HEADER]) -> Self {
        let protocol = header[6];
        let plain = matches!(protocol, IPPROTO_TCP | IPPROTO_UDP);
        Self {
            destination: [
                word(header, 24),
                word(header, 28),
                word(header, 32),
                word(header, 36),
            ],
            protocol,
            port: 0,
            transport: if plain { V6_HEADER as u32 } else { 0 },
        }
    }
}

/// Whether this answers a client from outside. The only sure sign is a listener that sends SYN and ACK: it is
/// marked then, and each socket that is accepted from it inherits the mark. A later `connect` on any of them
/// takes the mark away. (Under SYN cookies that packet has no socket, and a connection from outside fails.)
#[inline(always)]
fn is_answer(skb: *mut __sk_buff, packet: &Packet, config: &Config) -> bool {
    if config.flags & REFUSE_INBOUND != 0 || packet.protocol != IPPROTO_TCP || packet.transport == 0 {
        return false;
    }
    if let Some((_, entry)) = owner(skb, config)
        && entry.flags & AGENT_REFUSES_INBOUND != 0
    {
        return false;
    }
    let Some(sk) = socket(skb) else { return false };
    if field!(sk, state) != LISTEN {
        return storage::get(&INBOUND, sk.cast::<c_void>()).is_some();
    }
    let Some([flags]) = load::<1>(skb, packet.transport + 13) else {
        return false;
    };
    flags & (SYN | ACK) == SYN | ACK && storage::put(&INBOUND, sk.cast::<c_void>(), &mut 1)
}

/// The whole socket: for a connection that is being accepted, its listener.
#[inline(always)]
pub(crate) fn socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    let sk = field!(skb, __bindgen_anon_2.sk);
    if sk.is_null() {
        return None;
    }
    // SAFETY: the verifier knows the pointer as a socket that is not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    (!sk.is_null()).then_some(sk)
}

/// Not `refuse`: a packet may leave long after the call, in the time of any other process. `who` is the governed cgroup
/// and its agent.
#[inline(always)]
pub(crate) fn report(skb: *mut __sk_buff, reason: Reason, who: (u64, u32), packet: &Packet) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Stat::EventsLost);
        return;
    };
    entry.write(Event {
        ktime_ns: caller::now(),
        // SAFETY: the context pointer comes from the kernel.
        cgroup_id: unsafe { bpf_skb_cgroup_id(skb) },
        governed_cgroup_id: who.0,
        netns_cookie: 0,
        address: packet.destination,
        reason: reason as u32,
        agent: who.1,
        pid: 0,
        // SAFETY: the context pointer comes from the kernel.
        uid: unsafe { bpf_get_socket_uid(skb) },
        port: packet.port,
        protocol: u16::from(packet.protocol),
        reserved: 0,
        comm: [0; COMM_LEN],
    });
    entry.submit(0);
}

/// The nearest registered cgroup above the socket's own.
#[inline(always)]
pub(crate) fn owner(skb: *mut __sk_buff, config: &Config) -> Option<(u64, AgentEntry)> {
    let mut level = MAX_LEVEL;
    while level > 1 {
        level -= 1;
        if config.levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: the context pointer comes from the kernel; 0 if the cgroup is not that deep.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
        // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
        if let Some(entry) = unsafe { AGENTS.get(id) } {
            return Some((id, *entry));
        }
    }
    None
}

/// Bytes of the packet, counted from its IP header.
#[inline(always)]
pub(crate) fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the buffer is as long as stated; the helper checks the packet's own length.
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (failed == 0).then_some(bytes)
}

/// Four bytes of an address, in network order.
#[inline(always)]
pub(crate) fn word<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
