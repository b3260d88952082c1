//! `socket()` of the families that no cgroup hook sees: packet and XDP sockets, which write frames past every IP
//! hook, sockets to the hypervisor, Bluetooth and the like.
//!
//! In: the arguments of the kernel's own check of `socket()`, which this program stands in front of; `io_uring` goes
//! through it, too. Out: the kernel's check goes on, for everybody but governed processes and for the families that
//! they may have. On failure: "address family not supported", as on a kernel that lacks it.

use aya_ebpf::programs::FEntryContext;
use guard_common::{countermeasure::Countermeasure, event::Reason, policy::Stat};

use crate::{
    caller,
    refuse::{Attempt, count, report},
};

const AF_UNSPEC: i32 = 0;
const AF_UNIX: i32 = 1;
pub(crate) const AF_INET: i32 = 2;
pub(crate) const AF_INET6: i32 = 10;
const AF_NETLINK: i32 = 16;
const AF_ALG: i32 = 38;

const GO_ON: i32 = 0;
const EAFNOSUPPORT: i32 = 97;

/// A list of what is known to lead nowhere else: a family that a later kernel brings is refused.
#[inline(always)]
fn is_harmless(family: i32) -> bool {
    matches!(
        family,
        AF_UNSPEC | AF_UNIX | AF_INET | AF_INET6 | AF_NETLINK | AF_ALG
    )
}

#[inline(always)]
pub(crate) fn socket_create(ctx: &FEntryContext) -> i32 {
    let (family, by_kernel): (i32, i32) = (ctx.arg(0), ctx.arg(3));
    if is_harmless(family) || by_kernel != 0 {
        return GO_ON;
    }
    let Some(who) = caller::governed_task() else {
        return GO_ON;
    };
    if !who.enforces(Countermeasure::Family) {
        return GO_ON;
    }
    count(Stat::Refused);
    let attempt = Attempt {
        netns_cookie: 0,
        address: [0; 4],
        port: 0,
        protocol: family as u16,
    };
    report(&who, &attempt, Reason::Family);
    -EAFNOSUPPORT
}
