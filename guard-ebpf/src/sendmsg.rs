//! `sendmsg` on an unconnected UDP socket: governed processes reach Guard's DNS socket and loopback, no QUIC.
//!
//! In: the datagram's destination. Out: pass; a DNS query with its destination rewritten, and its record in the socket's
//! storage. On failure: EPERM, or for DNS ECONNREFUSED.

use aya_ebpf::bindings::bpf_sock_addr;
use guard_common::{
    countermeasure::Countermeasure,
    event::Reason,
    policy::{HAS_V6_LOOPBACK, NetnsEntry, Stat},
};

use crate::{
    address::{LOOPBACK_V4, LOOPBACK_V6, Target, field, netns, sk, write_v4, write_v6},
    caller::{self, Governed},
    connect::{datagram_allowed, flow, refuses_loopback, resolver},
    dns::is_query,
    maps::CLIENT,
    refuse::{ALLOW, Attempt, count, refuse},
    storage,
};

#[inline(always)]
pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(who) = caller::governed(sk(ctx)) else {
        return ALLOW;
    };
    let target = Target::v4(ctx);
    match judge(ctx, &who, &target, true) {
        Ok(Some(listener)) => write_v4(ctx, &LOOPBACK_V4, listener.port),
        Ok(None) => {}
        Err(reason) => return refused(ctx, &who, &target, reason),
    }
    ALLOW
}

#[inline(always)]
pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(who) = caller::governed(sk(ctx)) else {
        return ALLOW;
    };
    let target = Target::v6(ctx);
    match judge(ctx, &who, &target, false) {
        Ok(Some(listener)) => write_v6(ctx, &LOOPBACK_V6, listener.port),
        Ok(None) => {}
        Err(reason) => return refused(ctx, &who, &target, reason),
    }
    ALLOW
}

/// Where the datagram goes instead, or nowhere else. Here the kernel takes no IPv4 address for an IPv6 one, so a
/// namespace without ::1 cannot ask a resolver by IPv6.
#[inline(always)]
fn judge(
    ctx: *mut bpf_sock_addr,
    who: &Governed,
    target: &Target,
    is_v4: bool,
) -> Result<Option<NetnsEntry>, Reason> {
    if !is_query(ctx, target.port) {
        return if refuses_loopback(who, target) {
            Err(Reason::Loopback)
        } else if datagram_allowed(ctx, target) || !who.enforces(Countermeasure::DatagramSend) {
            Ok(None)
        } else {
            Err(Reason::Udp)
        };
    }
    let netns_cookie = netns(ctx);
    let Some(listener) = resolver(ctx, who, target, netns_cookie)? else {
        return Ok(None);
    };
    if !is_v4 && listener.flags & HAS_V6_LOOPBACK == 0 {
        return Err(Reason::NoListener);
    }
    let mut flow = flow(ctx, who, target, netns_cookie, listener.port);
    // `put` keeps what is there; the socket may have asked another resolver before.
    storage::remove(&CLIENT, sk(ctx));
    if !storage::put(&CLIENT, sk(ctx), &mut flow) {
        count(Stat::StorageFailed);
        return Err(Reason::Storage);
    }
    count(Stat::DnsRedirected);
    Ok(Some(listener))
}

#[inline(always)]
fn refused(ctx: *mut bpf_sock_addr, who: &Governed, target: &Target, reason: Reason) -> i32 {
    let attempt = Attempt {
        netns_cookie: netns(ctx),
        address: target.address,
        port: target.port,
        protocol: field!(ctx, protocol) as u16,
    };
    refuse(who, &attempt, reason)
}
