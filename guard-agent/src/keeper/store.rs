//! Sockets that outlive the keeper: the service manager's store of descriptors (sd_notify(3), `FDSTORE=1`).
//!
//! In: a listening socket. Out: the same socket in the next keeper, with the connections that waited in it. On failure,
//! or without a service manager: the next keeper opens new ones, and what waited is refused.
#![allow(
    unsafe_code,
    reason = "descriptors that the service manager passed are known by number alone"
)]

use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::notify;
use crate::kernel::{Listeners, netns_cookie};
use crate::seam::Purpose;

/// The first passed descriptor (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// Before the cookie in a name.
const PREFIX: &str = "guard-";

/// What an earlier keeper left, by namespace.
#[derive(Debug, Default)]
pub(super) struct Stored(HashMap<u64, Listeners>);

impl Stored {
    /// Takes the descriptors that were passed to this process. Call it once, before anything else is opened.
    pub(super) fn take() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(count) = passed(variable("LISTEN_PID"), variable("LISTEN_FDS"), std::process::id()) else {
            return Self::default();
        };
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets: HashMap<u64, HashMap<Purpose, OwnedFd>> = HashMap::new();
        for fd in (FIRST..).take(count) {
            // SAFETY: the service manager opened exactly these for us, and nothing else here knows of them yet.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            if let Err(error) = fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
                tracing::warn!(%error, fd, "a descriptor that was passed is none");
                continue;
            }
            if let Some((cookie, purpose)) = names.next().and_then(parse) {
                sockets.entry(cookie).or_default().insert(purpose, socket);
            }
        }
        let mut stored = HashMap::new();
        for (cookie, sockets) in sockets {
            match whole(cookie, sockets) {
                Ok(listeners) => drop(stored.insert(cookie, listeners)),
                Err(why) => {
                    // What waits in them would wait for ever: nobody accepts it.
                    tracing::warn!(why, "sockets that the service manager kept are of no use");
                    forget_all(cookie);
                }
            }
        }
        Self(stored)
    }

    /// Those of one namespace.
    pub(super) fn claim(&mut self, netns_cookie: u64) -> Option<Listeners> {
        self.0.remove(&netns_cookie)
    }

    /// Those that nobody has claimed.
    pub(super) fn rest(self) -> impl Iterator<Item = (u64, Listeners)> {
        self.0.into_iter()
    }
}

fn passed(pid: Option<String>, count: Option<String>, own: u32) -> Option<usize> {
    (pid?.parse() == Ok(own)).then(|| count?.parse().ok())?
}

/// The sockets of a namespace, if they are what their names say.
///
/// # Errors
/// They are not.
fn whole(cookie: u64, mut sockets: HashMap<Purpose, OwnedFd>) -> Result<Listeners, &'static str> {
    let v4 = sockets.remove(&Purpose::RedirectV4).map(TcpListener::from);
    let v6 = sockets.remove(&Purpose::RedirectV6).map(TcpListener::from);
    let dns_v4 = sockets.remove(&Purpose::DnsV4).map(UdpSocket::from);
    let dns_v6 = sockets.remove(&Purpose::DnsV6).map(UdpSocket::from);
    let (Some(v4), Some(dns_v4)) = (v4, dns_v4) else {
        return Err("one of IPv4 is missing");
    };
    if v6.is_some() != dns_v6.is_some() {
        return Err("one of IPv6 is missing");
    }
    if !nix::sys::socket::getsockopt(&v4, nix::sys::socket::sockopt::AcceptConn).unwrap_or(false) {
        return Err("one does not listen");
    }
    let port = |address: std::io::Result<std::net::SocketAddr>| address.map(|address| address.port()).ok();
    if port(v4.local_addr()) != port(dns_v4.local_addr()) {
        return Err("their ports differ");
    }
    let here = |found: std::io::Result<u64>| found.is_ok_and(|found| found == cookie);
    if !here(netns_cookie(&v4)) || !here(netns_cookie(&dns_v4)) {
        return Err("they are of another network namespace");
    }
    Ok(Listeners {
        v4,
        v6,
        dns_v4,
        dns_v6,
    })
}

fn name(netns_cookie: u64, purpose: Purpose) -> String {
    format!("{PREFIX}{netns_cookie}-{}", purpose.label())
}

fn parse(name: &str) -> Option<(u64, Purpose)> {
    let (cookie, label) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let purpose = Purpose::ALL
        .into_iter()
        .find(|purpose| purpose.label() == label)?;
    Some((cookie.parse().ok()?, purpose))
}

/// Asks the service manager to keep a socket.
pub(super) fn keep(netns_cookie: u64, purpose: Purpose, socket: &OwnedFd) {
    let state = format!("FDSTORE=1\nFDNAME={}\nFDPOLL=0", name(netns_cookie, purpose));
    notify::notify_with(&state, socket);
}

/// Asks the service manager to let it go.
pub(super) fn forget(netns_cookie: u64, purpose: Purpose) {
    notify::notify(&format!(
        "FDSTOREREMOVE=1\nFDNAME={}",
        name(netns_cookie, purpose)
    ));
}

/// Asks the service manager to let go everything of a namespace.
pub(super) fn forget_all(netns_cookie: u64) {
    for purpose in Purpose::ALL {
        forget(netns_cookie, purpose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_the_namespace_and_the_purpose() {
        for purpose in Purpose::ALL {
            assert_eq!(parse(&name(7, purpose)), Some((7, purpose)));
        }
        for other in ["", "stored", "guard-", "guard-7", "guard-x-v4", "guard-7-v5"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn descriptors_for_another_process_are_not_ours() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(passed(text("7"), text("2"), 7), Some(2));
        assert_eq!(passed(text("8"), text("2"), 7), None);
        assert_eq!(passed(None, text("2"), 7), None);
        assert_eq!(passed(text("7"), text("many"), 7), None);
    }

    #[test]
    fn only_a_listener_of_that_namespace_is_taken_back() {
        let open = crate::kernel::open_listeners(0).unwrap();
        let listener = open.v4;
        let cookie = netns_cookie(&listener).unwrap();
        let dns = || OwnedFd::from(open.dns_v4.try_clone().unwrap());
        let sockets =
            |socket: OwnedFd| HashMap::from([(Purpose::RedirectV4, socket), (Purpose::DnsV4, dns())]);
        let copy = || OwnedFd::from(listener.try_clone().unwrap());
        assert!(whole(cookie, sockets(copy())).is_ok());
        assert!(whole(cookie + 1, sockets(copy())).is_err());
        let stray = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(whole(cookie, sockets(stray.into())).is_err());
        assert!(whole(cookie, HashMap::new()).is_err());
        let without_dns = HashMap::from([(Purpose::RedirectV4, copy())]);
        assert!(whole(cookie, without_dns).is_err());
    }
}
