//! `setsockopt`: options that give a socket's packets a route of their own, whatever their destination says.
//!
//! In: an option. Out: pass. On failure: EPERM. Without this the first packet of a connection that was sent to
//! the listener would leave the machine, data included, by a source route that the agent chose. IPv6 routing
//! headers need no privilege; `TCP_REPAIR` and IPv4 source routes need one that containers often have.

use aya_ebpf::bindings::bpf_sockopt;
use guard_common::{countermeasure::Countermeasure, event::Reason};

use crate::{
    address::{field, set_field},
    caller,
    refuse::{ALLOW, Attempt, refuse},
};

const SOL_IP: i32 = 0;
const IP_OPTIONS: i32 = 4;

const SOL_TCP: i32 = 6;
const TCP_REPAIR: i32 = 19;

const SOL_IPV6: i32 = 41;
const IPV6_2292HOPOPTS: i32 = 3;
const IPV6_2292DSTOPTS: i32 = 4;
const IPV6_2292RTHDR: i32 = 5;
const IPV6_2292PKTOPTIONS: i32 = 6;
const IPV6_HOPOPTS: i32 = 54;
const IPV6_RTHDRDSTOPTS: i32 = 55;
const IPV6_RTHDR: i32 = 57;
const IPV6_DSTOPTS: i32 = 59;

/// The kernel hands at most a page of the caller's buffer to this hook.
const PAGE: i32 = 4096;

#[inline(always)]
pub(crate) fn setsockopt(ctx: *mut bpf_sockopt) -> i32 {
    let (level, length) = (field!(ctx, level), field!(ctx, optlen));
    // An empty value takes the option away.
    if length == 0 || !reroutes(level, field!(ctx, optname)) {
        if length > PAGE {
            // Says "take the caller's own buffer": without it the kernel answers EFAULT. (-1 would skip the call.)
            set_field!(ctx, 0, optlen);
        }
        return ALLOW;
    }
    let sk = field!(ctx, __bindgen_anon_1.sk);
    let Some(who) = caller::governed(sk.cast()) else {
        return ALLOW;
    };
    if !who.enforces(Countermeasure::SocketOption) {
        return ALLOW;
    }
    let attempt = Attempt {
        netns_cookie: 0,
        address: [0; 4],
        port: 0,
        protocol: level as u16,
    };
    refuse(&who, &attempt, Reason::SocketOption)
}

/// Asked first: everybody sets options all the time, and hardly ever one of these.
#[inline(always)]
fn reroutes(level: i32, option: i32) -> bool {
    match level {
        SOL_IP => option == IP_OPTIONS,
        SOL_TCP => option == TCP_REPAIR,
        SOL_IPV6 => matches!(
            option,
            IPV6_2292HOPOPTS
                | IPV6_2292DSTOPTS
                | IPV6_2292RTHDR
                | IPV6_2292PKTOPTIONS
                | IPV6_HOPOPTS
                | IPV6_RTHDRDSTOPTS
                | IPV6_RTHDR
                | IPV6_DSTOPTS
        ),
        _ => false,
    }
}
