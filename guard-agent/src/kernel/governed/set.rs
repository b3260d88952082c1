//! The set itself: what is governed, and how one scan of the tree brings it up to date.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

use super::{
    GovernedCgroup,
    cut::cut,
    pattern::{self, Pattern},
    scan::{self, Found, relative},
};
use crate::kernel::{Kernel, KernelError, UNIDENTIFIED, cgroup};

/// How long an adopted cgroup may wait for its first process. One that comes later finds no cgroup, so its
/// command does not start.
const TIME_TO_ENTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kernel: Arc<Kernel>,
    pub(super) root: PathBuf,
    /// Tells this boot of the machine from others.
    boot: String,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    patterns: Vec<Pattern>,
    pub(super) known: HashMap<u64, Entry>,
}

/// Why a cgroup is in the set, and so when it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A pattern matches: until none does.
    Pattern,
    /// `guard-agent run` made it: removed here when it is empty.
    Run,
    /// A container or unit, adopted by path: until its owner removes the directory.
    Adopted,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) cgroup: GovernedCgroup,
    pub(super) origin: Origin,
    /// Adopted: until then an empty cgroup is one whose first process is still on its way.
    pub(super) enters_until: Instant,
}

impl Shared {
    pub(super) fn new(kernel: Arc<Kernel>, root: PathBuf) -> Self {
        Self {
            kernel,
            root,
            boot: boot_id(),
            state: Mutex::new(State {
                patterns: Vec::new(),
                known: HashMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names are held back before anybody looks for them.
    pub(super) fn set_patterns(&self, patterns: Vec<Pattern>) -> Result<(), KernelError> {
        // Under the lock: in between, what is held back by the new list would be judged by the old patterns.
        let mut state = self.lock();
        self.kernel.hold_names(&pattern::beginnings(&patterns))?;
        state.patterns = patterns;
        Ok(())
    }

    /// Whether this cgroup was held back for its name alone: it is there, and no pattern asks for it or for one above.
    pub(super) fn is_nobodys(&self, id: u64) -> bool {
        let Ok(path) = cgroup::path_of(id, &self.root) else {
            return false;
        };
        let state = self.lock();
        let is_held_by_name = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| pattern::begins_as_a_unit(&state.patterns, name));
        is_held_by_name
            && path
                .ancestors()
                .take_while(|at| at.starts_with(&self.root))
                .all(|at| scan::agent_of(&state.patterns, &self.root, at).is_none())
    }

    /// What the programs held back for its name and this scan has seen is governed by now, or nobody's. What could not be
    /// governed, or may not have been seen, stays held back.
    fn settle(&self, state: &State, held: Vec<u64>, found: &Found) {
        let is_agents = |id: &u64| found.matching.iter().any(|(matching, ..)| matching == id);
        let may_go = held
            .into_iter()
            .filter(|id| state.known.contains_key(id) || found.incomplete.is_none() && !is_agents(id));
        for id in may_go {
            if let Err(error) = self.kernel.settle(id) {
                tracing::error!(%error, cgroup_id = id, "a cgroup stays held back for its name");
            }
        }
    }

    pub(super) fn directory(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub(super) fn all(&self) -> Vec<(u64, GovernedCgroup)> {
        self.lock()
            .known
            .iter()
            .map(|(id, entry)| (*id, entry.cgroup.clone()))
            .collect()
    }

    pub(super) fn lookup(&self, cgroup_id: u64) -> Option<GovernedCgroup> {
        if let Some(entry) = self.lock().known.get(&cgroup_id) {
            return Some(entry.cgroup.clone());
        }
        let path = cgroup::path_of(cgroup_id, &self.root).ok()?;
        let mut at = path.as_path();
        while at != self.root && at.starts_with(&self.root) {
            if let Some(found) = self.known_or_new(at) {
                return Some(found);
            }
            at = at.parent()?;
        }
        None
    }

    /// The entry of this very directory, made now if a pattern asks for it.
    fn known_or_new(&self, directory: &Path) -> Option<GovernedCgroup> {
        let id = cgroup::id_of(directory).ok()?;
        let mut state = self.lock();
        if !state.known.contains_key(&id) {
            let agent = scan::agent_of(&state.patterns, &self.root, directory)?;
            self.govern(&mut state, id, agent, directory);
        }
        state.known.get(&id).map(|entry| entry.cgroup.clone())
    }

    pub(super) fn adopt(
        &self,
        path: &Path,
        agent: u32,
        run: &str,
        origin: Origin,
    ) -> Result<(), KernelError> {
        let id = cgroup::id_of(path).map_err(KernelError::path("cannot look at", path))?;
        let mut state = self.lock();
        self.enrol(id, agent, path)?;
        let cgroup = GovernedCgroup {
            agent,
            run: run.to_owned(),
            path: relative(&self.root, path),
        };
        state.known.insert(
            id,
            Entry {
                cgroup,
                origin,
                enters_until: Instant::now() + TIME_TO_ENTER,
            },
        );
        Ok(())
    }

    /// Brings the set in step with the tree. Gives the directories to watch for new and gone children.
    pub(super) fn reconcile(&self) -> Vec<PathBuf> {
        let mut state = self.lock();
        // Before the scan: what is made after this line waits for the next one.
        let held = self.kernel.held_by_name();
        let mut found = Found::default();
        scan::scan(
            &state.patterns,
            &self.root,
            &self.root,
            &mut Vec::new(),
            &mut found,
        );
        for (id, agent, directory) in &found.matching {
            let unchanged = state
                .known
                .get(id)
                .is_some_and(|entry| entry.origin != Origin::Pattern || entry.cgroup.agent == *agent);
            if !unchanged {
                self.govern(&mut state, *id, *agent, directory);
            }
        }
        self.settle(&state, held, &found);
        let keep: HashSet<u64> = found.matching.iter().map(|(id, ..)| *id).collect();
        self.adopt_runs(&mut state);
        self.end_runs(&mut state);
        if let Some(error) = &found.incomplete {
            tracing::error!(%error, "the cgroup tree was not seen as a whole: nothing is let go");
        }
        let over: Vec<u64> = state
            .known
            .iter()
            .filter(|_| found.incomplete.is_none())
            .filter(|(id, entry)| entry.origin == Origin::Pattern && !keep.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.let_go(&mut state, id);
        }
        let adopted = state
            .known
            .values()
            .filter(|entry| entry.origin != Origin::Pattern);
        found
            .watch
            .extend(adopted.map(|entry| self.directory(&entry.cgroup.path).join("cgroup.events")));
        found.watch
    }

    fn govern(&self, state: &mut State, id: u64, agent: u32, directory: &Path) {
        if let Err(error) = self.enrol(id, agent, directory) {
            tracing::error!(%error, cgroup = %directory.display(), "a cgroup of an agent is not governed");
            return;
        }
        let run = self.run_of_cgroup(id, agent);
        let cgroup = GovernedCgroup {
            agent,
            run,
            path: relative(&self.root, directory),
        };
        tracing::info!(cgroup = cgroup.path, agent, run = cgroup.run, "governed");
        state.known.insert(
            id,
            Entry {
                cgroup,
                origin: Origin::Pattern,
                enters_until: Instant::now(),
            },
        );
    }

    /// Governs, and cuts what had been opened before; nothing could have been if a cgroup above was governed.
    fn enrol(&self, id: u64, agent: u32, directory: &Path) -> Result<(), KernelError> {
        let covered = self.is_covered(directory);
        self.kernel.govern(id, agent)?;
        if !covered || self.kernel.was_direct() {
            cut(id, directory);
        }
        Ok(())
    }

    /// Whether this directory or one above is governed. What is only held back until it is identified may have
    /// connections from the moment before that, and what went direct while no daemon ran has them.
    fn is_covered(&self, directory: &Path) -> bool {
        directory
            .ancestors()
            .take_while(|at| at.starts_with(&self.root))
            .filter_map(|at| self.kernel.agent_of(cgroup::id_of(at).ok()?))
            .any(|agent| agent != UNIDENTIFIED)
    }

    /// The run that one life of a cgroup is. The kernel never gives a cgroup's id twice between two boots, so the run
    /// keeps its name, and with it what it has spent, when this daemon is started again.
    fn run_of_cgroup(&self, id: u64, agent: u32) -> String {
        let digest = Sha256::new()
            .chain_update(&self.boot)
            .chain_update(id.to_le_bytes())
            .chain_update(agent.to_le_bytes())
            .finalize();
        let mut short = [0; 16];
        short.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        ulid::Ulid::from_bytes(short).to_string()
    }

    pub(super) fn let_go(&self, state: &mut State, id: u64) {
        if let Some(entry) = state.known.get(&id) {
            let directory = self.directory(&entry.cgroup.path);
            if !directory.parent().is_some_and(|above| self.is_covered(above)) {
                cut(id, &directory);
            }
        }
        if let Err(error) = self.kernel.ungovern(id) {
            tracing::error!(%error, cgroup_id = id, "a cgroup stays governed");
            return;
        }
        if let Some(entry) = state.known.remove(&id) {
            tracing::info!(
                cgroup = entry.cgroup.path,
                run = entry.cgroup.run,
                "no longer governed"
            );
        }
    }

    /// Lets go what the kernel governs and nobody knows.
    pub(super) fn release_leftovers(&self, keep: &HashSet<u64>) {
        let mut state = self.lock();
        for (id, _) in self.kernel.governed() {
            if !keep.contains(&id) && !state.known.contains_key(&id) {
                self.let_go(&mut state, id);
            }
        }
    }

    /// Without a gap where a pattern matches: then it is the pattern's from now on.
    pub(super) fn release(&self, id: u64) {
        let mut state = self.lock();
        let directory = state
            .known
            .get(&id)
            .map(|entry| self.directory(&entry.cgroup.path));
        let agent = directory
            .as_deref()
            .and_then(|path| scan::agent_of(&state.patterns, &self.root, path));
        match (directory, agent) {
            (Some(directory), Some(agent)) => self.govern(&mut state, id, agent, &directory),
            _ => self.let_go(&mut state, id),
        }
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_else(|error| {
        // Runs then get new names at every start of the daemon.
        tracing::warn!(%error, "this boot has no id");
        ulid::Ulid::new().to_string()
    })
}
