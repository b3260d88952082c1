//! Containers: which agent each belongs to, from the first packet on.
//!
//! In: what the engine says of its containers, and the cgroups that it makes. Out: governed cgroups, listeners inside
//! their network namespaces, and names for the audit log. On failure: a container that nobody has identified is held
//! back by the programs; one that claims an agent it may not be is refused.
//!
//! The engine names a container's labels when it *creates* it, before there is a cgroup, and the cgroup's name carries
//! the container's id. So nothing is asked between the first sight of a cgroup and its verdict.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;

mod doors;
mod keeper;
mod registry;
mod watch;

pub use doors::{Door, Hallway, Kept};
pub use registry::{Described, Standing};

use crate::config::{Agent, ContainerCgroup};
use crate::identity::Container;
use crate::kernel::governed::GovernedSet;
use crate::kernel::{Kernel, cgroup};

/// The number of whoever claims an agent that it may not be: governed like an agent, and refused everything.
pub const DENIED: u32 = u32::MAX;
/// Digits in a container's id.
const ID_LENGTH: usize = 64;
/// Containers outside the configured places that are followed.
const ELSEWHERE: usize = 1024;

/// The containers of one engine. Stops following them when it is dropped; what is governed stays governed.
#[derive(Debug)]
pub struct Containers {
    shared: Arc<Shared>,
    watch: watch::Watch,
}

#[derive(Debug)]
struct Shared {
    kernel: Arc<Kernel>,
    governed: Arc<GovernedSet>,
    root: PathBuf,
    places: Vec<ContainerCgroup>,
    boot: String,
    registry: Mutex<registry::Registry>,
    /// Cgroup id to standing, for connections of who was not identified yet.
    standings: Mutex<HashMap<u64, Option<Standing>>>,
    elsewhere: Mutex<Vec<PathBuf>>,
    changed: Notify,
}

impl Containers {
    /// Follows the containers below `root`. Listeners go out through `doors`.
    ///
    /// # Errors
    /// The thread cannot be started, or `/proc` cannot be read.
    pub fn start(
        kernel: Arc<Kernel>,
        governed: Arc<GovernedSet>,
        root: &Path,
        places: &[ContainerCgroup],
        agents: &[Arc<Agent>],
        doors: impl Into<Hallway>,
    ) -> io::Result<Self> {
        let mut registry = registry::Registry::default();
        registry.set_rules(agents);
        let doors = doors::Doors::new(kernel.clone(), doors.into())?;
        let shared = Arc::new(Shared {
            kernel,
            governed,
            root: root.to_owned(),
            places: places.to_vec(),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?,
            registry: Mutex::new(registry),
            standings: Mutex::default(),
            elsewhere: Mutex::default(),
            changed: Notify::new(),
        });
        let watch = watch::Watch::start(keeper::Keeper::new(shared.clone(), doors))?;
        Ok(Self { shared, watch })
    }

    /// Puts other agents' labels in force.
    pub fn replace(&self, agents: &[Arc<Agent>]) {
        self.tell(|registry| registry.set_rules(agents));
    }

    /// The engine described a container.
    pub fn described(&self, container: Described) {
        self.tell(|registry| registry.describe(container));
    }

    /// The engine named all its containers.
    pub fn listed(&self, all: Vec<Described>) {
        self.tell(|registry| registry.replace(all));
    }

    /// A container has another name.
    pub fn renamed(&self, id: &str, name: &str) {
        self.tell(|registry| registry.rename(id, name));
    }

    /// A container was removed.
    pub fn destroyed(&self, id: &str) {
        self.tell(|registry| registry.forget(id));
    }

    /// A container runs, with this first process: wherever its cgroup is, it is followed from now on.
    pub fn running(&self, id: &str, pid: u32) {
        let shared = &self.shared;
        let Ok(path) = cgroup::of_process(pid, &shared.root) else {
            return;
        };
        let named = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(container_id);
        let followed = |place: &ContainerCgroup| path.parent() == Some(&*shared.root.join(&place.parent));
        if named != Some(id) || !path.starts_with(&shared.root) || shared.places.iter().any(followed) {
            return;
        }
        let mut elsewhere = lock(&shared.elsewhere);
        elsewhere.retain(|path| path.is_dir());
        if elsewhere.len() < ELSEWHERE && !elsewhere.contains(&path) {
            tracing::warn!(container = id, cgroup = %path.display(),
                "a container outside host.container_cgroups: it was not followed before it started");
            elsewhere.push(path);
        }
        drop(elsewhere);
        self.watch.wake();
    }

