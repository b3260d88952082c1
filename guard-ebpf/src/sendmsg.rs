//! `sendmsg` on an unconnected UDP socket: governed processes reach DNS and loopback, no QUIC.
//!
//! In: the datagram's destination. Out: pass. On failure: EPERM.

use aya_ebpf::bindings::bpf_sock_addr;
use guard_common::{countermeasure::Countermeasure, event::Reason};

use crate::{
    address::{Target, field, netns, sk},
    caller,
    connect::{datagram_allowed, refuses_loopback},
    refuse::{ALLOW, Attempt, refuse},
};

#[inline(always)]
pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> i32 {
    sendmsg(ctx, Target::v4)
}

#[inline(always)]
pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> i32 {
    sendmsg(ctx, Target::v6)
}

#[inline(always)]
fn sendmsg(ctx: *mut bpf_sock_addr, target: impl Fn(*mut bpf_sock_addr) -> Target) -> i32 {
    let Some(who) = caller::governed(sk(ctx)) else {
        return ALLOW;
    };
    let target = target(ctx);
    let reason = if refuses_loopback(&who, &target) {
        Reason::Loopback
    } else if datagram_allowed(ctx, &target) || !who.enforces(Countermeasure::DatagramSend) {
        return ALLOW;
    } else {
        Reason::Udp
    };
    let attempt = Attempt {
        netns_cookie: netns(ctx),
        address: target.address,
        port: target.port,
        protocol: field!(ctx, protocol) as u16,
    };
    refuse(&who, &attempt, reason)
}
