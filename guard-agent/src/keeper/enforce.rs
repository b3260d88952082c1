//! Puts the programs in force and keeps the governed set: everything that a connection meets in the kernel.
//!
//! In: the configuration. Out: programs, governed cgroups, containers, listeners. On failure: what is attached stays
//! attached, and governed processes are refused.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use anyhow::Context;
use guard_common::policy::{AGENT_REFUSES_INBOUND, AGENT_REFUSES_LOOPBACK, AGENT_REFUSES_RELAYS};
use tokio::sync::mpsc;

use super::heartbeat;
use super::listeners::Listening;
use super::store::{self, Stored};
use crate::config::{Config, Host, WhenDown};
use crate::identify::containers::{Containers, Door, Hallway, Kept};
use crate::identify::{self, Identifier};
use crate::kernel::governed::GovernedSet;
use crate::kernel::{self, Direct, Kernel, KernelSettings, cgroup};
use crate::route::egress::{Egress, Inbound, Loopback};

/// The slice of Guard's unit, which outlives it.
const OWN_SLICE: &str = "guard.slice";
/// Doors that may wait to be taken over.
const DOORS: usize = 1024;

/// What is in force.
pub(super) struct Enforcement {
    pub(super) kernel: Arc<Kernel>,
    pub(super) governed: Arc<GovernedSet>,
    pub(super) containers: Option<Arc<Containers>>,
    pub(super) identifier: Arc<Identifier>,
    /// Of the listener in the daemon's own network namespace.
    pub(super) port: u16,
}

impl Enforcement {
    /// Loads or adopts the programs and governs what the configuration names, then opens the listeners: governed
    /// processes are refused until then. Must be called inside the async runtime.
    pub(super) fn start(config: &Config, listening: &Arc<Listening>, stored: Stored) -> anyhow::Result<Self> {
        let host = &config.host;
        let settings = KernelSettings {
            cgroup_root: host.cgroup_root.clone(),
            bpffs: host.bpffs.clone(),
            daemon_cgroup: home_of_listeners(
                cgroup::of_process(std::process::id(), &host.cgroup_root)
                    .context("the daemon's own cgroup cannot be found")?,
            ),
        };
        let kernel = Arc::new(Kernel::start(&settings).context("the kernel programs cannot be attached")?);
        // Before anything is cut, which is for what was opened before this moment.
        kernel
            .set_direct_when_down(direct_when_down(host), heartbeat::STALE)
            .context("the programs cannot be told what to do while Guard is down")?;
        kernel
            .deny_ports(&[host.metrics.port()])
            .context("the metrics port cannot be closed to agents")?;
        kernel
            .set_relays(&relays(config))
            .and_then(|()| kernel.set_agent_flags(flags(config)))
            .context("the agents' rules cannot be put in force")?;
        match kernel.follow_devices() {
            Ok(devices) => tracing::info!(
                devices,
                "no frame of an agent's packet socket passes a veth device"
            ),
            Err(error) => tracing::warn!(%error, "packet sockets in containers: see docs/kernels.md"),
        }
        let governed = GovernedSet::start(kernel.clone(), &host.cgroup_root, &patterns(config))
            .context("the agents' cgroups cannot be watched")?;
        let governed = Arc::new(governed);
        let kept = Kept::default();
        let port = listen(&kernel, listening, stored, &kept)?;
        let containers = follow(config, &kernel, &governed, listening, kept)?;
        let identifier = Arc::new(Identifier::new(
            governed.clone(),
            containers.clone(),
            host.cgroup_root.clone(),
            &config.agents,
        ));
        Ok(Self {
            kernel,
            governed,
            containers,
            identifier,
            port,
        })
    }

    /// Puts another configuration in force. Until this has run, a cgroup that is new in it is refused.
    pub(super) fn replace(&self, config: &Config) -> Result<(), String> {
        self.kernel
            .set_relays(&relays(config))
            .and_then(|()| self.kernel.set_agent_flags(flags(config)))
            .map_err(|why| why.to_string())?;
        self.governed
            .set_patterns(&patterns(config))
            .map_err(|why| why.to_string())?;
        self.identifier.replace(&config.agents);
        if let Some(containers) = &self.containers {
            containers.replace(&config.agents);
        }
        Ok(())
    }
}

/// Opens the listeners in the daemon's own network namespace, or takes those back that are open already, and points
/// the programs at them.
fn listen(kernel: &Kernel, listening: &Listening, mut stored: Stored, kept: &Kept) -> anyhow::Result<u16> {
    let fresh = kernel::open_listeners(0).context("the redirect listener cannot be opened")?;
    let cookie = kernel::netns_cookie(&fresh.v4).context("this network namespace has no cookie")?;
    // One that was opened in another cgroup of the daemon's tells nobody who called.
    let usable = |listeners: &kernel::Listeners| {
        use std::os::fd::AsFd;
        !matches!(
            kernel::flow_of(listeners.v4.as_fd()),
            Err(kernel::NoFlow::NotAttached)
        )
    };
    let listeners = stored.claim(cookie).filter(usable).unwrap_or(fresh);
    let port = listeners
        .v4
        .local_addr()
        .context("the redirect listener has no address")?
        .port();
    let has_v6 = listeners.v6.is_some();
    listening
        .add(cookie, listeners)
        .context("the redirect listener cannot be kept")?;
    kernel
        .set_listener(cookie, port, has_v6)
        .context("the programs cannot be told the listener")?;
    tracing::info!(
        port,
        has_v6,
        "governed connections of this network namespace arrive here"
    );
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    for (netns_cookie, listeners) in stored.rest() {
        if usable(&listeners) {
            kept.insert(netns_cookie, listeners);
        } else {
            store::forget_all(netns_cookie);
        }
    }
    Ok(port)
}

