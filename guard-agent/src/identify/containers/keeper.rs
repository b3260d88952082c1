//! The containers that are alive, by their cgroups: governs each as its labels say and opens its listeners.
//!
//! In: the directories where the engine makes cgroups, and the registry. Out: governed cgroups, cgroups that may pass,
//! doors. On failure: a container stays held back (or governed), and the next step tries again.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::doors::Doors;
use super::registry::Standing;
use super::{DENIED, Shared, container_id, run_of};
use crate::kernel::{UNIDENTIFIED, cgroup};

/// A container's namespace comes some tens of ms after its cgroup: until then it is looked for at every step.
const SOON: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(3);
/// Afterwards, or for one that the engine does not name.
const SLOW_STEP: Duration = Duration::from_millis(200);
/// A lost event heals within this time.
const RESCAN: Duration = Duration::from_secs(5);
/// What is not identified after this long is worth a line.
const LATE: Duration = Duration::from_secs(1);

pub(super) struct Keeper {
    shared: Arc<Shared>,
    doors: Doors,
    live: HashMap<u64, Live>,
    /// Where every child is a container, and of these, where the programs hold new ones back.
    dedicated: Vec<u64>,
    held: Vec<u64>,
    /// What an earlier daemon governed and let pass.
    before: HashMap<u64, u32>,
    /// Whether that has been put in order.
    settled: bool,
}

/// One container's cgroup.
struct Live {
    path: PathBuf,
    container: Option<String>,
    /// Its directory is one of containers' own, where the programs hold back what is new.
    dedicated: bool,
    /// Registered as nobody's yet, which holds it back where its directory does not.
    held: bool,
    standing: Option<Standing>,
    network: Network,
    since: Instant,
    warned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Not seen yet.
    Unknown,
    /// It has none of its own, or needs no listener.
    Host,
    /// The inode of its own.
    Inside(u64),
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, doors: Doors) -> Self {
        let before = shared.kernel.governed().into_iter().collect();
        Self {
            shared,
            doors,
            live: HashMap::new(),
            dedicated: Vec::new(),
            held: Vec::new(),
            before,
            settled: false,
        }
    }

    /// Looks at the directories; gives those to watch.
    pub(super) fn scan(&mut self) -> Vec<PathBuf> {
        let (mut watch, mut parents, mut found) = (Vec::new(), Vec::new(), HashMap::new());
        for place in &self.shared.places {
            let directory = self.shared.root.join(&place.parent);
            watch.push(nearest(&directory));
            let Ok(id) = cgroup::id_of(&directory) else {
                continue;
            };
            if place.dedicated {
                parents.push(id);
            }
            for (id, path) in children(&directory) {
                let named = path.file_name().and_then(|name| name.to_str());
                if named.is_some_and(|name| place.name.is_match(name)) {
                    found.insert(id, (path, place.dedicated));
                }
            }
        }
        for path in self.shared.elsewhere() {
            if let Ok(id) = cgroup::id_of(&path) {
                watch.push(path.clone());
                found.insert(id, (path, false));
            }
        }
        parents.sort_unstable();
        parents.dedup();
        self.dedicated = parents;
        let gone: Vec<u64> = self
            .live
            .keys()
            .filter(|id| !found.contains_key(id))
            .copied()
            .collect();
        gone.into_iter().for_each(|id| self.bury(id));
        for (id, (path, dedicated)) in found {
            self.live.entry(id).or_insert_with(|| Live::new(path, dedicated));
        }
        watch
    }

    /// Not before the engine has named what runs already: that is not new, and must not fail.
    fn hold_back(&mut self) {
        if self.dedicated == self.held || !self.settled {
            return;
        }
        match self.shared.kernel.hold_back(&self.dedicated) {
            Ok(()) => self.held.clone_from(&self.dedicated),
            Err(error) => {
                tracing::error!(%error, "new containers are not held back until they are identified")
            }
        }
    }

    /// Does for each container what can be done now; says when to come again.
    pub(super) fn step(&mut self) -> Duration {
        let complete = self.shared.is_complete();
        let mut ids: Vec<u64> = self.live.keys().copied().collect();
        ids.sort_unstable();
        let mut again = RESCAN;
        for id in ids {
            let Some(mut live) = self.live.remove(&id) else {
                continue;
            };
            again = again.min(self.advance(id, &mut live));
            self.live.insert(id, live);
        }
        self.shared
            .publish(self.live.iter().map(|(id, live)| (*id, live.standing.clone())));
        if complete {
            self.settle();
            self.hold_back();
        }
        again
    }

    fn advance(&mut self, id: u64, live: &mut Live) -> Duration {
        let judged = match &live.container {
            // No container's name: a builder's or the engine's own.
            None => Some(Standing::Bystander),
            Some(container) => self.shared.standing(container),
        };
        // Until the engine speaks, an earlier daemon's word stands.
        let known_before = || self.before.get(&id).filter(|agent| **agent != UNIDENTIFIED);
        let judged = judged.or_else(|| known_before().map(|agent| Standing::Agent(*agent)));
        if judged.is_none() && live.standing.is_none() {
            self.hold(id, live);
        }
        if judged.is_some() && judged != live.standing && self.apply(id, live, judged.as_ref()) {
            live.standing = judged;
        }
        if live.standing == Some(Standing::Bystander) {
            return RESCAN;
        }
        self.open(id, live);
        let age = live.since.elapsed();
        if live.standing.is_none() && age > LATE && !live.warned {
            live.warned = true;
            let container = live.container.as_deref().unwrap_or_default();
            tracing::warn!(
                container,
                "the engine does not name this container: its connections are refused"
            );
        }
        match (live.network, &live.standing) {
            (Network::Unknown, _) if age < SOON => STEP,
            (Network::Unknown, _) | (_, None) => SLOW_STEP,
            _ => RESCAN,
        }
    }

    /// Where others have cgroups, too, the programs cannot tell a container's from theirs: each one is held back by
    /// itself, as soon as its directory is seen, which is before the engine has put a process there.
    fn hold(&self, id: u64, live: &mut Live) {
        if live.dedicated || live.held || !self.settled {
            return;
        }
        match self.shared.kernel.govern(id, UNIDENTIFIED) {
            Ok(()) => live.held = true,
            Err(error) => tracing::error!(%error, "a new container is not held back until it is identified"),
        }
    }

    /// Makes the kernel treat the cgroup as judged.
    fn apply(&mut self, id: u64, live: &mut Live, judged: Option<&Standing>) -> bool {
        let shared = &self.shared;
        let container = live.container.as_deref().unwrap_or_default();
        let done = match judged {
            Some(Standing::Agent(agent)) => shared.govern(&live.path, id, *agent, container),
            Some(Standing::Denied(why)) => {
                tracing::warn!(%why, "a container's connections are refused");
                shared.govern(&live.path, id, DENIED, container)
            }
            Some(Standing::Bystander) => shared.let_pass(id, live.standing.is_some(), live.held),
            None => return false,
        };
        if let Err(error) = done {
            tracing::error!(%error, container, "a container is not treated as its labels say");
            return false;
        }
        // It is the governed set's from now on, or nobody's.
        live.held = false;
        if let (Some(Standing::Bystander), Network::Inside(inode)) = (judged, live.network) {
            self.doors.let_go(inode, id);
            live.network = Network::Unknown;
        }
        tracing::debug!(container, ?judged, after = ?live.since.elapsed(), "a container is known");
        true
    }

    fn open(&mut self, id: u64, live: &mut Live) {
        if live.network != Network::Unknown {
            return;
        }
        let host = live
            .container
            .as_deref()
            .and_then(|container| self.shared.host_network(container));
        if host == Some(true) {
            live.network = Network::Host;
            return;
        }
        // The engine gives the first process its namespace before it runs anything of the image.
        for pid in cgroup::processes(&live.path) {
            let Some(inode) = self.doors.other_namespace(pid) else {
                continue;
            };
            match self.doors.hold(pid, inode, id) {
                Ok(()) => {
                    live.network = Network::Inside(inode);
                    tracing::debug!(after = ?live.since.elapsed(), "a container has its listener");
                    return;
                }
                // Loopback comes up a little later than the namespace.
                Err(error) => tracing::debug!(%error, pid, "no listener yet"),
            }
        }
    }

    fn bury(&mut self, id: u64) {
        let Some(live) = self.live.remove(&id) else { return };
        if let Network::Inside(inode) = live.network {
            self.doors.let_go(inode, id);
        }
        let forgotten = self.shared.kernel.forget(id).and_then(|()| match live.held {
            true => self.shared.kernel.ungovern(id),
            false => Ok(()),
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, cgroup_id = id, "a cgroup that is gone stays known");
        }
        self.before.remove(&id);
    }

    /// Once the engine has named its containers, nothing of an earlier daemon is needed any more.
    fn settle(&mut self) {
        if self.settled {
            return;
        }
        self.settled = true;
        // What an earlier daemon held back, and the engine has not named: it stays so.
        let mut held = HashSet::new();
        for (id, live) in &mut self.live {
            if live.standing.is_none() && self.before.get(id) == Some(&UNIDENTIFIED) {
                live.held = true;
                held.insert(*id);
            }
        }
        self.before.clear();
        self.shared.governed.release_leftovers(&held);
        for id in self.shared.kernel.passing() {
            if !self.live.contains_key(&id)
                && let Err(error) = self.shared.kernel.forget(id)
            {
                tracing::warn!(%error, cgroup_id = id, "a cgroup that is gone stays known");
            }
        }
        self.doors.sweep();
    }
}

