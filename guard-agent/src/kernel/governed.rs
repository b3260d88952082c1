//! The governed set: keeps `AGENTS` in step with the cgroups that match the configuration.
//!
//! In: patterns, and runs that are adopted by path. Out: governed cgroups, each with its agent and run. On
//! failure: a cgroup that cannot be governed is logged and tried again at the next scan; nothing that is
//! governed is let go because of an error.
//!
//! A *run* is one life of a governed cgroup. Under `/x/**` each direct child of `x` is a run of its own;
//! until it is known its processes count as the run of `x`, so a new child is governed from its first call.

mod cut;
mod pattern;
mod runs;
mod scan;
mod set;
mod unit;
mod watch;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    set::{Origin, Shared},
    watch::Watcher,
};
use super::{Kernel, KernelError};

pub use self::unit::unit_of;

/// Who is behind a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GovernedCgroup {
    /// The agent's number.
    pub agent: u32,
    /// The run.
    pub run: String,
    /// The governed cgroup, relative to the root that is watched: `/agents.slice/coder`.
    pub path: String,
}

/// The governed set, kept up to date by a thread of its own until it is dropped.
#[derive(Debug)]
pub struct GovernedSet {
    shared: Arc<Shared>,
    /// Ends its thread when dropped.
    watcher: Watcher,
}

impl GovernedSet {
    /// Governs what matches now and keeps watching. `patterns` gives each agent its cgroups and units.
    ///
    /// What an earlier daemon governed stays governed: runs of `guard-agent run` are known again by their
    /// path, the rest waits for [`Self::release_leftovers`].
    pub fn start(
        kernel: Arc<Kernel>,
        root: &Path,
        patterns: &[(u32, Vec<String>)],
    ) -> Result<Self, KernelError> {
        let shared = Arc::new(Shared::new(kernel, root.to_owned()));
        shared.set_patterns(pattern::parse(patterns)?)?;
        let watcher = Watcher::start(Arc::clone(&shared)).map_err(KernelError::path("cannot watch", root))?;
        shared.reconcile();
        Ok(Self { shared, watcher })
    }

    /// Replaces the patterns, for a reload.
    pub fn set_patterns(&self, patterns: &[(u32, Vec<String>)]) -> Result<(), KernelError> {
        self.shared.set_patterns(pattern::parse(patterns)?)?;
        self.shared.reconcile();
        self.watcher.wake();
        Ok(())
    }

    /// The governed cgroup that this cgroup is or lies in.
    ///
    /// A child that was made a moment ago is found here even before the watcher has seen it.
    #[must_use]
    pub fn lookup(&self, cgroup_id: u64) -> Option<GovernedCgroup> {
        self.shared.lookup(cgroup_id)
    }

    /// Whether this cgroup was held back only because its name begins as that of an agent's unit, and is no agent's. One
    /// that is gone is not known to be nobody's.
    #[must_use]
    pub fn is_nobodys(&self, cgroup_id: u64) -> bool {
        self.shared.is_nobodys(cgroup_id)
    }

    /// Governs a cgroup that `guard-agent run` made, under its run's id. Call it before a process enters.
    ///
    /// When its last process is gone the cgroup is removed and let go.
    pub fn adopt_run(&self, path: &Path, agent: u32, run_id: &str) -> Result<(), KernelError> {
        self.shared.adopt(path, agent, run_id, Origin::Run)?;
        self.watcher.wake();
        Ok(())
    }

    /// Governs a cgroup that somebody else made and will remove: a container's or a unit's.
    pub fn adopt_cgroup(&self, path: &Path, agent: u32, run_id: &str) -> Result<(), KernelError> {
        self.shared.adopt(path, agent, run_id, Origin::Adopted)?;
        self.watcher.wake();
        Ok(())
    }

    /// Lets a cgroup go, whatever brought it in; a pattern that matches brings it back.
    pub fn release(&self, cgroup_id: u64) {
        self.shared.release(cgroup_id);
    }

    /// Lets go what an earlier daemon governed and neither this set nor `keep` knows.
    ///
    /// Call it once every source (containers, units) has said what it governs: before that it would open a
    /// gap in which a running agent goes direct.
    pub fn release_leftovers(&self, keep: &HashSet<u64>) {
        self.shared.release_leftovers(keep);
    }

    /// Every governed cgroup that is known here.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, GovernedCgroup)> {
        self.shared.all()
    }

    /// The directory of a governed cgroup.
    #[must_use]
    pub fn directory(&self, cgroup: &GovernedCgroup) -> PathBuf {
        self.shared.directory(&cgroup.path)
    }
}
