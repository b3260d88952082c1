//! Puts the programs in force and keeps the governed set: everything that a connection meets in the kernel.
//!
//! In: the configuration. Out: programs, governed cgroups, containers, listeners. On failure: what is attached stays
//! attached, and governed processes are refused.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use anyhow::Context;
use guard_common::policy::{AGENT_REFUSES_INBOUND, AGENT_REFUSES_LOOPBACK};
use tokio::sync::mpsc;

use super::listeners::Listening;
use super::store::{self, Stored};
use crate::config::Config;
use crate::identify::containers::{Containers, Door, Hallway, Kept};
use crate::identify::{self, Identifier};
use crate::kernel::governed::GovernedSet;
use crate::kernel::{self, Kernel, KernelSettings, cgroup};
use crate::route::egress::{Egress, Inbound, Loopback};

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
            daemon_cgroup: cgroup::of_process(std::process::id(), &host.cgroup_root)
                .context("the daemon's own cgroup cannot be found")?,
        };
        let kernel = Arc::new(Kernel::start(&settings).context("the kernel programs cannot be attached")?);
        kernel
            .deny_ports(&[host.metrics.port()])
            .context("the metrics port cannot be closed to agents")?;
        kernel
            .set_agent_flags(flags(config))
            .context("the agents' rules cannot be put in force")?;
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
            .set_agent_flags(flags(config))
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

/// What the programs themselves hold of each agent's `egress`.
fn flags(config: &Config) -> HashMap<u32, u32> {
    let flags = |egress: &Egress| {
        let inbound = u32::from(egress.inbound == Inbound::Deny) * AGENT_REFUSES_INBOUND;
        let loopback = u32::from(egress.loopback == Loopback::Deny) * AGENT_REFUSES_LOOPBACK;
        inbound | loopback
    };
    let agents = config.agents.iter();
    agents
        .map(|agent| (identify::number(&agent.name), flags(&agent.egress)))
        .collect()
}

fn patterns(config: &Config) -> Vec<(u32, Vec<String>)> {
    config
        .agents
        .iter()
        .map(|agent| (identify::number(&agent.name), agent.cgroups.clone()))
        .collect()
}
