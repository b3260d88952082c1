//! What the programs are told: agents, listeners, denied ports. One lock, one writer.
//!
//! In: plain numbers. Out: map entries. On failure: the entry is not in force, and the error says so.

use std::{
    collections::{HashMap as StdHashMap, HashSet},
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aya::maps::MapError;
use guard_common::policy::{
    AgentEntry, Config, FAIL_OPEN, FAIL_OPEN_UNKNOWN, HAS_V6_LOOPBACK, MAX_AGENTS, MAX_DENY_PORTS, MAX_KNOWN,
    MAX_LEVEL, MAX_NETNS, MAX_PARENTS, NetnsEntry,
};

use super::{KernelError, cgroup, egress::EgressLinks, load::PolicyMaps, sys};

/// Every level at which an agent may be: for a cgroup whose depth cannot be seen.
const ALL_LEVELS: u32 = (1 << MAX_LEVEL) - 2;
/// bpf(2): change an entry that is there, make none.
const BPF_EXIST: u64 = 2;

/// Who goes direct while the daemon is down; nobody unless the owner says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Direct {
    /// Governed processes: `when_down`.
    pub governed: bool,
    /// Containers that nobody has identified: `unknown_when_down`.
    pub unknown: bool,
}

pub(super) struct Policy {
    cgroup_root: PathBuf,
    egress: EgressLinks,
    /// Found at the start: governed processes may have gone direct until then.
    was_direct: bool,
    state: Mutex<State>,
}

struct State {
    maps: PolicyMaps,
    config: Config,
    /// The level bits of each governed cgroup.
    levels: StdHashMap<u64, u32>,
    /// What each agent's rules refuse here; nothing for one that is not in it.
    flags: StdHashMap<u32, u32>,
}

