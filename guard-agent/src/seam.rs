//! What the two processes of the daemon say to each other.
//!
//! The *keeper* holds the privileges: programs, cgroups, namespaces, listeners. The *worker* holds none and reads
//! everything that others wrote. Between them is one pair of sockets; on it pass the messages of this module, each whole
//! or not at all, some with descriptors. The keeper takes no orders: whatever a worker that was taken over may ask for is
//! listed in [`Ask`], and the keeper looks at the facts itself before it does anything.
//!
//! In: a message of at most 64 KiB. Out: the same at the other side. On failure: the pair is broken, the worker ends,
//! and the keeper starts another one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::accept::Unidentified;
use crate::identity::Identity;
use crate::kernel::Flow;
use crate::kernel::governed::GovernedCgroup;

pub mod channel;
mod sealed;
pub mod settings;

pub use channel::Channel;
pub use sealed::Sealed;

/// Changes with every change of a message that the other side would not understand.
pub const VERSION: u32 = 2;

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Governed connections, at 127.0.0.1.
    RedirectV4,
    /// Governed connections, at ::1.
    RedirectV6,
    /// DNS queries over UDP, at 127.0.0.1.
    DnsV4,
    /// DNS queries over UDP, at ::1.
    DnsV6,
}

impl Purpose {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::RedirectV4, Self::RedirectV6, Self::DnsV4, Self::DnsV6];

    /// In the name under which the service manager keeps it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::RedirectV4 => "v4",
            Self::RedirectV6 => "v6",
            Self::DnsV4 => "dns4",
            Self::DnsV6 => "dns6",
        }
    }
}

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first one. With the settings, the admin socket and the metrics port.
    Start(Start),
    /// Accept here, too. With one descriptor for each purpose.
    Listen {
        /// The namespace.
        netns_cookie: u64,
        /// What each descriptor is.
        sockets: Vec<Purpose>,
    },
    /// Accept no more from this namespace.
    Close {
        /// The namespace.
        netns_cookie: u64,
    },
    /// The answer to [`FromWorker::Ask`].
    Answer {
        /// Of which question.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// Put these settings in force, or say why not. With the settings.
    Reload {
        /// Names the answer.
        id: u64,
    },
    /// Whether enforcement is proven at this moment.
    Proof(Proof),
    /// What the programs refused.
    Refusals(Vec<Attempts>),
    /// Kernel events that nobody read in time, since the last message.
    EventsLost(u64),
    /// To be counted and recorded.
    Happened(Event),
    /// Take no new calls, let those in flight end, then end.
    Stop,
}

/// What a worker starts with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// [`VERSION`].
    pub version: u32,
    /// Since when this keeper runs.
    pub since: jiff::Timestamp,
    /// Workers that had ended before.
    pub restarts: u64,
    /// How the last one ended.
    pub last_end: Option<String>,
}

/// Whether what governed processes send must pass here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// It must: just now it was tried.
    Enforcing,
    /// It may not, and why.
    NotEnforcing(String),
}

/// Attempts of one agent along one vector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempts {
    /// The agent; none if it is not configured any more.
    pub agent: Option<Arc<str>>,
    /// The number of the [`Reason`](crate::kernel::Reason).
    pub reason: u32,
    /// Where the first one went.
    pub destination: Option<SocketAddr>,
    /// How many.
    pub count: u64,
}

/// Something that the keeper saw or did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Event {
    /// A program or a pin was gone, and was put back.
    Repaired {
        /// Which program.
        program: String,
    },
    /// Enforcement was not proven any more; the reason.
    Unproven(String),
    /// Enforcement is proven again.
    Proven,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// It serves from now on.
    Ready {
        /// [`VERSION`].
        version: u32,
    },
    /// It cannot serve, and why.
    Failed(String),
    /// It is alive.
    Alive,
    /// A question. A run comes with the connection of whoever asks for it.
    Ask {
        /// Names the answer.
        id: u64,
        /// The question.
        ask: Ask,
    },
    /// The answer to [`ToWorker::Reload`]: notes for the operator, or why nothing was changed.
    Reloaded {
        /// Of which reload.
        id: u64,
        /// How it went.
        outcome: Result<Vec<String>, String>,
    },
}

/// What the worker may ask for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Who is behind a record?
    Identify(Box<Flow>),
    /// Which cgroups are governed?
    Governed,
    /// Does this process belong to an agent?
    IsGoverned {
        /// The process.
        pid: u32,
    },
    /// A socket to a resolver, inside a namespace that Guard listens in.
    Resolver {
        /// The namespace.
        netns_cookie: u64,
        /// The resolver; the port is always that of DNS.
        resolver: IpAddr,
        /// Over TCP.
        stream: bool,
    },
    /// Start a run for the process at the other end of the connection that comes along.
    Run {
        /// Of this agent.
        agent: String,
    },
    /// Read the configuration file again.
    Reload,
}

/// What the keeper answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Identify`].
    Identity(Box<Result<Identity, Unidentified>>),
    /// To [`Ask::Governed`]; the list, which may be long, is in the descriptor that comes along ([`Sealed`]).
    Governed,
    /// To [`Ask::IsGoverned`].
    IsGoverned(bool),
    /// To [`Ask::Resolver`]; the socket comes along.
    Resolver(Result<(), String>),
    /// To [`Ask::Run`].
    Run(Result<Run, String>),
    /// To [`Ask::Reload`]: notes for the operator.
    Reload(Result<Vec<String>, String>),
    /// Too many questions at once.
    Busy,
}

/// A run that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// Id.
    pub id: String,
    /// Cgroup, relative to the root.
    pub cgroup: String,
}

/// The governed cgroups, by id.
pub type Governed = Vec<(u64, GovernedCgroup)>;
