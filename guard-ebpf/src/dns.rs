//! DNS over UDP: every query goes to Guard's socket in the caller's own namespace, with its sender known.
//!
//! In: a destination with port 53, whatever its address (Docker's and systemd's resolvers live on loopback). Out: the
//! destination rewritten, the record in the socket's storage, and at the second line, where the packet has its source
//! port, the record under the packet's own marks. On failure: the call is refused; a packet without record arrives, and
//! the daemon refuses to answer it.

use aya_ebpf::bindings::{__sk_buff, bpf_sock_addr};
use guard_common::{
    dns::{DNS_PORT, Query, QueryKey},
    flow::Flow,
};

use crate::{
    address::{LOOPBACK_V4, LOOPBACK_V6, field, mapped},
    caller,
    egress::{load, socket, word},
    maps::{CLIENT, QUERIES},
    storage,
};

const IPPROTO_UDP: u32 = 17;
const UDP_HEADER: usize = 8;
/// An IPv4 header without options and the UDP header; then the id.
const V4_LENGTH: usize = 20 + UDP_HEADER + 2;
const V6_LENGTH: usize = 40 + UDP_HEADER + 2;

/// Whether a UDP destination is a resolver's.
#[inline(always)]
pub(crate) fn is_query(ctx: *mut bpf_sock_addr, port: u16) -> bool {
    port == DNS_PORT && field!(ctx, protocol) == IPPROTO_UDP
}

/// A packet of a governed socket that stays on loopback: if it is a query for Guard, its sender is noted.
#[inline(always)]
pub(crate) fn publish(skb: *mut __sk_buff) {
    // Nothing to note is not a failure here: without a record the daemon refuses.
    let _noted = try_publish(skb);
}

#[inline(always)]
fn try_publish(skb: *mut __sk_buff) -> Option<()> {
    let sk = socket(skb)?;
    if field!(sk, protocol) != IPPROTO_UDP {
        return None;
    }
    let flow: *const Flow = storage::get(&CLIENT, sk.cast())?;
    // SAFETY: the verifier knows the pointer as a live storage value.
    let flow = unsafe { *flow };
    let packet = read(skb)?;
    if packet.to != flow.listener_port {
        return None;
    }
    let key = QueryKey {
        netns_cookie: flow.netns_cookie,
        client_port: packet.from,
        id: packet.id,
        reserved: 0,
    };
    let query = Query {
        flow,
        client: packet.client,
        ktime_ns: caller::now(),
    };
    QUERIES.insert(&key, &query, 0).ok()
}

struct Packet {
    client: [u32; 4],
    from: u16,
    to: u16,
    id: u16,
}

/// A plain UDP datagram to loopback, long enough to have an id.
#[inline(always)]
fn read(skb: *mut __sk_buff) -> Option<Packet> {
    match load::<1>(skb, 0)?[0] {
        0x45 => {
            let bytes = load::<V4_LENGTH>(skb, 0)?;
            let server = mapped(word(&bytes, 16));
            (u32::from(bytes[9]) == IPPROTO_UDP && server == LOOPBACK_V4).then(|| Packet {
                client: mapped(word(&bytes, 12)),
                from: half(&bytes, 20),
                to: half(&bytes, 22),
                id: half(&bytes, 28),
            })
        }
        first if first >> 4 == 6 => {
            let bytes = load::<V6_LENGTH>(skb, 0)?;
            let server = [
                word(&bytes, 24),
                word(&bytes, 28),
                word(&bytes, 32),
                word(&bytes, 36),
            ];
            (u32::from(bytes[6]) == IPPROTO_UDP && server == LOOPBACK_V6).then(|| Packet {
                client: [
                    word(&bytes, 8),
                    word(&bytes, 12),
                    word(&bytes, 16),
                    word(&bytes, 20),
                ],
                from: half(&bytes, 40),
                to: half(&bytes, 42),
                id: half(&bytes, 48),
            })
        }
        _ => None,
    }
}

#[inline(always)]
fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