impl Live {
    fn new(path: PathBuf, dedicated: bool) -> Self {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Self {
            container: name.as_deref().and_then(container_id).map(str::to_owned),
            path,
            dedicated,
            held: false,
            standing: None,
            network: Network::Unknown,
            since: Instant::now(),
            warned: false,
        }
    }
}

/// The directory, or the nearest one above it that is there: where it will appear.
fn nearest(directory: &Path) -> PathBuf {
    let there = directory.ancestors().find(|at| at.is_dir());
    there.unwrap_or(directory).to_owned()
}

fn children(directory: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .filter_map(|entry| Some((entry.metadata().ok()?.ino(), entry.path())))
        .collect()
}

impl Shared {
    fn govern(
        &self,
        path: &Path,
        id: u64,
        agent: u32,
        container: &str,
    ) -> Result<(), crate::kernel::KernelError> {
        self.governed
            .adopt_cgroup(path, agent, &run_of(container, id, &self.boot))?;
        self.kernel.forget(id)
    }

    /// `was_known`: it was an agent's until now. `held`: it was held back by itself.
    fn let_pass(&self, id: u64, was_known: bool, held: bool) -> Result<(), crate::kernel::KernelError> {
        self.kernel.let_pass(id)?;
        if held {
            self.kernel.ungovern(id)?;
        }
        if was_known {
            self.governed.release(id);
        }
        Ok(())
    }
}
