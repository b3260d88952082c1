//! Who is calling, and is that one governed? The one place that answers, so that every hook agrees.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_ktime_get_ns},
};
use guard_common::{
    COMM_LEN,
    countermeasure::Countermeasure,
    flow::Tag,
    policy::{Config, FAIL_OPEN, FAIL_OPEN_UNKNOWN, HOLD_NAMES, MAX_LEVEL, Stat, UNIDENTIFIED},
};

use crate::{
    maps::{AGENTS, CFG, HELD, HELD_LEVELS, KNOWN, PARENTS, TAG},
    refuse::count,
    storage,
};

/// A governed caller.
pub(crate) struct Governed {
    /// The key in `AGENTS`.
    pub(crate) cgroup_id: u64,
    /// Where the socket was made, 0 if not by a governed process.
    pub(crate) creator_cgroup_id: u64,
    /// The agent's number.
    pub(crate) agent: u32,
    /// The configuration's generation.
    pub(crate) generation: u32,
    disabled: u32,
}

impl Governed {
    /// Whether a counter-measure is in force: always, but in the lab.
    #[inline(always)]
    pub(crate) fn enforces(&self, countermeasure: Countermeasure) -> bool {
        self.disabled & countermeasure.bit() == 0
    }
}

/// The task that is calling.
pub(crate) struct Task {
    pub(crate) cgroup_id: u64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) comm: [u8; COMM_LEN],
}

/// The governor of a call on `sk`: that of the current task, or else that of the socket's creator.
///
/// Either alone is a hole: a socket can be made outside and used inside, and the other way round.
#[inline(always)]
pub(crate) fn governed(sk: *mut c_void) -> Option<Governed> {
    let config = CFG.get(0)?;
    if governs_nobody(config) {
        return None;
    }
    let tag = storage::get(&TAG, sk);
    let creator_cgroup_id = match tag {
        // SAFETY: the verifier knows the pointer as a live storage value.
        Some(tag) => unsafe { (*tag).cgroup_id },
        None => 0,
    };
    let (cgroup_id, agent) = match current_unless_disabled(config) {
        Some(found) => found,
        None if config.disabled & Countermeasure::Creator.bit() == 0 => creator(tag?)?,
        None => return None,
    };
    admit(
        config,
        Governed {
            cgroup_id,
            creator_cgroup_id,
            agent,
            generation: config.generation,
            disabled: config.disabled,
        },
    )
}

/// The governor of the current task alone, for `socket()`.
#[inline(always)]
pub(crate) fn governed_task() -> Option<Governed> {
    let config = CFG.get(0)?;
    if governs_nobody(config) {
        return None;
    }
    let (cgroup_id, agent) = current(config)?;
    admit(
        config,
        Governed {
            cgroup_id,
            creator_cgroup_id: 0,
            agent,
            generation: config.generation,
            disabled: config.disabled,
        },
    )
}

/// See [`Countermeasure`]: without it only the socket's creator counts.
#[inline(always)]
fn current_unless_disabled(config: &Config) -> Option<(u64, u32)> {
    if config.disabled & Countermeasure::CurrentTask.bit() != 0 {
        return None;
    }
    current(config)
}

/// The nearest registered ancestor of the current task; only levels where an agent is registered are tried.
#[inline(always)]
fn current(config: &Config) -> Option<(u64, u32)> {
    if config.disabled & Countermeasure::Ancestors.bit() != 0 {
        // SAFETY: a helper without arguments.
        let id = unsafe { bpf_get_current_cgroup_id() };
        // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
        return unsafe { AGENTS.get(id) }.map(|entry| (id, entry.agent));
    }
    let mut level = MAX_LEVEL;
    while level > 1 {
        level -= 1;
        if config.levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: a helper without pointers; 0 if the task's cgroup is not that deep.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if id == 0 {
            continue;
        }
        // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
        let entry = unsafe { AGENTS.get(id) };
        if let Some(entry) = entry {
            return Some((id, entry.agent));
        }
    }
    if config.flags & HOLD_NAMES != 0
        && config.disabled & Countermeasure::Name.bit() == 0
        && let Some(id) = held()
    {
        return Some((id, UNIDENTIFIED));
    }
    if config.parent_levels == 0 {
        return None;
    }
    unidentified(config.parent_levels)
}

