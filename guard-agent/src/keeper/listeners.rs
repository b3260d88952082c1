//! The listening sockets, which outlive every worker: while none is there, connections wait in them.
//!
//! In: what was opened, here or by an earlier keeper. Out: the same sockets at each worker, and with the service
//! manager. On failure: a namespace without a listener, whose governed connections the programs refuse.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socket2::SockRef;

use super::desk::Desk;
use super::store;
use crate::kernel::Listeners;
use crate::seam::{Purpose, ToWorker};

/// The sockets of one namespace.
type Sockets = Vec<(Purpose, OwnedFd)>;

/// All open ones, by the cookie of their namespace.
#[derive(Debug)]
pub(super) struct Listening {
    open: Mutex<BTreeMap<u64, Sockets>>,
    desk: Arc<Desk>,
}

impl Listening {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self {
            open: Mutex::default(),
            desk,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Sockets>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps these and hands them to the worker.
    pub(super) fn add(&self, netns_cookie: u64, listeners: Listeners) -> io::Result<()> {
        let all = [
            Some((Purpose::RedirectV4, OwnedFd::from(listeners.v4))),
            listeners.v6.map(|v6| (Purpose::RedirectV6, v6.into())),
            Some((Purpose::DnsV4, listeners.dns_v4.into())),
            listeners.dns_v6.map(|v6| (Purpose::DnsV6, v6.into())),
        ];
        let mut sockets = Sockets::new();
        for (purpose, socket) in all.into_iter().flatten() {
            SockRef::from(&socket).set_nonblocking(true)?;
            store::keep(netns_cookie, purpose, &socket);
            sockets.push((purpose, socket));
        }
        let mut open = self.lock();
        hand(&self.desk, netns_cookie, &sockets)?;
        open.insert(netns_cookie, sockets);
        Ok(())
    }

    /// One of a namespace's sockets, to find the namespace by.
    pub(super) fn any_of(&self, netns_cookie: u64) -> io::Result<OwnedFd> {
        let open = self.lock();
        let sockets = open.get(&netns_cookie).and_then(|sockets| sockets.first());
        let (_, socket) = sockets.ok_or_else(|| io::Error::other("Guard does not listen there"))?;
        socket.try_clone()
    }

    /// Closes those of a namespace.
    pub(super) fn remove(&self, netns_cookie: u64) {
        if self.lock().remove(&netns_cookie).is_some() {
            self.desk.tell(ToWorker::Close { netns_cookie });
        }
        // Also what an earlier keeper left there.
        store::forget_all(netns_cookie);
    }

    /// Makes this the way to the worker, and hands it everything that is open. Nothing is opened meanwhile.
    pub(super) fn hand_over<T>(&self, begin: impl FnOnce() -> T) -> io::Result<T> {
        let open = self.lock();
        let begun = begin();
        for (netns_cookie, sockets) in &*open {
            hand(&self.desk, *netns_cookie, sockets)?;
        }
        Ok(begun)
    }

    /// Closes all, unless the service manager keeps them for the next keeper.
    pub(super) fn close_all(&self) {
        self.lock().clear();
    }
}

fn hand(desk: &Desk, netns_cookie: u64, sockets: &Sockets) -> io::Result<()> {
    let copies = sockets
        .iter()
        .map(|(_, socket)| socket.try_clone())
        .collect::<io::Result<Vec<_>>>()?;
    let message = ToWorker::Listen {
        netns_cookie,
        sockets: sockets.iter().map(|(purpose, _)| *purpose).collect(),
    };
    // Without a worker they wait for the next one.
    desk.tell_with(message, copies);
    Ok(())
}
