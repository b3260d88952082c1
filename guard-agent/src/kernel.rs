//! The kernel side: the programs, what they are told, and what they report.
//!
//! In: settings, policy (cgroups, listeners). Out: the identity of each connection, by descriptor, and the
//! stream of refusals. On failure: nothing is detached; what is attached keeps refusing.
//!
//! The rest of the daemon meets this module only in plain data and passed descriptors, so that it can
//! become a privileged process of its own.

mod attach;
pub mod cgroup;
mod destroy;
mod detach;
mod devices;
mod dns;
mod edge;
mod egress;
mod error;
mod events;
mod family;
mod flow;
pub mod governed;
#[doc(hidden)]
pub mod lab;
mod load;
mod names;
mod netlink;
mod netns;
mod pinned;
mod policy;
pub mod probe;
mod relays;
mod stats;
mod sys;
pub mod timekeeping;
mod types;

use std::{collections::HashMap, fmt, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::mpsc;

pub use self::{
    attach::Attached,
    destroy::{Cut, cut_connections},
    detach::{DetachReport, detach},
    dns::query_of,
    error::KernelError,
    events::KernelEvent,
    flow::{Flow, NoFlow, flow_of},
    netns::{Listeners, ask_resolver, inside, namespace_of, namespaces_of, netns_cookie, open_listeners},
    policy::Direct,
    stats::KernelStats,
};
use guard_common::policy::{HOLD_NAMES, REFUSE_INBOUND};
pub use guard_common::{
    event::Reason,
    policy::{AGENT_REFUSES_RELAYS, UNIDENTIFIED},
};

/// The number of Guard's own canary, which no agent has.
pub const CANARY: u32 = u32::MAX - 1;

/// How often devices are looked at although nothing was heard of them, in milliseconds.
const DEVICES_AGAIN: u16 = 2_000;

/// Where the programs live.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    /// The cgroup that the programs are attached to: they see it and everything below.
    pub cgroup_root: PathBuf,
    /// A directory on a bpf file system, for the pins. Made if missing.
    pub bpffs: PathBuf,
    /// The cgroup in which the daemon opens its listeners, or one above it: their sockets answer [`flow_of`].
    pub daemon_cgroup: PathBuf,
}

/// The programs, attached. Dropping this leaves them attached: [`detach`] takes them away.
pub struct Kernel {
    links: attach::Links,
    /// None where the kernel cannot.
    family: Option<pinned::Pinned>,
    /// None where the kernel cannot.
    names: Option<names::Names>,
    edge: edge::EdgeLinks,
    policy: policy::Policy,
    relays: relays::Relays,
    stats: stats::Counters,
    events: events::Source,
    /// Made by [`lab::start`].
    is_lab: bool,
}

impl Kernel {
    /// Loads the programs, re-uses what an earlier daemon pinned, and attaches.
    ///
    /// An attached program is replaced atomically, so a connection in that moment meets the old or the new
    /// one, never none.
    pub fn start(settings: &KernelSettings) -> Result<Self, KernelError> {
        let pins = load::Pins::prepare(&settings.bpffs)?;
        let loaded = load::load(&pins).map_err(probe::explain)?;
        let root = &settings.cgroup_root;
        let egress = egress::EgressLinks::new(loaded.egress, &pins.links(), root.clone())?;
        let edge = edge::EdgeLinks::new(loaded.edge, &pins.links())?;
        let policy = policy::Policy::new(loaded.policy, egress, root.clone())?;
        let links = attach::attach(&loaded.programs, &pins, settings).map_err(probe::explain)?;
        let attached = loaded
            .family
            .and_then(|program| pinned::Pinned::attach(family::PLACE, program, &pins.links()));
        let family = attached
            .inspect_err(|error| {
                tracing::warn!(%error, "packet sockets and other families are not refused to agents: see docs/kernels.md");
            })
            .ok();
        let names = loaded
            .names
            .and_then(|program| names::Names::attach(program, loaded.name_maps, &pins.links()));
        let names = names
            .inspect_err(|error| {
                tracing::warn!(%error, "units that are matched by their own names are governed some milliseconds late");
            })
            .ok();
        pins.sweep_other_versions();
        let dropped = Arc::default();
        Ok(Self {
            links,
            family,
            names,
            edge,
            policy,
            relays: relays::Relays::new(loaded.relays),
            stats: stats::Counters::new(loaded.stats, Arc::clone(&dropped)),
            events: events::Source::new(loaded.events, dropped),
            is_lab: false,
        })
    }

    /// From now on governed connections of this namespace go to this loopback port.
    pub fn set_listener(
        &self,
        netns_cookie: u64,
        port: u16,
        has_v6_loopback: bool,
    ) -> Result<(), KernelError> {
        self.policy.set_listener(netns_cookie, port, has_v6_loopback)
    }

