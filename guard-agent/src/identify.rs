//! In: the kernel's record of a connection. Out: the `Identity` behind it. On failure: the connection is refused with a
//! readable error; an unknown caller is never given a default identity.
//!
//! This is the keeper's side of the seam: it reads cgroups and `/proc`, and answers in plain data.

pub mod containers;
pub mod docker;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use self::containers::{Containers, DENIED};
use crate::config::Agent;
use crate::identity::{Identity, Process, Stranger};
use crate::kernel::governed::{GovernedSet, unit_of};
use crate::kernel::{CANARY, Flow, UNIDENTIFIED, cgroup};

/// Why a caller could not be identified. The text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// The cgroup is gone, or no configured agent owns it any more.
    #[error(
        "the caller's cgroup belongs to no configured agent; ask the operator to run `guard-agent status`"
    )]
    NoAgent,
    /// The container claims an agent that it may not be.
    #[error("{0}; change its label, or the agent's `match`, and start it again")]
    Denied(Arc<str>),
    /// Nobody has said yet whose the container is.
    #[error("the container is new and not identified yet")]
    NotYet,
    /// The container was held back until it was known, and is no agent's.
    #[error("the container is no agent's")]
    Bystander,
    /// The answer did not come within a second.
    #[error("the caller could not be identified within a second; try again")]
    TooSlow,
}

/// The number under which the kernel's maps know an agent: a hash of its name, so that it survives restarts and
/// reloads, and what an earlier daemon governed keeps its meaning.
pub fn number(agent: &str) -> u32 {
    let hash: [u8; 32] = Sha256::digest(agent.as_bytes()).into();
    let [a, b, c, d, ..] = hash;
    // Zero is "nobody yet" in the kernel's records.
    u32::from_le_bytes([a, b, c, d]).clamp(UNIDENTIFIED + 1, CANARY - 1)
}

/// Resolves records to identities.
pub struct Identifier {
    governed: Arc<GovernedSet>,
    containers: Option<Arc<Containers>>,
    cgroup_root: PathBuf,
    agents: ArcSwap<HashMap<u32, Arc<Agent>>>,
}

impl Identifier {
    /// For these agents.
    pub fn new(
        governed: Arc<GovernedSet>,
        containers: Option<Arc<Containers>>,
        cgroup_root: PathBuf,
        agents: &[Arc<Agent>],
    ) -> Self {
        Self {
            governed,
            containers,
            cgroup_root,
            agents: ArcSwap::from_pointee(numbered(agents)),
        }
    }

    /// Puts other agents in force.
    pub fn replace(&self, agents: &[Arc<Agent>]) {
        self.agents.store(Arc::new(numbered(agents)));
    }

    /// Name of the agent with this number.
    pub fn agent_name(&self, number: u32) -> Option<Arc<str>> {
        self.agents.load().get(&number).map(|agent| agent.name.clone())
    }

    /// Who opened the connection; waits while the engine has not named the caller's container.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub async fn identify(&self, flow: &Flow) -> Result<Identity, Unidentified> {
        loop {
            let changed = self
                .containers
                .as_deref()
                .map(|containers| containers.changed().notified());
            let mut changed = std::pin::pin!(changed);
            if let Some(changed) = changed.as_mut().as_pin_mut() {
                changed.enable();
            }
            let answer = self.look(flow);
            match changed.as_pin_mut() {
                Some(changed) if matches!(answer, Err(Unidentified::NotYet)) => changed.await,
                _ => return answer,
            }
        }
    }

    fn look(&self, flow: &Flow) -> Result<Identity, Unidentified> {
        // The caller's own cgroup names the run best; when the socket's creator is what made the connection governed,
        // the caller may lie outside every agent.
        let governed = self
            .governed
            .lookup(flow.cgroup_id)
            .or_else(|| self.governed.lookup(flow.governed_cgroup_id))
            .ok_or_else(|| self.nobody(flow))?;
        let containers = self.containers.as_deref();
        if governed.agent == DENIED {
            let why = containers.and_then(|containers| containers.why_denied(&governed.path));
            return Err(why.map_or(Unidentified::NoAgent, Unidentified::Denied));
        }
        let agents = self.agents.load();
        let agent = agents.get(&governed.agent).ok_or(Unidentified::NoAgent)?;
        let container = containers.and_then(|containers| containers.about(&governed.path));
        let cgroup = self.cgroup(flow.cgroup_id).unwrap_or(governed.path);
        Ok(Identity {
            agent: agent.name.clone(),
            owner: agent.owner.clone(),
            run: governed.run.into(),
            container,
            unit: unit_of(&cgroup).map(str::to_owned),
            cgroup,
            process: process(flow),
        })
    }

    /// What can be said of a caller that is no agent's.
    pub fn stranger(&self, flow: &Flow) -> Stranger {
        let cgroup = self.cgroup(flow.cgroup_id);
        let containers = self.containers.as_deref();
        Stranger {
            container: containers.and_then(|containers| containers.about(cgroup.as_deref()?)),
            cgroup,
            process: Some(process(flow)),
        }
    }

    /// Why nobody governs this caller.
    fn nobody(&self, flow: &Flow) -> Unidentified {
        match &self.containers {
            // What is a container's waits for the engine, whatever its name begins with.
            _ if flow.agent == UNIDENTIFIED
                && self.governed.is_nobodys(flow.governed_cgroup_id)
                && !self.is_containers(flow.governed_cgroup_id) =>
            {
                Unidentified::Bystander
            }
            Some(containers) if flow.agent == UNIDENTIFIED => {
                if containers.is_bystander(flow.governed_cgroup_id) {
                    Unidentified::Bystander
                } else {
                    Unidentified::NotYet
                }
            }
            _ => Unidentified::NoAgent,
        }
    }

    /// Whether a cgroup's name has a container's id in it. One that is gone may have had.
    fn is_containers(&self, id: u64) -> bool {
        let path = self.cgroup(id);
        path.is_none_or(|path| {
            path.split('/')
                .any(|name| containers::container_id(name).is_some())
        })
    }

    fn cgroup(&self, id: u64) -> Option<String> {
        let path = cgroup::path_of(id, &self.cgroup_root).ok()?;
        let below = path.strip_prefix(&self.cgroup_root).ok()?;
        Some(format!("/{}", below.display()))
    }
}

fn process(flow: &Flow) -> Process {
    Process {
        pid: flow.pid,
        uid: flow.uid,
        exe: executable(flow.pid),
        comm: flow.comm.clone(),
    }
}

/// Advice, not identity: the process may be gone, or another one by now.
fn executable(pid: u32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

fn numbered(agents: &[Arc<Agent>]) -> HashMap<u32, Arc<Agent>> {
    agents
        .iter()
        .map(|agent| (number(&agent.name), agent.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_number_depends_on_its_name_alone() {
        assert_eq!(number("coder"), number("coder"));
        assert_ne!(number("coder"), number("coder2"));
        assert_ne!(number(""), 0);
    }
}
