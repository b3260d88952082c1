//! Who is calling: the answer of the `identify` stage, carried by everything after it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The owner of a connection, known from the kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the configured agent.
    pub agent: Arc<str>,
    /// Who pays, from the configuration.
    pub owner: Arc<str>,
    /// One life of the agent's cgroup.
    pub run: Arc<str>,
    /// The caller's cgroup, relative to the host's cgroup root, e.g. `/guard.slice/coder/01J…`.
    pub cgroup: String,
    /// The container, when the cgroup belongs to one.
    pub container: Option<Container>,
    /// The systemd unit, when the cgroup belongs to one.
    pub unit: Option<String>,
    /// The process that called connect(2).
    pub process: Process,
}

/// What is known of a caller that is no agent's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stranger {
    /// Its cgroup, relative to the host's cgroup root.
    pub cgroup: Option<String>,
    /// Its container, when its cgroup belongs to one.
    pub container: Option<Container>,
    /// The process that called connect(2).
    pub process: Option<Process>,
}

/// A container, as its engine describes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// Image reference.
    pub image: String,
}

/// The process that opened the connection, as the kernel saw it at connect(2).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Process {
    /// Thread group id.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// Executable, when /proc still had it.
    pub exe: Option<String>,
    /// Task name; a label, never an identity (a thread can set it).
    pub comm: String,
}
