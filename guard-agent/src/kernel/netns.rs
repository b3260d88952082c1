//! Listeners and network namespaces. A namespace is known by its cookie, which is never used again.
#![allow(unsafe_code, reason = "SO_NETNS_COOKIE and SIOCGSKNS have no safe wrapper")]

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    thread,
};

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait: std's 128 is less than what one busy agent opens at once.
const BACKLOG: i32 = 4096;
/// How often a port is chosen that TCP and UDP both have free.
const ATTEMPTS: u32 = 32;
/// `ioctl`: the namespace of a socket.
const SIOCGSKNS: libc::Ioctl = 0x894C;

/// The loopback listeners of one namespace.
#[derive(Debug)]
pub struct Listeners {
    /// 127.0.0.1, where mapped IPv6 connections arrive too.
    pub v4: TcpListener,
    /// ::1, if the namespace has it.
    pub v6: Option<TcpListener>,
    /// DNS queries, at the same addresses and the same port.
    pub dns_v4: UdpSocket,
    /// As above, at ::1.
    pub dns_v6: Option<UdpSocket>,
}

/// The cookie of the namespace that a socket belongs to.
pub fn netns_cookie(fd: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the buffer is as long as `length` says.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &mut length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(cookie)
    }
}

/// The namespaces of these processes, each once, without the calling thread's own. A process that is gone has none.
pub fn namespaces_of(processes: impl IntoIterator<Item = u32>) -> io::Result<Vec<File>> {
    let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let mut found = HashMap::new();
    for process in processes {
        let Ok(namespace) = File::open(format!("/proc/{process}/ns/net")) else {
            continue;
        };
        let inode = namespace.metadata()?.ino();
        if inode != own {
            found.entry(inode).or_insert(namespace);
        }
    }
    Ok(found.into_values().collect())
}

/// Does something inside a namespace, on a thread that enters it and ends there: descriptors that it opens stay.
///
/// It is a thread of this process, hence in the daemon's cgroup, where records of accepted connections are read.
pub fn inside<T: Send + 'static>(
    namespace: File,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = thread::Builder::new().name("guard-netns".into()).spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    })?;
    thread
        .join()
        .unwrap_or_else(|_panicked| Err(io::Error::other("the thread in a network namespace panicked")))
}

/// Opens the listeners in the calling thread's namespace. Port 0 lets the kernel choose one for both.
///
/// A chosen port may be taken for UDP; then others are tried.
pub fn open_listeners(port: u16) -> io::Result<Listeners> {
    let mut tries = if port == 0 { ATTEMPTS } else { 1 };
    loop {
        tries -= 1;
        match open_all(port) {
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
}

fn open_all(port: u16) -> io::Result<Listeners> {
    let v4 = open(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let port = v4.local_addr()?.port();
    let v6 = match open(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
        Ok(listener) => Some(listener),
        Err(error) if no_v6(&error) => None,
        Err(error) => return Err(error),
    };
    let dns_v4 = UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
    let dns_v6 = match v6 {
        Some(_) => Some(UdpSocket::bind((Ipv6Addr::LOCALHOST, port))?),
        None => None,
    };
    Ok(Listeners {
        v4,
        v6,
        dns_v4,
        dns_v6,
    })
}

/// The namespace that a socket belongs to.
pub fn namespace_of(fd: impl AsFd) -> io::Result<File> {
    // SAFETY: this request takes no argument and gives a new descriptor.
    let namespace = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to us alone.
    Ok(unsafe { File::from_raw_fd(namespace) })
}

/// Opens a socket in the calling thread's namespace that is connected (over TCP: about to be) to a resolver.
pub fn ask_resolver(resolver: SocketAddr, stream: bool) -> io::Result<OwnedFd> {
    let (kind, protocol) = if stream {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(Domain::for_address(resolver), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&resolver.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn no_v6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}
