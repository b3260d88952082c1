//! The doors that the canary tries, from inside its cgroup.
//!
//! The addresses are those of documentation (RFC 5737, RFC 3849): nobody is there, so whatever leaves harms nobody, and
//! an answer can only be Guard's.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Nobody's.
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Nobody's.
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const HTTPS: u16 = 443;
const MULTIPATH_TCP: i32 = 262;
/// What is refused or redirected answers at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// One door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Door {
    TcpV4,
    TcpV6,
    UdpSendV4,
    UdpSendV6,
    UdpConnect,
    Multipath,
    Raw,
    Metrics,
    Listener,
    BindListener,
}

/// How it answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// As a program refuses; the error.
    Refused(String),
    /// A connection was made, by the socket with this cookie.
    Connected(u64),
    /// It was not refused; what happened instead.
    Open(String),
    /// This host has no such door.
    Absent,
}

impl Door {
    pub(super) const ALL: [Self; 10] = [
        Self::TcpV4,
        Self::TcpV6,
        Self::UdpSendV4,
        Self::UdpSendV6,
        Self::UdpConnect,
        Self::Multipath,
        Self::Raw,
        Self::Metrics,
        Self::Listener,
        Self::BindListener,
    ];

    /// For people.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TcpV4 => "TCP over IPv4",
            Self::TcpV6 => "TCP over IPv6",
            Self::UdpSendV4 => "UDP over IPv4",
            Self::UdpSendV6 => "UDP over IPv6",
            Self::UdpConnect => "connected UDP",
            Self::Multipath => "Multipath TCP",
            Self::Raw => "a raw socket",
            Self::Metrics => "the metrics port",
            Self::Listener => "the listener's own port",
            Self::BindListener => "binding the listener's port",
        }
    }

    /// Whether a connection through it must arrive at the worker.
    pub(super) fn leads_here(self) -> bool {
        matches!(self, Self::TcpV4 | Self::TcpV6)
    }

    fn try_it(self, metrics: u16, listener: u16) -> Answer {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match self {
            Self::TcpV4 => connect(SocketAddr::new(V4, HTTPS)),
            Self::TcpV6 => connect(SocketAddr::new(V6, HTTPS)),
            Self::Metrics => connect(local(metrics)),
            Self::Listener => connect(local(listener)),
            Self::UdpSendV4 => send(SocketAddr::new(V4, HTTPS)),
            Self::UdpSendV6 => send(SocketAddr::new(V6, HTTPS)),
            Self::UdpConnect => judged(
                socket(V4, Type::DGRAM, Protocol::UDP)
                    .and_then(|socket| socket.connect(&SocketAddr::new(V4, HTTPS).into())),
            ),
            Self::Multipath => judged(socket(V4, Type::STREAM, Protocol::from(MULTIPATH_TCP)).map(drop)),
            Self::Raw => judged(socket(V4, Type::RAW, Protocol::ICMPV4).map(drop)),
            Self::BindListener => judged(
                socket(V4, Type::STREAM, Protocol::TCP)
                    .and_then(|socket| socket.bind(&local(listener).into())),
            ),
        }
    }
}

/// Tries every door, in the process whose cgroup it is; what each answered, as JSON.
pub(crate) fn fly(metrics: u16, listener: u16) -> serde_json::Result<String> {
    let answers: Vec<(Door, Answer)> = Door::ALL
        .iter()
        .map(|door| (*door, door.try_it(metrics, listener)))
        .collect();
    serde_json::to_string(&answers)
}

fn socket(to: IpAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    Socket::new(Domain::for_address(SocketAddr::new(to, 0)), kind, Some(protocol))
}

fn connect(to: SocketAddr) -> Answer {
    let opened = socket(to.ip(), Type::STREAM, Protocol::TCP).and_then(|socket| {
        let cookie = socket.cookie()?;
        Ok((socket, cookie))
    });
    match opened {
        Ok((socket, cookie)) => connected(cookie, socket.connect_timeout(&to.into(), PATIENCE)),
        Err(error) => judge(&error),
    }
}

/// The worker resets the canary's connection as soon as it has arrived, which may be before this process has looked: it
/// was made all the same.
fn connected(cookie: u64, tried: io::Result<()>) -> Answer {
    match tried {
        Err(error) if error.raw_os_error() != Some(libc::ECONNRESET) => judge(&error),
        Ok(()) | Err(_) => Answer::Connected(cookie),
    }
}

fn send(to: SocketAddr) -> Answer {
    judged(
        socket(to.ip(), Type::DGRAM, Protocol::UDP).and_then(|socket| socket.send_to(b"canary", &to.into())),
    )
}

fn judged<T>(tried: io::Result<T>) -> Answer {
    match tried {
        Ok(_) => Answer::Open("it succeeded".to_owned()),
        Err(error) => judge(&error),
    }
}

/// Programs refuse with these; a network that leads nowhere answers otherwise.
fn judge(error: &io::Error) -> Answer {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::PermissionDenied | ErrorKind::ConnectionRefused, _)
        | (_, Some(libc::EPROTONOSUPPORT)) => Answer::Refused(error.to_string()),
        // IPv6 or a protocol that this kernel was built or started without.
        (_, Some(libc::EAFNOSUPPORT | libc::ENOPROTOOPT)) => Answer::Absent,
        _ => Answer::Open(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_programs_answer_counts_as_refused() {
        let answer = |number: i32| judge(&io::Error::from_raw_os_error(number));
        for refused in [
            libc::EPERM,
            libc::EACCES,
            libc::ECONNREFUSED,
            libc::EPROTONOSUPPORT,
        ] {
            assert!(matches!(answer(refused), Answer::Refused(_)), "{refused}");
        }
        for open in [
            libc::ENETUNREACH,
            libc::EHOSTUNREACH,
            libc::ETIMEDOUT,
            libc::EINPROGRESS,
            libc::EADDRINUSE,
        ] {
            assert!(matches!(answer(open), Answer::Open(_)), "{open}");
        }
        assert_eq!(answer(libc::EAFNOSUPPORT), Answer::Absent);
    }

    #[test]
    fn a_connection_that_was_reset_was_made() {
        let reset = io::Error::from_raw_os_error(libc::ECONNRESET);
        assert_eq!(connected(7, Err(reset)), Answer::Connected(7));
        assert_eq!(connected(7, Ok(())), Answer::Connected(7));
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert!(matches!(connected(7, Err(refused)), Answer::Refused(_)));
    }

    #[test]
    fn whoever_is_not_governed_finds_open_doors() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers: Vec<(Door, Answer)> = serde_json::from_str(&fly(port, port).unwrap()).unwrap();
        assert_eq!(answers.len(), Door::ALL.len());
        let of = |wanted: Door| &answers.iter().find(|(door, _)| *door == wanted).unwrap().1;
        assert!(matches!(of(Door::Metrics), Answer::Connected(_)));
        assert!(matches!(of(Door::BindListener), Answer::Open(_)));
    }
}
