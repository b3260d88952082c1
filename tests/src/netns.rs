//! A network namespace of a test's own, held by a descriptor: it has no name on the machine, so nothing is left
//! behind however the test process ends.
#![allow(
    unsafe_code,
    reason = "getsockopt for the namespace cookie; nix has no option of that name"
)]

use std::fs::File;
use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic;
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::Spawn;

/// A network namespace with `lo` up.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// Makes an empty namespace.
    ///
    /// # Errors
    /// Not root, or `ip` is missing.
    pub fn new() -> Result<Self> {
        let file = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (are we root?)")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })
        .join()
        .unwrap_or_else(|panicked| panic::resume_unwind(panicked))?;
        let namespace = Self { file };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its descriptor, for `setns`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path by which other programs reach it while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `work` on a thread inside it. A socket that is made there stays there and may be used anywhere.
    ///
    /// # Errors
    /// The namespace cannot be entered, or what `work` gives.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).context("entering the network namespace")?;
                    work()
                })
                .join()
                .unwrap_or_else(|panicked| panic::resume_unwind(panicked))
        })
    }

    /// Runs `ip` with these arguments (separated by blanks) inside it.
    ///
    /// # Errors
    /// `ip` is missing or says no; its words are in the error.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let done = Spawn::new("ip")
            .args(arguments.split_whitespace())
            .netns(self)
            .run()?;
        ensure!(done.success(), "ip {arguments}: {}", done.stderr.trim());
        Ok(())
    }

    /// Its cookie, by which BPF programs know it.
    ///
    /// # Errors
    /// The kernel does not say (it does since 5.14).
    pub fn cookie(&self) -> Result<u64> {
        self.run(|| Ok(cookie_of(&UdpSocket::bind("127.0.0.1:0")?)?))
    }
}

/// Joins two namespaces by a veth pair with these addresses (`198.51.100.1/24`, `2001:db8:1::1/64`) at each end.
///
/// # Errors
/// As [`NetNs::ip`].
pub fn join(left: End<'_>, right: End<'_>) -> Result<()> {
    left.namespace.ip(&format!(
        "link add {} type veth peer name {} netns {}",
        left.device,
        right.device,
        right.namespace.path()
    ))?;
    for end in [left, right] {
        for address in end.addresses {
            // an address under duplicate address detection cannot be used for a second
            let nodad = if address.contains(':') { "nodad" } else { "" };
            end.namespace
                .ip(&format!("address add {address} dev {} {nodad}", end.device))?;
        }
        end.namespace.ip(&format!("link set {} up", end.device))?;
    }
    Ok(())
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a NetNs,
    /// Its device's name, at most 15 bytes.
    pub device: &'a str,
    /// Its addresses with prefix lengths.
    pub addresses: &'a [&'a str],
}

fn cookie_of(socket: &UdpSocket) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(mem::size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and both pointers are to live locals of the size that is stated.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn dial(address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect_timeout(&address, std::time::Duration::from_secs(5))
    }

    #[test]
    fn two_namespaces_talk_over_both_families_and_the_machine_hears_nothing() {
        let (left, right) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        join(
            End {
                namespace: &left,
                device: "left",
                addresses: &["198.51.100.1/24", "2001:db8:1::1/64"],
            },
            End {
                namespace: &right,
                device: "right",
                addresses: &["198.51.100.2/24", "2001:db8:1::2/64"],
            },
        )
        .unwrap();
        for address in ["198.51.100.2:4000", "[2001:db8:1::2]:4000"] {
            let address: SocketAddr = address.parse().unwrap();
            let listener = right.run(|| Ok(TcpListener::bind(address)?)).unwrap();
            let mut client = left.run(|| Ok(dial(address)?)).unwrap();
            let (mut server, peer) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            let mut heard = [0; 5];
            server.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
            assert_eq!(peer.is_ipv6(), address.is_ipv6());
        }
        assert!(!std::path::Path::new("/sys/class/net/left").exists());
    }

    #[test]
    fn cookies_differ() {
        let (left, right) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        assert_ne!(left.cookie().unwrap(), right.cookie().unwrap());
        assert_eq!(left.cookie().unwrap(), left.cookie().unwrap());
    }
}