    /// From now on governed connections of this namespace are refused.
    pub fn remove_listener(&self, netns_cookie: u64) -> Result<(), KernelError> {
        self.policy.remove_listener(netns_cookie)
    }

    /// From now on this cgroup and everything below it belongs to the agent.
    pub fn govern(&self, cgroup_id: u64, agent: u32) -> Result<(), KernelError> {
        self.policy.govern(cgroup_id, agent)
    }

    /// What the programs themselves hold of the agents' rules (`AgentEntry::flags`), by the agents' numbers; replaces
    /// what was set before.
    pub fn set_agent_flags(&self, flags: HashMap<u32, u32>) -> Result<(), KernelError> {
        self.policy.set_agent_flags(flags)
    }

    /// The loopback ports that agents, by their numbers, may reach whoever listens there; replaces the earlier list.
    pub fn set_relays(&self, listed: &[(u32, u16)]) -> Result<(), KernelError> {
        self.relays.replace(listed)
    }

    /// Takes a cgroup out again.
    pub fn ungovern(&self, cgroup_id: u64) -> Result<(), KernelError> {
        self.policy.ungovern(cgroup_id)
    }

    /// Whether this very cgroup is governed; what lies below a governed one is, too, without being named here.
    #[must_use]
    pub fn is_governed(&self, cgroup_id: u64) -> bool {
        self.policy.is_governed(cgroup_id)
    }

    /// Whose this very cgroup is; [`UNIDENTIFIED`] if it is held back.
    #[must_use]
    pub fn agent_of(&self, cgroup_id: u64) -> Option<u32> {
        self.policy.agent_of(cgroup_id)
    }

    /// Every governed cgroup with its agent, those of an earlier daemon among them.
    #[must_use]
    pub fn governed(&self) -> Vec<(u64, u32)> {
        self.policy.governed()
    }

    /// The namespaces that have a listener, those of an earlier daemon among them.
    #[must_use]
    pub fn listeners(&self) -> Vec<u64> {
        self.policy.listeners()
    }

    /// The cgroups whose every child is a container: a child that is neither governed nor let pass is held back.
    /// Replaces the earlier list.
    pub fn hold_back(&self, parents: &[u64]) -> Result<(), KernelError> {
        self.policy.hold_back(parents)
    }

    /// A child of a parent that is held back is known to be no agent's.
    pub fn let_pass(&self, cgroup_id: u64) -> Result<(), KernelError> {
        self.policy.let_pass(cgroup_id)
    }

    /// Takes back [`Self::let_pass`].
    pub fn forget(&self, cgroup_id: u64) -> Result<(), KernelError> {
        self.policy.forget(cgroup_id)
    }

    /// Every cgroup that is let pass, those of an earlier daemon among them.
    #[must_use]
    pub fn passing(&self) -> Vec<u64> {
        self.policy.passing()
    }

    /// The loopback ports that governed processes may neither reach nor take; replaces the earlier list.
    pub fn deny_ports(&self, ports: &[u16]) -> Result<(), KernelError> {
        self.policy.deny_ports(ports)
    }

    /// The number that new records carry.
    pub fn set_generation(&self, generation: u32) -> Result<(), KernelError> {
        self.policy.set_generation(generation)
    }

    /// `when_down` and `unknown_when_down`: who is left alone once [`Self::heartbeat`] is older than this; everybody
    /// else is refused. This counts as a heartbeat.
    pub fn set_direct_when_down(&self, direct: Direct, after: Duration) -> Result<(), KernelError> {
        self.policy.set_direct_when_down(direct, after)
    }

    /// Whether governed processes may have gone direct until this daemon started.
    #[must_use]
    pub fn was_direct(&self) -> bool {
        self.policy.was_direct()
    }

    /// Whether governed sockets answer clients that are not on loopback: they do unless told otherwise.
    pub fn refuse_inbound(&self, refuse: bool) -> Result<(), KernelError> {
        self.policy.set_flag(REFUSE_INBOUND, refuse)
    }

    /// From now on a cgroup that is made with a name which begins so is held back until [`Self::settle`]: its processes
    /// are redirected, and nobody knows yet whose they are. Replaces the earlier list. Does nothing where the kernel
    /// cannot.
    pub fn hold_names(&self, beginnings: &[String]) -> Result<(), KernelError> {
        // Without the program nobody would ever let go what an earlier daemon's still holds back.
        let Some(names) = &self.names else {
            return self.policy.set_flag(HOLD_NAMES, false);
        };
        names.replace(beginnings)?;
        self.policy.set_flag(HOLD_NAMES, !beginnings.is_empty())
    }

