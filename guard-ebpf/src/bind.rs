//! `bind`: a governed process may not take the daemon's ports, above all not while the daemon is down.
//!
//! In: the address to bind. Out: pass. On failure: EACCES.

use aya_ebpf::bindings::bpf_sock_addr;
use guard_common::{countermeasure::Countermeasure, event::Reason};

use crate::{
    address::{Target, field, listener, netns, sk},
    caller,
    connect::refused_port,
    refuse::{ALLOW, Attempt, refuse},
};

#[inline(always)]
pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> i32 {
    bind(ctx, Target::v4)
}

#[inline(always)]
pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> i32 {
    bind(ctx, Target::v6)
}

#[inline(always)]
fn bind(ctx: *mut bpf_sock_addr, target: impl Fn(*mut bpf_sock_addr) -> Target) -> i32 {
    let Some(who) = caller::governed(sk(ctx)) else {
        return ALLOW;
    };
    let target = target(ctx);
    let netns_cookie = netns(ctx);
    if target.port == 0 || refused_port(listener(netns_cookie), target.port).is_none() {
        return ALLOW;
    }
    if !who.enforces(Countermeasure::BindPort) {
        return ALLOW;
    }
    let attempt = Attempt {
        netns_cookie,
        address: target.address,
        port: target.port,
        protocol: field!(ctx, protocol) as u16,
    };
    refuse(&who, &attempt, Reason::BindPort)
}