/// So that the usual case, a machine without agents, costs nothing more.
#[inline(always)]
fn governs_nobody(config: &Config) -> bool {
    config.levels | config.parent_levels | config.flags & HOLD_NAMES == 0
}

/// The new cgroup that the current task is in, if it was held back for its name and nobody has looked at it yet.
#[inline(always)]
fn held() -> Option<u64> {
    let levels = *HELD_LEVELS.get(0)?;
    let mut level = MAX_LEVEL;
    while level > 1 {
        level -= 1;
        if levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: a helper without pointers; 0 if the task's cgroup is not that deep.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        // SAFETY: the value is not read.
        if id != 0 && unsafe { HELD.get(id) }.is_some() {
            return Some(id);
        }
    }
    None
}

/// The container of the current task, if its parent is watched and nobody has said yet whose it is.
#[inline(always)]
fn unidentified(parent_levels: u32) -> Option<(u64, u32)> {
    let mut level = MAX_LEVEL - 1;
    while level > 1 {
        level -= 1;
        if parent_levels & (1 << level) == 0 {
            continue;
        }
        // SAFETY: a helper without pointers; 0 if the task's cgroup is not that deep.
        let parent = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        // SAFETY: the value is not read.
        if parent == 0 || unsafe { PARENTS.get(parent) }.is_none() {
            continue;
        }
        // SAFETY: as above; 0 for a task of the parent itself, which is no container's.
        let container = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32 + 1) };
        // SAFETY: the value is not read.
        if container != 0 && unsafe { KNOWN.get(container) }.is_none() {
            return Some((container, UNIDENTIFIED));
        }
    }
    None
}

/// What the rules of this caller's agent refuse: see `AgentEntry::flags`.
#[inline(always)]
pub(crate) fn refuses(who: &Governed, what: u32) -> bool {
    // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
    match unsafe { AGENTS.get(who.cgroup_id) } {
        Some(entry) => entry.flags & what != 0,
        None => false,
    }
}

/// A tag counts while the cgroup that it names is still governed.
#[inline(always)]
fn creator(tag: *const Tag) -> Option<(u64, u32)> {
    // SAFETY: the verifier knows the pointer as a live storage value.
    let id = unsafe { (*tag).governed_cgroup_id };
    // SAFETY: the map is not preallocated, so the value stays whole until the program ends.
    let entry = unsafe { AGENTS.get(id) }?;
    Some((id, entry.agent))
}

/// `when_down = "direct"`: with a stale heartbeat nobody is governed; `unknown_when_down` says the same of whoever
/// is not identified. Same test in every hook, or it would open only half the way.
#[inline(always)]
fn admit(config: &Config, governed: Governed) -> Option<Governed> {
    let owners_choice = if governed.agent == UNIDENTIFIED {
        FAIL_OPEN_UNKNOWN
    } else {
        FAIL_OPEN
    };
    if is_direct(config, owners_choice) {
        count(Stat::FailedOpen);
        return None;
    }
    Some(governed)
}

/// Whether the owner chose `direct`, by this flag, and the daemon is down.
#[inline(always)]
pub(crate) fn is_direct(config: &Config, owners_choice: u32) -> bool {
    config.flags & owners_choice != 0 && now().wrapping_sub(config.heartbeat_ns) > config.heartbeat_timeout_ns
}

/// Reads the current task.
#[inline(always)]
pub(crate) fn task() -> Task {
    let (pid_tgid, uid_gid) = (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid());
    Task {
        // SAFETY: a helper without arguments.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        pid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        uid: uid_gid as u32,
        gid: (uid_gid >> 32) as u32,
        comm: bpf_get_current_comm().unwrap_or([0; COMM_LEN]),
    }
}

/// The monotonic clock.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}
