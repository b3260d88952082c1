//! `connect`: every governed TCP connection goes to the listener of the caller's own namespace, and every UDP socket
//! that is connected to a resolver to Guard's DNS socket there.
//!
//! In: the caller's destination. Out: the destination rewritten to the listener, and the record in the
//! client socket's storage. On failure (no listener, no storage): the call is refused.

use aya_ebpf::{bindings::bpf_sock_addr, helpers::generated::bpf_get_socket_cookie};
use guard_common::{
    countermeasure::Countermeasure,
    dns::DNS_PORT,
    event::Reason,
    flow::Flow,
    policy::{AGENT_REFUSES_LOOPBACK, HAS_V6_LOOPBACK, NetnsEntry, Stat, UNIDENTIFIED},
};

use crate::{
    address::{
        LOOPBACK_V4, LOOPBACK_V6, Target, field, is_device_bound, is_link_local, is_loopback, is_mapped,
        listener, netns, sk, write_v4, write_v6,
    },
    caller::{self, Governed},
    maps::{CLIENT, DENY_PORTS, INBOUND},
    refuse::{ALLOW, Attempt, count, refuse},
    storage,
};

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

enum Verdict {
    Pass,
    Redirect(NetnsEntry),
    Refuse(Reason),
}

#[inline(always)]
pub(crate) fn v4(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(who) = governed(ctx) else { return ALLOW };
    let target = Target::v4(ctx);
    match judge(ctx, &who, &target) {
        Ok(Some(listener)) => write_v4(ctx, &LOOPBACK_V4, listener.port),
        Ok(None) => {}
        Err(verdict) => return verdict,
    }
    ALLOW
}

#[inline(always)]
pub(crate) fn v6(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(who) = governed(ctx) else { return ALLOW };
    let target = Target::v6(ctx);
    match judge(ctx, &who, &target) {
        Ok(Some(listener)) => {
            // A namespace without ::1 (a container whose bridge has IPv6 off) is reached in mapped form.
            let stays_v6 = !is_mapped(&target.address) && listener.flags & HAS_V6_LOOPBACK != 0;
            let address = if stays_v6 { &LOOPBACK_V6 } else { &LOOPBACK_V4 };
            write_v6(ctx, address, listener.port);
        }
        Ok(None) => {}
        Err(verdict) => return verdict,
    }
    ALLOW
}

/// The governor of this connection. Whoever it is, what is known of the same socket's earlier life is void now.
#[inline(always)]
fn governed(ctx: *mut bpf_sock_addr) -> Option<Governed> {
    let sk = sk(ctx);
    storage::remove(&CLIENT, sk);
    storage::remove(&INBOUND, sk);
    caller::governed(sk)
}

/// The listener to rewrite to, nothing to rewrite, or the hook's refusal.
#[inline(always)]
fn judge(ctx: *mut bpf_sock_addr, who: &Governed, target: &Target) -> Result<Option<NetnsEntry>, i32> {
    let netns_cookie = netns(ctx);
    let protocol = field!(ctx, protocol);
    let reason = match verdict(ctx, who, target, protocol, netns_cookie) {
        Verdict::Pass => return Ok(None),
        Verdict::Redirect(listener) => {
            let mut flow = flow(ctx, who, target, netns_cookie, listener.port);
            if storage::put(&CLIENT, sk(ctx), &mut flow) {
                count(if protocol == IPPROTO_UDP {
                    Stat::DnsRedirected
                } else {
                    Stat::Redirected
                });
                return Ok(Some(listener));
            }
            count(Stat::StorageFailed);
            Reason::Storage
        }
        Verdict::Refuse(Reason::NoListener) if who.agent == UNIDENTIFIED => Reason::Unidentified,
        Verdict::Refuse(reason) => reason,
    };
    let attempt = Attempt {
        netns_cookie,
        address: target.address,
        port: target.port,
        protocol: protocol as u16,
    };
    Err(refuse(who, &attempt, reason))
}