    /// What is held back for its name and was not looked at yet.
    #[must_use]
    pub fn held_by_name(&self) -> Vec<u64> {
        self.names.as_ref().map(names::Names::held).unwrap_or_default()
    }

    /// This cgroup is governed by now, or nobody's.
    pub fn settle(&self, cgroup_id: u64) -> Result<(), KernelError> {
        self.names
            .as_ref()
            .map_or(Ok(()), |names| names.settle(cgroup_id))
    }

    /// Says that the daemon lives.
    pub fn heartbeat(&self) -> Result<(), KernelError> {
        self.policy.heartbeat()
    }

    /// The counters, summed over the processors.
    #[must_use]
    pub fn stats(&self) -> KernelStats {
        self.stats.read()
    }

    /// Asks the kernel, for each program, whether it is still where it was attached.
    #[must_use]
    pub fn attached(&self) -> Attached {
        let mut attached = self.links.check();
        attached
            .programs
            .push((egress::PROGRAM, self.policy.egress_holds()));
        if let Some(family) = &self.family {
            attached.programs.push((family::PROGRAM, family.holds()));
        }
        if let Some(names) = &self.names {
            attached.programs.push((names::PROGRAM, names.pinned.holds()));
        }
        if let Some(holds) = self.edge.hold() {
            attached.programs.push((edge::PROGRAM, holds));
        }
        attached
    }

    /// Puts back what [`Self::attached`] misses: each program that was not where it belongs, and how that went.
    ///
    /// Only the one daemon in force may call it: another one's programs would be replaced.
    pub fn repair(&self) -> Vec<(&'static str, Result<(), KernelError>)> {
        let mut repaired = self.links.repair();
        if !self.policy.egress_holds() {
            repaired.push((egress::PROGRAM, self.policy.repair_egress()));
        }
        if let Some(family) = &self.family
            && !family.holds()
        {
            repaired.push((family::PROGRAM, family.repair()));
        }
        if let Some(names) = &self.names
            && !names.pinned.holds()
        {
            repaired.push((names::PROGRAM, names.pinned.repair()));
        }
        if self.edge.hold() == Some(false) {
            repaired.push((edge::PROGRAM, self.guard_devices().map(drop)));
        }
        repaired
    }

    /// Puts the program at the host's end of veth pairs on every such device of the calling thread's network namespace,
    /// and says how many there are. To be called again when devices come: [`Self::follow_devices`] does.
    ///
    /// # Errors
    /// The devices cannot be listed, or the kernel has no such links (Linux 6.6 has).
    pub fn guard_devices(&self) -> Result<usize, KernelError> {
        self.edge.sync().map_err(KernelError::path(
            "the program cannot be attached to veth devices:",
            edge::PROGRAM,
        ))
    }

    /// Whether this kernel has what [`Self::guard_devices`] needs.
    #[must_use]
    pub fn can_guard_devices() -> bool {
        sys::tcx::is_known().unwrap_or(false)
    }

    /// Calls [`Self::guard_devices`] now, and on a thread of its own whenever devices change, while the kernel side is
    /// held by somebody.
    ///
    /// # Errors
    /// As [`Self::guard_devices`], or changes cannot be heard of.
    pub fn follow_devices(self: &Arc<Self>) -> Result<usize, KernelError> {
        let cannot = |source| KernelError::path("cannot follow devices for", edge::PROGRAM)(source);
        if !sys::tcx::is_known().map_err(cannot)? {
            let lacks = "this kernel has no links for programs on devices (Linux 6.6 has)";
            return Err(cannot(io::Error::other(lacks)));
        }
        let changes = devices::Changes::hear().map_err(cannot)?;
        let count = self.guard_devices()?;
        let kernel = Arc::downgrade(self);
        let following = move || {
            let mut failed = false;
            while changes.wait(DEVICES_AGAIN).is_ok() {
                let Some(kernel) = kernel.upgrade() else { return };
                let outcome = kernel.guard_devices();
                // Said once, and not every two seconds while it lasts.
                if let Err(error) = &outcome
                    && !failed
                {
                    tracing::error!(%error, "frames of packet sockets may leave containers");
                }
                failed = outcome.is_err();
            }
        };
        std::thread::Builder::new()
            .name("guard-devices".into())
            .spawn(following)
            .map_err(cannot)?;
        Ok(count)
    }

    /// The stream of refusals. The first call gets it; a later one gets a stream that has ended.
    ///
    /// Must be called inside the async runtime.
    pub fn events(&self) -> mpsc::Receiver<KernelEvent> {
        self.events.stream()
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}
