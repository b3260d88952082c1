//! Loopback, where somebody else than an agent listens: whoever that is can pass on what it is told, and is governed by
//! nobody.
//!
//! In: a governed process's loopback destination. Out: nothing for a listener that a governed process made; for any other
//! a report, and a refusal where the agent's rules refuse what they do not list. On failure (no memory for the report):
//! the refusal holds, the report is missing.
//!
//! Who listens is known by the mark on sockets that governed processes make. A listener from before its process was
//! governed, or one that was passed in, has no mark and is taken for somebody else's.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use guard_common::{
    countermeasure::Countermeasure,
    dns::DNS_PORT,
    event::Reason,
    policy::{AGENT_REFUSES_RELAYS, MAX_SEEN_NS, relay},
};

use crate::{
    address::{LOOPBACK_V4, LOOPBACK_V6, Target, is_mapped},
    caller::{self, Governed, refuses},
    maps::{AGENTS, RELAYS, SEEN, TAG},
    refuse::{Attempt, report},
    storage,
};

const IPPROTO_TCP: u32 = 6;
/// The caller's own network namespace.
const OWN: u64 = u64::MAX;

#[repr(C)]
struct TupleV4 {
    from: u32,
    to: u32,
    from_port: u16,
    to_port: u16,
}

#[repr(C)]
struct TupleV6 {
    from: [u32; 4],
    to: [u32; 4],
    from_port: u16,
    to_port: u16,
}

/// Why this loopback destination is refused, if it is. A resolver there is not meant: its port is DNS's.
#[inline(always)]
pub(crate) fn judge(
    ctx: *mut bpf_sock_addr,
    who: &Governed,
    target: &Target,
    netns_cookie: u64,
    protocol: u32,
) -> Option<Reason> {
    if target.port == DNS_PORT
        || !who.enforces(Countermeasure::Relay)
        || !is_somebody_elses(ctx, target, protocol)
    {
        return None;
    }
    // SAFETY: the value is not read.
    let listed = unsafe { RELAYS.get(relay(who.agent, target.port)) }.is_some();
    if listed {
        return None;
    }
    if refuses(who, AGENT_REFUSES_RELAYS) {
        return Some(Reason::Relay);
    }
    if is_news(who, netns_cookie, target.port) {
        let attempt = Attempt {
            netns_cookie,
            address: target.address,
            port: target.port,
            protocol: protocol as u16,
        };
        report(who, &attempt, Reason::RelayPassed);
    }
    None
}

/// Whether somebody listens who is no agent. Where nobody does, the call fails by itself.
#[inline(always)]
fn is_somebody_elses(ctx: *mut bpf_sock_addr, target: &Target, protocol: u32) -> bool {
    let Some(sk) = listener(ctx, target, protocol) else {
        return false;
    };
    let id = match storage::get(&TAG, sk.cast::<c_void>()) {
        // SAFETY: the verifier knows the pointer as a live storage value.
        Some(tag) => unsafe { (*tag).governed_cgroup_id },
        None => 0,
    };
    // SAFETY: the reference that the look-up gave.
    unsafe { bpf_sk_release(sk.cast::<c_void>()) };
    // SAFETY: the value is not read.
    id == 0 || unsafe { AGENTS.get(id) }.is_none()
}

#[inline(always)]
fn listener(ctx: *mut bpf_sock_addr, target: &Target, protocol: u32) -> Option<*mut bpf_sock> {
    let to_port = target.port.to_be();
    let unspecified = [0; 4];
    let sk = if is_mapped(&target.address) {
        // 0.0.0.0 connects to loopback.
        let to = if target.address[3] == 0 {
            LOOPBACK_V4[3]
        } else {
            target.address[3]
        };
        let mut tuple = TupleV4 {
            from: LOOPBACK_V4[3],
            to,
            from_port: 0,
            to_port,
        };
        look_up(ctx, (&raw mut tuple).cast(), size_of::<TupleV4>(), protocol)
    } else {
        let to = if target.address == unspecified {
            LOOPBACK_V6
        } else {
            target.address
        };
        let mut tuple = TupleV6 {
            from: LOOPBACK_V6,
            to,
            from_port: 0,
            to_port,
        };
        look_up(ctx, (&raw mut tuple).cast(), size_of::<TupleV6>(), protocol)
    };
    (!sk.is_null()).then_some(sk)
}

#[inline(always)]
fn look_up(ctx: *mut bpf_sock_addr, tuple: *mut c_void, size: usize, protocol: u32) -> *mut bpf_sock {
    let size = size as u32;
    if protocol == IPPROTO_TCP {
        // SAFETY: the tuple is as long as stated, and the verifier sees that the reference is released.
        unsafe { bpf_sk_lookup_tcp(ctx.cast(), tuple.cast(), size, OWN, 0) }
    } else {
        // SAFETY: as above.
        unsafe { bpf_sk_lookup_udp(ctx.cast(), tuple.cast(), size, OWN, 0) }
    }
}

/// Whether this was not reported lately: a database on loopback is met thousands of times.
#[inline(always)]
fn is_news(who: &Governed, netns_cookie: u64, port: u16) -> bool {
    let key = [netns_cookie, relay(who.agent, port)];
    let now = caller::now();
    // SAFETY: a stale or torn number makes one report more or less.
    if let Some(at) = unsafe { SEEN.get(key) }
        && now.wrapping_sub(*at) < MAX_SEEN_NS
    {
        return false;
    }
    let _full = SEEN.insert(key, now, 0);
    true
}