#[inline(always)]
fn verdict(
    ctx: *mut bpf_sock_addr,
    who: &Governed,
    target: &Target,
    protocol: u32,
    netns_cookie: u64,
) -> Verdict {
    if protocol == IPPROTO_UDP {
        return datagram(ctx, who, target, netns_cookie);
    }
    if protocol != IPPROTO_TCP || field!(ctx, type_) != SOCK_STREAM {
        return refuse_if(who, Countermeasure::SocketKind, Reason::Protocol);
    }
    if is_device_bound(ctx) && who.enforces(Countermeasure::DeviceBound) {
        return Verdict::Refuse(Reason::DeviceBound);
    }
    let listener = listener(netns_cookie);
    if is_loopback(&target.address) && !(target.port == DNS_PORT && who.enforces(Countermeasure::Dns)) {
        return match refused_port(listener, target.port) {
            Some(Reason::ProxyPort) => refuse_if(who, Countermeasure::ProxyPort, Reason::ProxyPort),
            Some(reason) => refuse_if(who, Countermeasure::DeniedPort, reason),
            None if refuses_loopback(who, target) => Verdict::Refuse(Reason::Loopback),
            None => Verdict::Pass,
        };
    }
    if is_link_local(&target.address) && who.enforces(Countermeasure::LinkLocal) {
        return Verdict::Refuse(Reason::LinkLocal);
    }
    match listener {
        Some(listener) if who.enforces(Countermeasure::Redirect) => Verdict::Redirect(listener),
        Some(_) => Verdict::Pass,
        None => refuse_if(who, Countermeasure::Listener, Reason::NoListener),
    }
}

/// The refusal, unless the lab switched it off.
#[inline(always)]
fn refuse_if(who: &Governed, countermeasure: Countermeasure, reason: Reason) -> Verdict {
    if who.enforces(countermeasure) {
        Verdict::Refuse(reason)
    } else {
        Verdict::Pass
    }
}

/// UDP: DNS goes to Guard, loopback passes, nothing else. The same rule as for unconnected sockets in `sendmsg`.
#[inline(always)]
fn datagram(ctx: *mut bpf_sock_addr, who: &Governed, target: &Target, netns_cookie: u64) -> Verdict {
    if target.port == DNS_PORT {
        return match resolver(ctx, who, target, netns_cookie) {
            Ok(Some(listener)) => Verdict::Redirect(listener),
            Ok(None) => Verdict::Pass,
            Err(reason) => Verdict::Refuse(reason),
        };
    }
    if refuses_loopback(who, target) {
        Verdict::Refuse(Reason::Loopback)
    } else if datagram_allowed(ctx, target) {
        Verdict::Pass
    } else {
        refuse_if(who, Countermeasure::DatagramConnect, Reason::Udp)
    }
}

/// Where a DNS query goes: Guard's socket has the listener's port, over UDP. None if the lab switched that off.
#[inline(always)]
pub(crate) fn resolver(
    ctx: *mut bpf_sock_addr,
    who: &Governed,
    target: &Target,
    netns_cookie: u64,
) -> Result<Option<NetnsEntry>, Reason> {
    if !who.enforces(Countermeasure::Dns) {
        return Ok(None);
    }
    if is_device_bound(ctx) {
        return Err(Reason::DeviceBound);
    }
    if is_link_local(&target.address) {
        return Err(Reason::LinkLocal);
    }
    match listener(netns_cookie) {
        Some(listener) => Ok(Some(listener)),
        None if who.agent == UNIDENTIFIED => Err(Reason::Unidentified),
        None => Err(Reason::NoListener),
    }
}

/// Whether this is loopback and the agent may not use it. Its resolver may be there, so DNS still passes.
#[inline(always)]
pub(crate) fn refuses_loopback(who: &Governed, target: &Target) -> bool {
    is_loopback(&target.address) && target.port != DNS_PORT && caller::refuses(who, AGENT_REFUSES_LOOPBACK)
}

/// See [`datagram`].
#[inline(always)]
pub(crate) fn datagram_allowed(ctx: *mut bpf_sock_addr, target: &Target) -> bool {
    is_loopback(&target.address) && !is_device_bound(ctx)
}

/// Loopback ports that belong to the daemon.
#[inline(always)]
pub(crate) fn refused_port(listener: Option<NetnsEntry>, port: u16) -> Option<Reason> {
    if let Some(listener) = listener
        && listener.port == port
    {
        return Some(Reason::ProxyPort);
    }
    // SAFETY: the value is not read.
    unsafe { DENY_PORTS.get(u32::from(port)) }.map(|_| Reason::DeniedPort)
}

#[inline(always)]
pub(crate) fn flow(
    ctx: *mut bpf_sock_addr,
    who: &Governed,
    target: &Target,
    netns_cookie: u64,
    listener_port: u16,
) -> Flow {
    let task = caller::task();
    Flow {
        // SAFETY: the context pointer comes from the kernel.
        cookie: unsafe { bpf_get_socket_cookie(ctx.cast()) },
        netns_cookie,
        cgroup_id: task.cgroup_id,
        creator_cgroup_id: who.creator_cgroup_id,
        governed_cgroup_id: who.cgroup_id,
        ktime_ns: caller::now(),
        address: target.address,
        agent: who.agent,
        pid: task.pid,
        tid: task.tid,
        uid: task.uid,
        gid: task.gid,
        generation: who.generation,
        port: target.port,
        listener_port,
        reserved: 0,
        comm: task.comm,
    }
}
