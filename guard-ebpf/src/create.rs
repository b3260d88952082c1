//! `socket()`: marks the sockets of governed processes, and refuses transports that no other hook sees.
//!
//! In: a new IPv4 or IPv6 socket. Out: the socket with its tag. On failure: EPERM, or EPROTONOSUPPORT for
//! Multipath TCP so that its users fall back to TCP.

use aya_ebpf::bindings::bpf_sock;
use guard_common::{countermeasure::Countermeasure, event::Reason, flow::Tag, policy::Stat};

use crate::{
    address::field,
    caller,
    maps::TAG,
    refuse::{ALLOW, Attempt, count, refuse},
    storage,
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_MPTCP: u32 = 262;

#[inline(always)]
pub(crate) fn create(ctx: *mut bpf_sock) -> i32 {
    let Some(who) = caller::governed_task() else {
        return ALLOW;
    };
    let (kind, protocol) = (field!(ctx, type_), field!(ctx, protocol));
    let reason = match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_TCP) | (SOCK_DGRAM, IPPROTO_UDP) => {
            let mut tag = Tag {
                cgroup_id: caller::task().cgroup_id,
                governed_cgroup_id: who.cgroup_id,
            };
            if storage::put(&TAG, ctx.cast(), &mut tag) {
                return ALLOW;
            }
            count(Stat::StorageFailed);
            Reason::Storage
        }
        (_, IPPROTO_MPTCP) => Reason::Multipath,
        _ => Reason::SocketKind,
    };
    let off = match reason {
        Reason::Multipath => !who.enforces(Countermeasure::Multipath),
        Reason::SocketKind => !who.enforces(Countermeasure::SocketKind),
        _ => false,
    };
    if off {
        return ALLOW;
    }
    let attempt = Attempt {
        netns_cookie: 0,
        address: [0; 4],
        port: 0,
        protocol: protocol as u16,
    };
    refuse(&who, &attempt, reason)
}
