//! The host's end of a veth pair: what comes out of it came from sockets in the namespace at the other end.
//!
//! In: a frame, with the socket that sent it. Out: it goes on, but for frames of governed processes' sockets of families
//! that no cgroup hook sees: packet and XDP sockets write past every IP hook and past the queueing discipline of their
//! own device, and still come out here. On failure: dropped, counted and reported.
//!
//! It holds where the kernel takes no program in front of `socket()` (`family`), and against such sockets that were
//! opened before their cgroup was governed. IP sockets are none of its business: the second line judged them.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_ancestor_cgroup_id};
use guard_common::{
    countermeasure::Countermeasure,
    event::Reason,
    policy::{FAIL_OPEN, FAIL_OPEN_UNKNOWN, MAX_LEVEL, Stat, UNIDENTIFIED},
};

use crate::{
    address::field,
    caller,
    egress::{Packet, owner, report, socket},
    family::{AF_INET, AF_INET6},
    maps::{CFG, KNOWN, PARENTS},
    refuse::count,
};

/// The next program, or the kernel, decides.
const GO_ON: i32 = -1;
const DROP: i32 = 2;

#[inline(always)]
pub(crate) fn edge(skb: *mut __sk_buff) -> i32 {
    let Some(sk) = socket(skb) else { return GO_ON };
    let family = field!(sk, family);
    if matches!(family as i32, AF_INET | AF_INET6) {
        return GO_ON;
    }
    let Some(config) = CFG.get(0) else { return GO_ON };
    if config.disabled & Countermeasure::Edge.bit() != 0 {
        return GO_ON;
    }
    let (who, owners_choice) = match owner(skb, config) {
        Some((id, entry)) => ((id, entry.agent), FAIL_OPEN),
        None => match unidentified(skb, config.parent_levels) {
            Some(container) => ((container, UNIDENTIFIED), FAIL_OPEN_UNKNOWN),
            None => return GO_ON,
        },
    };
    if caller::is_direct(config, owners_choice) {
        return GO_ON;
    }
    count(Stat::Refused);
    let packet = Packet {
        destination: [0; 4],
        protocol: family as u8,
        port: 0,
        transport: 0,
    };
    report(skb, Reason::Family, who, &packet);
    DROP
}

/// The container of the sender, if its parent is watched and nobody has said yet whose it is: as `caller` finds it for a
/// task.
#[inline(always)]
fn unidentified(skb: *mut __sk_buff, parent_levels: u32) -> Option<u64> {
    let mut level = MAX_LEVEL - 1;
    while level > 1 {
        level -= 1;
        if parent_levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: the context pointer comes from the kernel; 0 if the cgroup is not that deep.
        let parent = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
        // SAFETY: the value is not read.
        if parent == 0 || unsafe { PARENTS.get(parent) }.is_none() {
            continue;
        }
        // SAFETY: as above; 0 for a socket of the parent itself, which is no container's.
        let container = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32 + 1) };
        // SAFETY: the value is not read.
        if container != 0 && unsafe { KNOWN.get(container) }.is_none() {
            return Some(container);
        }
    }
    None
}
