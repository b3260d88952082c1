//! What can go wrong on the kernel side, each with what to do next.

use std::{io, path::PathBuf};

/// A failure of the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The pin directory is on another file system.
    #[error(
        "{path} is not on a bpf file system: mount one with `mount -t bpf bpf /sys/fs/bpf`, or set host.bpffs"
    )]
    NotBpffs {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The cgroup is not one of version 2.
    #[error("{path} is not a cgroup of version 2: set host.cgroup_root to where cgroup2 is mounted")]
    NotCgroup2 {
        /// The directory asked for.
        path: PathBuf,
    },
    /// A file or directory could not be used.
    #[error("{doing} {path}: {source}")]
    Path {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel did not take a program or a map.
    #[error(
        "the kernel refused {what}: {why}. Guard needs Linux 6.1 and CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN"
    )]
    Load {
        /// Which one.
        what: String,
        /// The last lines of its answer.
        why: String,
    },
    /// The kernel lacks something that no program of ours can do without.
    #[error(
        "this kernel ({release}) cannot enforce: it lacks {missing}. Guard needs Linux 6.1 or a kernel with these \
         features; `guard-agent doctor` has the details"
    )]
    Unable {
        /// As `uname -r` says it.
        release: String,
        /// Every missing feature, with the first kernel that has it.
        missing: String,
        /// What the kernel refused.
        source: Box<KernelError>,
    },
    /// A program could not be attached.
    #[error("{program} could not be attached to {cgroup}: {source}")]
    Attach {
        /// Which one.
        program: &'static str,
        /// Where to.
        cgroup: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The object lacks a program or a map of this name: it was built from other sources.
    #[error("the eBPF object has no {0}: build it together with this daemon")]
    Missing(&'static str),
    /// A policy map has no room. Nothing was evicted, and the new entry is not in force.
    #[error("{map} is full ({entries} entries): {what} is refused")]
    Full {
        /// Which map.
        map: &'static str,
        /// How many entries it holds.
        entries: u32,
        /// What did not fit.
        what: String,
    },
    /// A policy map could not be changed.
    #[error("{map} could not be changed: {why}")]
    Map {
        /// Which map.
        map: &'static str,
        /// What the system said.
        why: String,
    },
    /// The cgroup cannot be governed.
    #[error("cgroup {cgroup_id} cannot be governed: {why}")]
    Cgroup {
        /// Which one.
        cgroup_id: u64,
        /// Why not.
        why: String,
    },
    /// Somebody wanted to weaken a kernel side that is no lab's.
    #[error("counter-measures can be switched off in the lab only")]
    NotInLab,
    /// A pattern of the configuration cannot be used.
    #[error("cgroup pattern {pattern:?}: {why}")]
    Pattern {
        /// As configured.
        pattern: String,
        /// Why not.
        why: String,
    },
}

impl KernelError {
    pub(super) fn path(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Path { doing, path, source }
    }
}
