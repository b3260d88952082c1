//! In: a DNS query of a governed process, over UDP at Guard's socket or over TCP through the redirect. Out: the answer of
//! the very resolver that was asked, from the namespace in which it was asked, without what would hide a later
//! connection's name; the name is kept for routing. On failure: REFUSED to whoever is not known or asks too much,
//! SERVFAIL when the resolver gives no usable answer. Guard retries nothing: clients do.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::accept::{FlowInfo, Identify, Unidentified};
use crate::identity::Identity;
use crate::kernel::{self, Flow};
use crate::report::Report;

pub mod limits;
pub mod message;
pub mod names;
mod upstream;

use limits::{Limits, Spent};
use message::{Query, Rcode};
use names::Names;

/// Queries of all agents that are being answered.
const IN_FLIGHT: usize = 2048;
/// Largest datagram that is read: no query comes near it.
const LARGEST: usize = 4096;
/// A TCP client that asks nothing for this long is gone.
const IDLE: Duration = Duration::from_secs(30);
/// For one message, once its length has come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whoever is not known shares one account.
const NOBODY: &str = "other";

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The resolver's answer was passed on.
    Answered,
    /// So was it, without encrypted_client_hello or HTTP/3 in it.
    Stripped,
    /// The sender is not known.
    Unknown,
    /// Too many queries, in a second or at a time.
    TooMany,
    /// Too many bytes of distinct names in a minute: a tunnel.
    Tunnel,
    /// Not a query as one is written down.
    Malformed,
    /// The resolver gave no usable answer in time.
    Failed,
}

impl Outcome {
    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Stripped => "stripped",
            Self::Unknown => "unknown",
            Self::TooMany => "too_many",
            Self::Tunnel => "tunnel",
            Self::Malformed => "malformed",
            Self::Failed => "failed",
        }
    }
}

/// Opens sockets inside other network namespaces.
pub trait Sockets: Send + Sync {
    /// One that is connected (over TCP: about to be) to this resolver.
    fn open(&self, netns_cookie: u64, resolver: IpAddr, stream: bool) -> BoxFuture<'_, io::Result<OwnedFd>>;
}

/// The DNS stage.
pub struct Dns {
    identify: Arc<dyn Identify>,
    sockets: Arc<dyn Sockets>,
    report: Arc<dyn Report>,
    names: Arc<Names>,
    limits: Limits,
    places: Arc<Semaphore>,
}

/// Who asks, and whom.
struct Caller {
    identity: Option<Identity>,
    netns_cookie: u64,
    resolver: IpAddr,
    stream: bool,
}

impl Caller {
    fn agent(&self) -> &str {
        self.identity.as_ref().map_or(NOBODY, |who| &who.agent)
    }
}

