//! Saying no: count it, tell the daemon, and choose the errno that the caller sees.

use aya_ebpf::helpers::generated::bpf_set_retval;
use guard_common::{
    event::{Event, Reason},
    policy::Stat,
};

use crate::{
    caller::{self, Governed},
    maps::{EVENTS, STATS},
};

/// A hook's verdicts.
pub(crate) const ALLOW: i32 = 1;
const DENY: i32 = 0;

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EPROTONOSUPPORT: i32 = 93;
const ECONNREFUSED: i32 = 111;

/// What was asked for.
pub(crate) struct Attempt {
    pub(crate) netns_cookie: u64,
    pub(crate) address: [u32; 4],
    pub(crate) port: u16,
    pub(crate) protocol: u16,
}

/// Refuses the call.
#[inline(always)]
pub(crate) fn refuse(who: &Governed, attempt: &Attempt, reason: Reason) -> i32 {
    count(Stat::Refused);
    report(who, attempt, reason);
    // SAFETY: a helper without pointers. Without it the caller would see EPERM for everything.
    unsafe { bpf_set_retval(-errno(reason)) };
    DENY
}

/// Clients read these: a refused connection is final, a missing transport makes them try plain TCP.
#[inline(always)]
fn errno(reason: Reason) -> i32 {
    match reason {
        Reason::Udp | Reason::Protocol | Reason::SocketKind | Reason::SocketOption => EPERM,
        Reason::BindPort => EACCES,
        Reason::Multipath => EPROTONOSUPPORT,
        _ => ECONNREFUSED,
    }
}

/// Tells the daemon.
#[inline(always)]
pub(crate) fn report(who: &Governed, attempt: &Attempt, reason: Reason) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Stat::EventsLost);
        return;
    };
    let task = caller::task();
    entry.write(Event {
        ktime_ns: caller::now(),
        cgroup_id: task.cgroup_id,
        governed_cgroup_id: who.cgroup_id,
        netns_cookie: attempt.netns_cookie,
        address: attempt.address,
        reason: reason as u32,
        agent: who.agent,
        pid: task.pid,
        uid: task.uid,
        port: attempt.port,
        protocol: attempt.protocol,
        reserved: 0,
        comm: task.comm,
    });
    entry.submit(0);
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub(crate) fn count(stat: Stat) {
    if let Some(counter) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: per CPU, and the verifier knows the pointer as a live map value.
        unsafe { *counter += 1 };
    }
}
