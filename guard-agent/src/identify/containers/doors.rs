//! Listeners inside the network namespaces of containers.
//!
//! In: a process whose namespace is meant. Out: loopback listeners there, handed to the worker, and the programs told
//! of them. On failure: no listener, so governed connections of that namespace are refused.
//!
//! A listener keeps its namespace alive, so it is closed when the last container that needs it has gone.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::kernel::{Kernel, Listeners, inside, netns_cookie, open_listeners};

/// What the keeper tells the worker.
#[derive(Debug)]
pub enum Door {
    /// Connections will arrive here.
    Opened {
        /// The namespace.
        netns_cookie: u64,
        /// Its listeners.
        listeners: Listeners,
    },
    /// Close the listeners of this namespace.
    Closed {
        /// The namespace.
        netns_cookie: u64,
    },
}

/// Listeners that an earlier keeper had opened, by the cookie of their namespace, until somebody claims them.
pub type Kept = Arc<Mutex<HashMap<u64, Listeners>>>;

/// Where doors go, and where those come from that are open already.
#[derive(Debug, Clone)]
pub struct Hallway {
    /// To whoever keeps the listeners.
    pub doors: mpsc::Sender<Door>,
    /// Open since before this start.
    pub kept: Kept,
}

impl From<mpsc::Sender<Door>> for Hallway {
    fn from(doors: mpsc::Sender<Door>) -> Self {
        Self {
            doors,
            kept: Kept::default(),
        }
    }
}

/// The open listeners.
#[derive(Debug)]
pub(super) struct Doors {
    kernel: Arc<Kernel>,
    worker: mpsc::Sender<Door>,
    kept: Kept,
    /// The namespace that Guard itself lives in: its listeners are opened elsewhere.
    host: u64,
    host_cookie: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    netns_cookie: u64,
    holders: HashSet<u64>,
}

impl Doors {
    pub(super) fn new(kernel: Arc<Kernel>, hallway: Hallway) -> io::Result<Self> {
        Ok(Self {
            kernel,
            worker: hallway.doors,
            kept: hallway.kept,
            host: fs::metadata("/proc/self/ns/net")?.ino(),
            host_cookie: netns_cookie(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?)?,
            open: HashMap::new(),
        })
    }

    /// The namespace of a process, by its inode; none if it is Guard's own.
    pub(super) fn other_namespace(&self, pid: u32) -> Option<u64> {
        let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
        (inode != self.host).then_some(inode)
    }

    /// Opens the listeners of the namespace that this process is in, or finds them open. `holder` needs them.
    pub(super) fn hold(&mut self, pid: u32, inode: u64, holder: u64) -> io::Result<()> {
        if let Some(open) = self.open.get_mut(&inode) {
            open.holders.insert(holder);
            return Ok(());
        }
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        if namespace.metadata()?.ino() != inode {
            return Err(io::Error::other("the process has moved on"));
        }
        let kept = self.kept.clone();
        let listeners = inside(namespace, move || listeners_here(&kept))?;
        let cookie = netns_cookie(&listeners.v4)?;
        let port = listeners.v4.local_addr()?.port();
        let has_v6 = listeners.v6.is_some();
        let door = Door::Opened {
            netns_cookie: cookie,
            listeners,
        };
        self.worker
            .blocking_send(door)
            .map_err(|_stopping| io::Error::other("Guard is stopping"))?;
        self.kernel
            .set_listener(cookie, port, has_v6)
            .map_err(io::Error::other)?;
        let open = Open {
            netns_cookie: cookie,
            holders: HashSet::from([holder]),
        };
        self.open.insert(inode, open);
        tracing::info!(
            cookie,
            port,
            has_v6,
            "listening inside a container's network namespace"
        );
        Ok(())
    }

    /// Lets go of the listeners that an earlier keeper had opened and nobody needs, and takes what it left of
    /// namespaces that nobody holds now out of the programs' map.
    pub(super) fn sweep(&self) {
        let unclaimed: Vec<u64> = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.drain().map(|(cookie, _)| cookie).collect()
        };
        for netns_cookie in unclaimed {
            // Stopping closes every listener anyway.
            drop(self.worker.blocking_send(Door::Closed { netns_cookie }));
        }
        let held: HashSet<u64> = self.open.values().map(|open| open.netns_cookie).collect();
        for cookie in self.kernel.listeners() {
            if cookie != self.host_cookie
                && !held.contains(&cookie)
                && let Err(error) = self.kernel.remove_listener(cookie)
            {
                tracing::warn!(%error, cookie, "the listener of a namespace that is gone stays known");
            }
        }
    }

    /// This holder needs them no more.
    pub(super) fn let_go(&mut self, inode: u64, holder: u64) {
        let Some(open) = self.open.get_mut(&inode) else {
            return;
        };
        open.holders.remove(&holder);
        if !open.holders.is_empty() {
            return;
        }
        let netns_cookie = open.netns_cookie;
        self.open.remove(&inode);
        if let Err(error) = self.kernel.remove_listener(netns_cookie) {
            tracing::warn!(%error, cookie = netns_cookie, "the listener of a namespace that is gone stays known");
        }
        // Stopping closes every listener anyway.
        drop(self.worker.blocking_send(Door::Closed { netns_cookie }));
    }
}

/// Those of the calling thread's namespace: open already, or opened now.
fn listeners_here(kept: &Kept) -> io::Result<Listeners> {
    let cookie = netns_cookie(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)?;
    let open = kept
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&cookie);
    open.map_or_else(|| open_listeners(0), Ok)
}