impl Dns {
    /// Made of these.
    pub fn new(
        identify: Arc<dyn Identify>,
        sockets: Arc<dyn Sockets>,
        report: Arc<dyn Report>,
        names: Arc<Names>,
    ) -> Self {
        Self {
            identify,
            sockets,
            report,
            names,
            limits: Limits::default(),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Answers what arrives at a UDP socket until it is no longer wanted.
    pub async fn serve(self: Arc<Self>, socket: UdpSocket, closed: CancellationToken) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                () = closed.cancelled() => return,
            };
            let (length, client) = match received {
                Ok(received) => received,
                Err(error) => {
                    // An earlier answer met a closed port; the next query is another matter.
                    tracing::debug!(%error, "receiving a DNS query");
                    continue;
                }
            };
            // Dropped without an answer: the client asks again.
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                self.report.dns(None, Outcome::TooMany);
                continue;
            };
            let bytes = buffer.get(..length).unwrap_or_default().to_vec();
            let (dns, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                let _held = place;
                if let Some(answer) = dns.datagram(&socket, client, bytes).await
                    && let Err(error) = socket.send_to(&answer, client).await
                {
                    tracing::debug!(%error, "a DNS client is gone");
                }
            });
        }
    }

    async fn datagram(&self, socket: &UdpSocket, client: SocketAddr, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let query = self.read(bytes)?;
        match kernel::query_of(socket.as_fd(), client, query.id()) {
            Ok(flow) => {
                let caller = self.caller(flow, false).await;
                Some(self.answer(caller, &query).await)
            }
            Err(error) => {
                tracing::debug!(%error, "a DNS query without a record");
                self.report.dns(None, Outcome::Unknown);
                Some(query.error(Rcode::Refused))
            }
        }
    }

    /// Answers the queries of a redirected TCP connection, one after the other.
    pub async fn serve_stream(&self, mut stream: TcpStream, flow: &FlowInfo) {
        let Some(flow) = flow.record.downcast_ref::<Flow>() else {
            return;
        };
        let caller = self.caller(flow.clone(), true).await;
        let mut caller = Some(caller);
        while let Ok(Ok(length)) = tokio::time::timeout(IDLE, stream.read_u16()).await {
            let mut bytes = vec![0; usize::from(length)];
            let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut bytes)).await;
            let Ok(Ok(_)) = read else { return };
            let Some(query) = self.read(bytes) else { return };
            let who = match caller.take() {
                Some(who) => who,
                None => return,
            };
            let (who, answer) = match who {
                Ok(who) => {
                    let answer = self.ask(&who, &query).await;
                    (Ok(who), answer)
                }
                Err(()) => (Err(()), self.unknown(&query)),
            };
            caller = Some(who);
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let mut framed = length.to_be_bytes().to_vec();
            framed.extend_from_slice(&answer);
            let written = tokio::time::timeout(PATIENCE, stream.write_all(&framed)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn read(&self, bytes: Vec<u8>) -> Option<Query> {
        let query = Query::read(bytes);
        if query.is_none() {
            self.report.dns(None, Outcome::Malformed);
        }
        query
    }

    /// Who is behind a record; an error if that is not known.
    async fn caller(&self, flow: Flow, stream: bool) -> Result<Caller, ()> {
        let (netns_cookie, original_destination) = (flow.netns_cookie, flow.original_destination);
        let info = FlowInfo {
            original_destination,
            record: Arc::new(flow),
        };
        let found = tokio::time::timeout(crate::accept::IDENTIFY, self.identify.identify(&info)).await;
        let identity = match found {
            Ok(Ok(identity)) => Some(identity),
            // Held back until it was known to be no agent's.
            Ok(Err(Unidentified::Bystander)) => None,
            Ok(Err(_)) | Err(_) => return Err(()),
        };
        Ok(Caller {
            identity,
            netns_cookie,
            resolver: original_destination.ip(),
            stream,
        })
    }

    fn unknown(&self, query: &Query) -> Vec<u8> {
        self.report.dns(None, Outcome::Unknown);
        query.error(Rcode::Refused)
    }

    async fn answer(&self, caller: Result<Caller, ()>, query: &Query) -> Vec<u8> {
        match caller {
            Ok(caller) => self.ask(&caller, query).await,
            Err(()) => self.unknown(query),
        }
    }

    async fn ask(&self, caller: &Caller, query: &Query) -> Vec<u8> {
        let who = caller.identity.as_ref();
        let _place = match self.limits.spend(caller.agent(), query.name()) {
            Spent::Place(place) => place,
            Spent::TooMany => {
                self.report.dns(who, Outcome::TooMany);
                return query.error(Rcode::Refused);
            }
            Spent::Tunnel { first } => {
                self.report.dns(who, Outcome::Tunnel);
                if first && let Some(who) = who {
                    self.report.dns_tunnel(who, query.name());
                }
                return query.error(Rcode::Refused);
            }
        };
        let opened = self
            .sockets
            .open(caller.netns_cookie, caller.resolver, caller.stream)
            .await;
        let answered = match opened {
            Ok(socket) if caller.stream => upstream::over_tcp(socket, query).await,
            Ok(socket) => upstream::over_udp(socket, query).await,
            Err(error) => Err(error),
        };
        let cleaned = answered.and_then(|answer| query.clean(&answer));
        match cleaned {
            Ok(clean) => {
                for (address, lives) in &clean.addresses {
                    self.names.learn(caller.agent(), *address, query.name(), *lives);
                }
                let outcome = if clean.stripped {
                    Outcome::Stripped
                } else {
                    Outcome::Answered
                };
                self.report.dns(who, outcome);
                clean.bytes
            }
            Err(error) => {
                tracing::debug!(%error, resolver = %caller.resolver, "a resolver gave no usable answer");
                self.report.dns(who, Outcome::Failed);
                query.error(Rcode::ServerFailure)
            }
        }
    }
}
