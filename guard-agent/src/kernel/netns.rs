//! Listeners and network namespaces. A namespace is known by its cookie, which is never used again.
#![allow(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper")]

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait: std's 128 is less than what one busy agent opens at once.
const BACKLOG: i32 = 4096;

/// The loopback listeners of one namespace.
#[derive(Debug)]
pub struct Listeners {
    /// 127.0.0.1, where mapped IPv6 connections arrive too.
    pub v4: TcpListener,
    /// ::1, if the namespace has it.
    pub v6: Option<TcpListener>,
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

/// Opens the listeners in the calling thread's namespace. Port 0 lets the kernel choose one for both.
pub fn open_listeners(port: u16) -> io::Result<Listeners> {
    let v4 = open(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let port = v4.local_addr()?.port();
    let v6 = match open(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
        Ok(listener) => Some(listener),
        Err(error) if no_v6(&error) => None,
        Err(error) => return Err(error),
    };
    Ok(Listeners { v4, v6 })
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
