//! Upstream connections, kept and shared within one agent only.
//!
//! h2 closes a whole connection (`ENHANCE_YOUR_CALM`) when too many small frames wait unread on it, and a token stream
//! is nothing but small frames: one stalled reader must not end the streams of another agent. So pools are keyed by
//! agent; stream windows are small (64 KiB), which bounds what one stalled stream can pile up; and streams per
//! connection are capped. With frames of 16 bytes a stalled stream is charged 15 × 64 KiB, 32 of them 30 MiB, which is
//! under half of the 64 MiB connection window, the budget that h2 grants. The connection window costs no memory:
//! what is buffered is bounded by the stream windows.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{
    FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream, builderstates,
};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use moka::sync::Cache;
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::forward::dial::{DialError, Dialer, Target};
use crate::forward::roots::{RootsError, client_config};
use crate::llm::provider::Provider;
use crate::seam::settings::TrustFiles;

const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;
/// Streams on one upstream connection.
const STREAMS: usize = 32;
/// HTTP/2 connections of one pool; with [`STREAMS`], 256 calls in flight of one agent to one address.
const CONNECTIONS: usize = 8;
/// TCP and TLS handshake together.
const CONNECT: Duration = Duration::from_secs(10);
/// An idle connection is closed before providers' edges do it (60 s and more), so that it is not lost in a race.
const IDLE: Duration = Duration::from_secs(45);
/// Pools kept, and for how long after their last use.
const POOLS: u64 = 4096;
const POOL_IDLE: Duration = Duration::from_secs(300);

pub(super) type HttpClient = Client<Connector, Full<Bytes>>;

/// Which connections may be shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) agent: Arc<str>,
    pub(super) provider: String,
    pub(super) target: Target,
    pub(super) sni: String,
}

/// All pools.
pub struct Upstreams {
    tls: HashMap<String, ClientConfig>,
    dialer: Dialer,
    pools: Cache<PoolKey, Arc<Pool>>,
}

impl Upstreams {
    /// Pools for these providers. `public` are the roots to verify against, `own` Guard's, which are left out.
    ///
    /// # Errors
    /// When a provider's `trust` can't be read.
    pub fn new(
        providers: &[Arc<Provider>],
        public: &[CertificateDer<'static>],
        own: &[CertificateDer<'static>],
        trust: &TrustFiles,
        dialer: Dialer,
    ) -> Result<Self, RootsError> {
        let mut tls = HashMap::new();
        for provider in providers {
            tls.insert(
                provider.name.clone(),
                client_config(public, &provider.trust, trust, own)?,
            );
        }
        let pools = Cache::builder()
            .max_capacity(POOLS)
            .time_to_idle(POOL_IDLE)
            .build();
        Ok(Self { tls, dialer, pools })
    }

    /// Dials where the caller needs a bare socket.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// A connection of its own, for HTTP/1.1: a WebSocket shares none.
    pub(super) async fn alone(
        &self,
        key: &PoolKey,
    ) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, BoxError> {
        let unknown = || io::Error::new(io::ErrorKind::NotFound, "the provider is not known");
        let tls = self.tls.get(&key.provider).ok_or_else(unknown)?;
        let name = ServerName::try_from(key.sni.clone())?;
        let uri = Uri::builder()
            .scheme("https")
            .authority(key.sni.as_str())
            .path_and_query("/")
            .build()?;
        let tcp = Tcp {
            dialer: self.dialer.clone(),
            target: key.target,
        };
        let https = secure(tls.clone(), name).enable_http1().wrap_connector(tcp);
        Connector { https }.call(uri).await
    }

    /// A client with room for one more stream; `None` when the agent has all it may have, or the provider is unknown.
    pub(super) fn slot(&self, key: &PoolKey) -> Option<Slot> {
        let tls = self.tls.get(&key.provider)?;
        let name = ServerName::try_from(key.sni.clone()).ok()?;
        let pool = self.pools.get_with_by_ref(key, || {
            let tcp = Tcp {
                dialer: self.dialer.clone(),
                target: key.target,
            };
            Arc::new(Pool {
                connector: connector(tls.clone(), name, tcp),
                shards: Default::default(),
            })
        });
        pool.slot()
    }
}

pub(super) struct Pool {
    connector: Connector,
    shards: [Shard; CONNECTIONS],
}

#[derive(Default)]
struct Shard {
    client: OnceLock<HttpClient>,
    streams: Arc<AtomicUsize>,
}

impl Pool {
    fn slot(&self) -> Option<Slot> {
        let free = |count| (count < STREAMS).then_some(count + 1);
        let shard = self.shards.iter().find(|shard| {
            shard
                .streams
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free)
                .is_ok()
        })?;
        let client = shard
            .client
            .get_or_init(|| client(self.connector.clone()))
            .clone();
        Some(Slot {
            client,
            streams: Streams(shard.streams.clone()),
        })
    }
}

/// Leave to use a client for one stream.
pub(super) struct Slot {
    pub(super) client: HttpClient,
    pub(super) streams: Streams,
}

/// One stream's place on its connection; given back when dropped.
pub struct Streams(Arc<AtomicUsize>);

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn client(connector: Connector) -> HttpClient {
    Client::builder(TokioExecutor::new())
        // A call is never sent twice: not even when the first attempt seems not to have left.
        .retry_canceled_requests(false)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(STREAMS)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .http2_keep_alive_timeout(Duration::from_secs(20))
        .build(connector)
}

fn connector(tls: ClientConfig, name: ServerName<'static>, tcp: Tcp) -> Connector {
    let https = secure(tls, name).enable_all_versions().wrap_connector(tcp);
    Connector { https }
}

fn secure(
    tls: ClientConfig,
    name: ServerName<'static>,
) -> HttpsConnectorBuilder<builderstates::WantsProtocols1> {
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        // The address comes from the connection, the name from its ClientHello: the one is dialled, the other verified.
        .with_server_name_resolver(FixedServerNameResolver::new(name))
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Connects to one address for one name, in bounded time.
#[derive(Clone)]
pub(super) struct Connector {
    https: HttpsConnector<Tcp>,
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Connecting<Self::Response, BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.https.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(CONNECT, connecting).await {
                Ok(connected) => connected,
                Err(_elapsed) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake within ten seconds").into())
                }
            }
        })
    }
}

/// Dials one address, whatever the URI says.
#[derive(Clone)]
struct Tcp {
    dialer: Dialer,
    target: Target,
}

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Connecting<Self::Response, DialError>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let (dialer, target) = (self.dialer.clone(), self.target);
        Box::pin(async move { dialer.dial(target).await.map(TokioIo::new) })
    }
}