/// Follows containers, if the configuration names an engine.
fn follow(
    config: &Config,
    kernel: &Arc<Kernel>,
    governed: &Arc<GovernedSet>,
    listening: &Arc<Listening>,
    kept: Kept,
) -> anyhow::Result<Option<Arc<Containers>>> {
    let host = &config.host;
    if host.docker.is_none() {
        // Patterns and runs are all the sources there are: whatever else an earlier daemon governed is let go.
        governed.release_leftovers(&HashSet::new());
        kernel.hold_back(&[]).context("containers cannot be let pass")?;
        return Ok(None);
    }
    let (doors, opened) = mpsc::channel(DOORS);
    tokio::spawn(take_doors(opened, listening.clone()));
    let (root, places) = (&host.cgroup_root, &host.container_cgroups);
    let containers = Containers::start(
        kernel.clone(),
        governed.clone(),
        root,
        places,
        &config.agents,
        Hallway { doors, kept },
    )
    .context("containers cannot be followed")?;
    Ok(Some(Arc::new(containers)))
}

/// Keeps the listeners inside other network namespaces, as they are opened and closed.
async fn take_doors(mut doors: mpsc::Receiver<Door>, listening: Arc<Listening>) {
    while let Some(door) = doors.recv().await {
        match door {
            Door::Opened {
                netns_cookie,
                listeners,
            } => {
                if let Err(error) = listening.add(netns_cookie, listeners) {
                    tracing::error!(%error, netns_cookie, "governed connections of a namespace are not served");
                }
            }
            Door::Closed { netns_cookie } => listening.remove(netns_cookie),
        }
    }
}

/// The cgroup in which the listeners live. As a service that is the slice above: systemd makes a service's cgroup anew at
/// each start, and the sockets that it kept meanwhile belong to the old one.
fn home_of_listeners(own: PathBuf) -> PathBuf {
    let is_service = own.extension().is_some_and(|kind| kind == "service");
    match own.parent() {
        Some(slice) if is_service && slice.ends_with(OWN_SLICE) => slice.to_owned(),
        _ => own,
    }
}

fn direct_when_down(host: &Host) -> Direct {
    let direct = Direct {
        governed: host.when_down == WhenDown::Direct,
        unknown: host.unknown_when_down == WhenDown::Direct,
    };
    if direct != Direct::default() {
        tracing::warn!(
            governed = direct.governed,
            unknown = direct.unknown,
            "while Guard is down, connections go direct: unseen and unlimited"
        );
    }
    direct
}

/// What the programs themselves hold of each agent's `egress`.
fn flags(config: &Config) -> HashMap<u32, u32> {
    let flags = |egress: &Egress| {
        let inbound = u32::from(egress.inbound == Inbound::Deny) * AGENT_REFUSES_INBOUND;
        let loopback = u32::from(egress.loopback == Loopback::Deny) * AGENT_REFUSES_LOOPBACK;
        let relays = u32::from(egress.listed_on_loopback().is_some()) * AGENT_REFUSES_RELAYS;
        inbound | loopback | relays
    };
    let agents = config.agents.iter();
    agents
        .map(|agent| (identify::number(&agent.name), flags(&agent.egress)))
        .collect()
}

/// The loopback ports that `egress.allow` lists, for agents that are held to it.
fn relays(config: &Config) -> Vec<(u32, u16)> {
    let listed = config.agents.iter().flat_map(|agent| {
        let number = identify::number(&agent.name);
        let ports = agent.egress.listed_on_loopback().unwrap_or_default();
        ports.into_iter().map(move |port| (number, port))
    });
    listed.collect()
}

fn patterns(config: &Config) -> Vec<(u32, Vec<String>)> {
    config
        .agents
        .iter()
        .map(|agent| (identify::number(&agent.name), agent.cgroups.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listeners_of_a_service_live_in_guards_slice_which_outlives_it() {
        for (own, home) in [
            ("/c/guard.slice/guard-agent.service", "/c/guard.slice"),
            (
                "/c/system.slice/guard-agent.service",
                "/c/system.slice/guard-agent.service",
            ),
            ("/c/guard.slice/coder", "/c/guard.slice/coder"),
            ("/c/daemon", "/c/daemon"),
        ] {
            assert_eq!(home_of_listeners(own.into()), PathBuf::from(home));
        }
    }
}