impl Policy {
    /// Takes over what an earlier daemon left; cgroups that are gone are dropped, and whatever a lab switched
    /// off is on again.
    pub(super) fn new(
        maps: PolicyMaps,
        egress: EgressLinks,
        cgroup_root: PathBuf,
    ) -> Result<Self, KernelError> {
        let config = maps.config.get(&0, 0).map_err(changing("CFG"))?;
        let was_direct = config.flags & FAIL_OPEN != 0
            && sys::monotonic_ns().saturating_sub(config.heartbeat_ns) > config.heartbeat_timeout_ns;
        let state = State {
            maps,
            config,
            levels: StdHashMap::new(),
            flags: StdHashMap::new(),
        };
        let policy = Self {
            cgroup_root,
            egress,
            was_direct,
            state: Mutex::new(state),
        };
        for (cgroup_id, _) in policy.governed() {
            let bits = policy.level_bits(cgroup_id).and_then(|bits| {
                policy.egress.attach(cgroup_id)?;
                Ok(bits)
            });
            match bits {
                Ok(bits) => {
                    policy.lock().levels.insert(cgroup_id, bits);
                }
                Err(KernelError::Cgroup { .. }) => policy.ungovern(cgroup_id)?,
                Err(error) => return Err(error),
            }
        }
        let governed: HashSet<u64> = policy.governed().into_iter().map(|(id, _)| id).collect();
        policy.egress.sweep(&governed)?;
        policy.switch_off(0)?;
        policy.lock().write_levels()?;
        Ok(policy)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_listener(&self, netns_cookie: u64, port: u16, v6: bool) -> Result<(), KernelError> {
        let flags = if v6 { HAS_V6_LOOPBACK } else { 0 };
        let entry = NetnsEntry {
            port,
            flags,
            reserved: 0,
        };
        self.lock()
            .maps
            .netns
            .insert(netns_cookie, entry, 0)
            .map_err(inserting("NETNS", MAX_NETNS, || {
                format!("namespace {netns_cookie}")
            }))
    }

    pub(super) fn remove_listener(&self, netns_cookie: u64) -> Result<(), KernelError> {
        absent_is_fine(self.lock().maps.netns.remove(&netns_cookie)).map_err(changing("NETNS"))
    }

    pub(super) fn govern(&self, cgroup_id: u64, agent: u32) -> Result<(), KernelError> {
        let bits = self.level_bits(cgroup_id)?;
        let mut state = self.lock();
        let known = state.levels.contains_key(&cgroup_id);
        if !known {
            self.egress.attach(cgroup_id)?;
        }
        let entry = state.entry(agent);
        let inserted = state.maps.agents.insert(cgroup_id, entry, 0);
        if let Err(error) = inserted {
            if !known {
                self.egress.detach(cgroup_id)?;
            }
            return Err(inserting("AGENTS", MAX_AGENTS, || format!("cgroup {cgroup_id}"))(
                error,
            ));
        }
        state.levels.insert(cgroup_id, bits);
        state.write_levels()
    }

    /// What the agents' rules refuse here, by number; for cgroups that are governed already too.
    pub(super) fn set_agent_flags(&self, flags: StdHashMap<u32, u32>) -> Result<(), KernelError> {
        let governed = self.governed();
        let mut state = self.lock();
        state.flags = flags;
        for (cgroup_id, agent) in governed {
            let entry = state.entry(agent);
            // Only one that is still there: what was let go in the meantime stays so.
            absent_is_fine(state.maps.agents.insert(cgroup_id, entry, BPF_EXIST))
                .map_err(changing("AGENTS"))?;
        }
        Ok(())
    }

    pub(super) fn ungovern(&self, cgroup_id: u64) -> Result<(), KernelError> {
        let mut state = self.lock();
        absent_is_fine(state.maps.agents.remove(&cgroup_id)).map_err(changing("AGENTS"))?;
        state.levels.remove(&cgroup_id);
        self.egress.detach(cgroup_id)?;
        state.write_levels()
    }

    /// Whether this very cgroup is registered.
    pub(super) fn is_governed(&self, cgroup_id: u64) -> bool {
        self.lock().levels.contains_key(&cgroup_id)
    }

    /// Whose this very cgroup is, if it is registered.
    pub(super) fn agent_of(&self, cgroup_id: u64) -> Option<u32> {
        let entry = self.lock().maps.agents.get(&cgroup_id, 0).ok()?;
        Some(entry.agent)
    }

    pub(super) fn was_direct(&self) -> bool {
        self.was_direct
    }

    /// Whether the second line is in force at each governed cgroup.
    pub(super) fn egress_holds(&self) -> bool {
        self.egress.hold(&self.governed())
    }

    /// Puts the second line back at each governed cgroup that is there. The first error, if any.
    pub(super) fn repair_egress(&self) -> Result<(), KernelError> {
        let lost = self.governed().into_iter().map(|(id, _)| id);
        let mut outcome = Ok(());
        for id in lost.filter(|id| !self.egress.holds_or_gone(*id)) {
            outcome = outcome.and(self.egress.attach(id));
        }
        outcome
    }

    /// Sets or takes one of the flags of `Config`.
    pub(super) fn set_flag(&self, flag: u32, set: bool) -> Result<(), KernelError> {
        self.lock().configure(|config| {
            if set {
                config.flags |= flag;
            } else {
                config.flags &= !flag;
            }
        })
    }

    /// For the lab: see [`super::lab`].
    pub(super) fn switch_off(&self, mask: u32) -> Result<(), KernelError> {
        let mut state = self.lock();
        if state.config.disabled == mask {
            return Ok(());
        }
        state.configure(|config| config.disabled = mask)
    }

    pub(super) fn governed(&self) -> Vec<(u64, u32)> {
        self.lock()
            .maps
            .agents
            .iter()
            .flatten()
            .map(|(id, entry)| (id, entry.agent))
            .collect()
    }

    /// The namespaces that have a listener, as far as the programs know.
    pub(super) fn listeners(&self) -> Vec<u64> {
        self.lock().maps.netns.keys().flatten().collect()
    }

    pub(super) fn hold_back(&self, parents: &[u64]) -> Result<(), KernelError> {
        let mut levels = 0;
        for parent in parents {
            levels |= self.level_bits(*parent)?;
        }
        let mut state = self.lock();
        let map = &mut state.maps.parents;
        for parent in parents {
            map.insert(parent, 1, 0)
                .map_err(inserting("PARENTS", MAX_PARENTS, || format!("cgroup {parent}")))?;
        }
        let old: Vec<u64> = map
            .keys()
            .flatten()
            .filter(|old| !parents.contains(old))
            .collect();
        old.iter()
            .try_for_each(|parent| absent_is_fine(map.remove(parent)).map_err(changing("PARENTS")))?;
        if state.config.parent_levels == levels {
            return Ok(());
        }
        state.configure(|config| config.parent_levels = levels)
    }

    pub(super) fn let_pass(&self, cgroup_id: u64) -> Result<(), KernelError> {
        self.lock()
            .maps
            .known
            .insert(cgroup_id, 1, 0)
            .map_err(inserting("KNOWN", MAX_KNOWN, || format!("cgroup {cgroup_id}")))
    }

    pub(super) fn forget(&self, cgroup_id: u64) -> Result<(), KernelError> {
        absent_is_fine(self.lock().maps.known.remove(&cgroup_id)).map_err(changing("KNOWN"))
    }

    pub(super) fn passing(&self) -> Vec<u64> {
        self.lock().maps.known.keys().flatten().collect()
    }

    pub(super) fn deny_ports(&self, ports: &[u16]) -> Result<(), KernelError> {
        let mut state = self.lock();
        let map = &mut state.maps.deny_ports;
        // New ports first: none of the wanted ones is open in between.
        for port in ports {
            map.insert(u32::from(*port), 1, 0)
                .map_err(inserting("DENY_PORTS", MAX_DENY_PORTS, || format!("port {port}")))?;
        }
        let old: Vec<u32> = map
            .keys()
            .flatten()
            .filter(|old| !ports.iter().any(|port| u32::from(*port) == *old))
            .collect();
        old.iter()
            .try_for_each(|port| absent_is_fine(map.remove(port)).map_err(changing("DENY_PORTS")))
    }

    pub(super) fn set_generation(&self, generation: u32) -> Result<(), KernelError> {
        self.lock().configure(|config| config.generation = generation)
    }

    pub(super) fn set_direct_when_down(&self, direct: Direct, after: Duration) -> Result<(), KernelError> {
        self.lock().configure(|config| {
            config.heartbeat_ns = sys::monotonic_ns();
            config.heartbeat_timeout_ns = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
            config.flags &= !(FAIL_OPEN | FAIL_OPEN_UNKNOWN);
            for (chosen, flag) in [(direct.governed, FAIL_OPEN), (direct.unknown, FAIL_OPEN_UNKNOWN)] {
                if chosen {
                    config.flags |= flag;
                }
            }
        })
    }

    pub(super) fn heartbeat(&self) -> Result<(), KernelError> {
        self.lock()
            .configure(|config| config.heartbeat_ns = sys::monotonic_ns())
    }

    /// The bit of the level at which this cgroup lies.
    fn level_bits(&self, cgroup_id: u64) -> Result<u32, KernelError> {
        let refused = |why: String| KernelError::Cgroup { cgroup_id, why };
        let level = cgroup::path_of(cgroup_id, &self.cgroup_root)
            .and_then(|path| cgroup::level_of(&path))
            .map_err(|error| refused(format!("it is not there ({error})")))?;
        match level {
            None => Ok(ALL_LEVELS),
            Some(0) => Err(refused(
                "the root of the hierarchy would govern the whole machine".into(),
            )),
            Some(level) if level >= MAX_LEVEL => Err(refused(format!(
                "it lies {level} levels deep, {} is the most",
                MAX_LEVEL - 1
            ))),
            Some(level) => Ok(1 << level),
        }
    }
}

impl State {
    fn entry(&self, agent: u32) -> AgentEntry {
        let flags = self.flags.get(&agent).copied().unwrap_or_default();
        AgentEntry { agent, flags }
    }

    fn write_levels(&mut self) -> Result<(), KernelError> {
        let levels = self.levels.values().fold(0, |all, bits| all | bits);
        if levels == self.config.levels {
            return Ok(());
        }
        self.configure(|config| config.levels = levels)
    }

    fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), KernelError> {
        let mut config = self.config;
        change(&mut config);
        self.maps.config.set(0, config, 0).map_err(changing("CFG"))?;
        self.config = config;
        Ok(())
    }
}

fn absent_is_fine(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn changing(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |error| KernelError::Map {
        map,
        why: describe(&error),
    }
}

fn inserting(
    map: &'static str,
    entries: u32,
    what: impl FnOnce() -> String,
) -> impl FnOnce(MapError) -> KernelError {
    move |error| match &error {
        MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => {
            KernelError::Full {
                map,
                entries,
                what: what(),
            }
        }
        _ => KernelError::Map {
            map,
            why: describe(&error),
        },
    }
}

fn describe(error: &MapError) -> String {
    match error {
        MapError::SyscallError(call) => call.io_error.to_string(),
        other => other.to_string(),
    }
}
