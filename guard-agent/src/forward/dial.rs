//! Opens upstream sockets: the only place that does.
//!
//! The address is judged first. A governed process must not reach, through Guard, what the host's own services
//! believe to be local: Guard dials from the host's network namespace.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long the TCP handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Where the client meant to go: judged by the address rules.
    Original(SocketAddr),
    /// Where the configuration says (`connect_to`): exempt from them.
    Configured(SocketAddr),
}

impl Target {
    /// The address itself.
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Original(address) | Self::Configured(address) => address,
        }
    }
}

/// Why no socket was opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address rules forbid it.
    #[error("{0} is not an address that Guard connects to: {1}")]
    Forbidden(SocketAddr, &'static str),
    /// The connection failed.
    #[error("connecting to {0}: {1}")]
    Connect(SocketAddr, io::Error),
    /// No answer in five seconds.
    #[error("connecting to {0}: no answer within five seconds")]
    Timeout(SocketAddr),
}

/// The address rules: what belongs to this host.
#[derive(Debug, Clone, Default)]
pub struct HostAddresses {
    addresses: HashSet<IpAddr>,
}

impl HostAddresses {
    /// These addresses are the host's own.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            addresses: addresses
                .into_iter()
                .map(|address| address.to_canonical())
                .collect(),
        }
    }

    /// Reads the addresses of every interface in this network namespace.
    ///
    /// # Errors
    /// getifaddrs(3) failed.
    pub fn read() -> io::Result<Self> {
        let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
            let storage = interface.address?;
            let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        Ok(Self::new(addresses))
    }

    fn verdict(&self, address: SocketAddr) -> Result<(), &'static str> {
        // An IPv4 address inside an IPv6 one is judged as what it reaches.
        let ip = address.ip().to_canonical();
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if ip.is_unspecified() {
            Err("it is unspecified")
        } else if ip.is_multicast() || broadcast {
            Err("it is a multicast or broadcast address")
        } else if ip.is_loopback() || self.addresses.contains(&ip) {
            Err("it is this host's own")
        } else if address.port() == 0 {
            Err("it has no port")
        } else {
            Ok(())
        }
    }
}

/// Dials. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    own: Arc<ArcSwap<HostAddresses>>,
}

impl Dialer {
    /// A dialer that knows these addresses as the host's own.
    pub fn new(own: HostAddresses) -> Self {
        Self {
            own: Arc::new(ArcSwap::from_pointee(own)),
        }
    }

    /// Takes note that the host's addresses have changed.
    pub fn set_own(&self, own: HostAddresses) {
        self.own.store(Arc::new(own));
    }

    /// Connects within five seconds; the socket has TCP_NODELAY and keep-alive.
    ///
    /// # Errors
    /// [`DialError`]; nothing was sent.
    pub async fn dial(&self, target: Target) -> Result<TcpStream, DialError> {
        let address = target.address();
        if let Target::Original(_) = target {
            self.own
                .load()
                .verdict(address)
                .map_err(|why| DialError::Forbidden(address, why))?;
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "this is the one place, and the address was judged above"
        )]
        let connecting = TcpStream::connect(address);
        let stream = match tokio::time::timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(DialError::Connect(address, error)),
            Err(_elapsed) => return Err(DialError::Timeout(address)),
        };
        tune(&stream).map_err(|error| DialError::Connect(address, error))?;
        Ok(stream)
    }
}

/// Sets what every relayed socket needs: without TCP_NODELAY each new connection waits 40 ms for a delayed
/// acknowledgement, and keep-alive ends connections whose peer is gone.
///
/// # Errors
/// setsockopt(2) failed.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_own_and_impossible_addresses_are_refused() {
        let dialer = Dialer::new(HostAddresses::new([
            "192.0.2.7".parse().unwrap(),
            "2001:db8::7".parse().unwrap(),
        ]));
        for address in [
            "127.0.0.1:443",
            "127.8.8.8:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "0.0.0.0:443",
            "[::]:443",
            "192.0.2.7:443",
            "[::ffff:192.0.2.7]:443",
            "[2001:db8::7]:443",
            "224.0.0.1:443",
            "255.255.255.255:443",
            "[ff02::1]:443",
            "203.0.113.1:0",
        ] {
            let error = dialer
                .dial(Target::Original(address.parse().unwrap()))
                .await
                .unwrap_err();
            assert!(matches!(error, DialError::Forbidden(..)), "{address}: {error}");
        }
    }

    #[tokio::test]
    async fn a_configured_address_is_exempt() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = Dialer::default().dial(Target::Configured(address)).await.unwrap();
        assert!(stream.nodelay().unwrap());
        Dialer::default()
            .dial(Target::Original(address))
            .await
            .unwrap_err();
    }

    #[test]
    fn the_hosts_addresses_are_read() {
        let own = HostAddresses::read().unwrap();
        assert!(own.addresses.contains(&"127.0.0.1".parse().unwrap()));
    }
}
