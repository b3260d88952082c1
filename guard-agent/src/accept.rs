//! In: a connection on one of Guard's listeners. Out: where the client meant to connect, and the kernel's record of
//! who it is. On failure: the connection is reset and counted; without a record nothing is known, so nothing passes.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::drain::Drain;
use crate::forward::dial::tune;
use crate::identity::{Identity, Stranger};
use crate::proxy::Proxy;
use crate::report::Unaccepted;

/// Connections open at the same time; at 33 KiB each, 330 MiB.
const CONNECTIONS: usize = 10_000;
/// How long a resolution of who called may take.
pub const IDENTIFY: Duration = Duration::from_secs(1);
/// After accept(2) failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// Unsent bytes that the kernel holds for a slow reader: what is not taken stays at the provider.
const NOT_SENT: u32 = 128 * 1024;
/// A reader that takes nothing for this long is gone.
const STALLED: Duration = Duration::from_secs(300);

/// What the kernel knows of a connection.
#[derive(Clone)]
pub struct FlowInfo {
    /// Where the client meant to connect.
    pub original_destination: SocketAddr,
    /// The record itself, for [`Identify`].
    pub record: Arc<dyn Any + Send + Sync>,
}

/// The kernel has no record of a connection.
#[derive(Debug, thiserror::Error)]
#[error("no kernel record: {0}")]
pub struct NoFlow(pub String);

/// Gives the kernel's record of an accepted connection, read by its descriptor.
pub trait FlowSource: Send + Sync {
    /// The record.
    ///
    /// # Errors
    /// When there is none.
    fn flow_of(&self, stream: &TcpStream) -> Result<FlowInfo, NoFlow>;
}

/// No agent is known to be behind a record.
#[derive(Debug, Clone, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Unidentified {
    /// It cannot be told who it is: refused.
    #[error("{why}")]
    Unknown {
        /// Why not, in words for the client.
        why: String,
        /// What is known all the same.
        who: Box<Stranger>,
    },
    /// It was held back until it was known, and is no agent's: it passes untouched.
    #[error("it is no agent's")]
    Bystander,
    /// Guard's own, to see whether it arrives: it has arrived.
    #[error("it is Guard's own canary")]
    Canary,
}

impl Unidentified {
    /// Nothing is known but why.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown {
            why: why.into(),
            who: Box::default(),
        }
    }

    /// What is known of the caller.
    pub fn who(&self) -> Option<&Stranger> {
        match self {
            Self::Unknown { who, .. } => Some(who),
            Self::Bystander | Self::Canary => None,
        }
    }
}

/// Finds out who is behind a record.
pub trait Identify: Send + Sync {
    /// Who it is. Given up after [`IDENTIFY`].
    fn identify<'a>(&'a self, flow: &'a FlowInfo) -> BoxFuture<'a, Result<Identity, Unidentified>>;
}

/// Accepts until Guard drains or the listener is no longer wanted. Any number of listeners may share a proxy.
pub async fn listen(listener: TcpListener, proxy: Arc<Proxy>, limit: Connections, closed: CancellationToken) {
    let drain = proxy.drain().clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.ending() => return,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok((stream, _peer)) => start(&proxy, &drain, &limit, stream),
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// How many connections may be open, over all listeners. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Semaphore>);

impl Default for Connections {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }
}

fn start(proxy: &Arc<Proxy>, drain: &Drain, limit: &Connections, stream: TcpStream) {
    let Ok(place) = limit.0.clone().try_acquire_owned() else {
        proxy.report().unaccepted(Unaccepted::Full);
        reset(&stream);
        return;
    };
    let proxy = proxy.clone();
    drain.spawn(async move {
        let _held = place;
        proxy.serve_connection(stream).await;
    });
}

/// Sets what a client's socket needs.
///
/// # Errors
/// setsockopt(2) failed: the client has gone.
pub fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    tune(stream)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(NOT_SENT)?;
    socket.set_tcp_user_timeout(Some(STALLED))
}

/// Closes with RST instead of FIN, so that the client sees a failure and not the end of an answer.
pub fn reset(stream: &TcpStream) {
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "reset");
    }
}