    fn tell(&self, what: impl FnOnce(&mut registry::Registry)) {
        what(&mut lock(&self.shared.registry));
        self.watch.wake();
    }

    /// What the engine calls the container whose cgroup this is, or lies in.
    pub fn about(&self, cgroup: &str) -> Option<Container> {
        let id = cgroup.split('/').find_map(container_id)?;
        let registry = lock(&self.shared.registry);
        let about = registry.get(id).map(|container| container.about.clone());
        // The id alone is certain: it is in the cgroup's name.
        Some(about.unwrap_or_else(|| Container {
            id: id.to_owned(),
            name: String::new(),
            image: String::new(),
        }))
    }

    /// Why a container is refused everything, if it is.
    pub fn why_denied(&self, cgroup: &str) -> Option<Arc<str>> {
        let id = cgroup.split('/').find_map(container_id)?;
        match self.shared.standing(id) {
            Some(Standing::Denied(why)) => Some(why),
            _ => None,
        }
    }

    /// Whether this cgroup is known to be no agent's.
    pub fn is_bystander(&self, cgroup_id: u64) -> bool {
        matches!(
            lock(&self.shared.standings).get(&cgroup_id),
            Some(Some(Standing::Bystander))
        )
    }

    /// Tells when something was found out. Enable it before asking, so that nothing falls in between.
    pub fn changed(&self) -> &Notify {
        &self.shared.changed
    }
}

impl Shared {
    fn standing(&self, container: &str) -> Option<Standing> {
        lock(&self.registry).standing(container)
    }

    fn host_network(&self, container: &str) -> Option<bool> {
        lock(&self.registry).get(container)?.host_network
    }

    fn is_complete(&self) -> bool {
        lock(&self.registry).is_complete()
    }

    fn elsewhere(&self) -> Vec<PathBuf> {
        lock(&self.elsewhere).clone()
    }

    fn publish(&self, standings: impl Iterator<Item = (u64, Option<Standing>)>) {
        let standings: HashMap<u64, Option<Standing>> = standings.collect();
        let mut published = lock(&self.standings);
        if *published != standings {
            *published = standings;
            self.changed.notify_waiters();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The container's id in the name of its cgroup: `<id>`, or `docker-<id>.scope`.
pub(super) fn container_id(name: &str) -> Option<&str> {
    name.split(|c: char| !c.is_ascii_digit() && !('a'..='f').contains(&c))
        .find(|part| part.len() == ID_LENGTH)
}

/// One life of a container. The same for every daemon of this boot, so that a restart of Guard starts no new run.
fn run_of(container: &str, cgroup_id: u64, boot: &str) -> String {
    let hash = Sha256::digest(format!("{boot} {container} {cgroup_id}").as_bytes());
    let short: String = container.chars().take(12).collect();
    let life = hex::encode(hash);
    format!("{short}-{}", life.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f2a9c1b77d03f2a9c1b77d03f2a9c1b77d03f2a9c1b77d03f2a9c1b77d0abcd";

    #[test]
    fn the_id_is_found_in_the_name_of_either_cgroup_driver() {
        assert_eq!(container_id(ID), Some(ID));
        assert_eq!(container_id(&format!("docker-{ID}.scope")), Some(ID));
        for name in ["buildkit", "docker-3f2a.scope", "", &ID[1..], &format!("{ID}0")] {
            assert_eq!(container_id(name), None, "{name}");
        }
    }

    #[test]
    fn each_life_of_a_container_is_a_run_that_a_restart_of_guard_keeps() {
        let run = run_of(ID, 77, "boot");
        assert!(run.starts_with("3f2a9c1b77d0-"), "{run}");
        assert_eq!(run, run_of(ID, 77, "boot"));
        assert_ne!(run, run_of(ID, 78, "boot"));
        assert_ne!(run, run_of(ID, 77, "another boot"));
    }
}
