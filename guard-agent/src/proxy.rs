//! The whole path of a connection and of a call, in two functions.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use guard_common::dns::DNS_PORT;
use http::{Method, Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use ulid::Ulid;

use crate::accept::{FlowInfo, FlowSource, IDENTIFY, Identify, Unidentified, prepare, reset};
use crate::call::{Call, Origin, Said};
use crate::dns::Dns;
use crate::drain::Drain;
use crate::forward::pool::Upstreams;
use crate::forward::{Destination, forward};
use crate::http::admit::admit;
use crate::http::body::{BodyLimits, collect};
use crate::http::{Reply, client_fault, refuse, refuse_plain, serve};
use crate::identity::Identity;
use crate::llm::detect::Endpoint;
use crate::llm::provider::Provider;
use crate::meter::Linger;
use crate::passthrough::refuse::Speaks;
use crate::peek::{Patience, Rewind};
use crate::policy::Decide;
use crate::refusal::Refusal;
use crate::report::{EarlyRefusal, Report, Unaccepted};
use crate::route::{Route, Router};
use crate::share::{Room, Share, Shares};
use crate::telemetry::metrics::Stage;
use crate::tls::{Distrust, Terminator, cause_of, is_h2};

mod outside;
mod reading;
mod sockets;

use outside::{Opening, Outside, unidentified};
use reading::Body;
use sockets::Refused;

/// Tells what a method and path of a provider are, and which wire format is spoken there.
pub type Endpoints = fn(&Provider, &Method, &str) -> Endpoint;

/// What a reload replaces as a whole.
pub struct Snapshot {
    /// Which names are providers'.
    pub router: Router,
    /// Connections to them.
    pub upstreams: Upstreams,
    /// Leaves for them.
    pub terminator: Terminator,
}

/// The stages that others provide.
pub struct Stages {
    /// Reads the kernel's record of a connection.
    pub flows: Arc<dyn FlowSource>,
    /// Finds out who is behind it.
    pub identify: Arc<dyn Identify>,
    /// Judges calls.
    pub decide: Arc<dyn Decide>,
    /// Hears of what is not a call.
    pub report: Arc<dyn Report>,
    /// Answers DNS over TCP.
    pub dns: Option<Arc<Dns>>,
    /// Wire formats by path.
    pub endpoints: Endpoints,
}

/// The data path.
pub struct Proxy {
    stages: Stages,
    snapshot: ArcSwap<Snapshot>,
    drain: Drain,
    linger: Linger,
    patience: Patience,
    limits: BodyLimits,
    shares: Shares,
    nobody: Arc<str>,
}

/// A connection that is known and routed.
struct Connection {
    identity: Result<Identity, Unidentified>,
    origin: Origin,
    provider: Arc<Provider>,
    snapshot: Arc<Snapshot>,
    requests: AtomicU64,
    share: Share,
    /// What it becomes when a socket was opened on it.
    next: sockets::Next,
}

impl Proxy {
    /// A data path of these stages.
    pub fn new(stages: Stages, snapshot: Snapshot, drain: Drain) -> Self {
        let linger = Linger::new(drain.clone());
        let snapshot = ArcSwap::from_pointee(snapshot);
        Self {
            stages,
            snapshot,
            drain,
            linger,
            patience: Patience::default(),
            limits: BodyLimits::default(),
            shares: Shares::default(),
            nobody: "".into(),
        }
    }

    /// Sets other bounds than the defaults.
    #[must_use]
    pub fn with_limits(mut self, patience: Patience, limits: BodyLimits) -> Self {
        (self.patience, self.limits) = (patience, limits);
        self
    }

    /// Replaces what a reload replaces; connections that are open keep what they have.
    pub fn reload(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// What ends this data path.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    pub(crate) fn report(&self) -> &dyn Report {
        self.stages.report.as_ref()
    }

    /// One connection: accept, identify, peek, route, then terminate or pass through.
    pub async fn serve_connection(self: &Arc<Self>, mut stream: TcpStream) {
        let Some(flow) = self.flow_of(&stream) else {
            self.report().unaccepted(Unaccepted::NoFlow);
            return reset(&stream);
        };
        if flow.original_destination.port() == DNS_PORT
            && let Some(dns) = &self.stages.dns
        {
            return dns.serve_stream(stream, &flow).await;
        }
        let started = Instant::now();
        let identity = self.identify(&flow).await;
        self.report().added(Stage::Identify, started.elapsed());
        if matches!(identity, Err(Unidentified::Canary)) {
            return reset(&stream);
        }
        // Whoever is not known shares one small part of the host.
        let share = self
            .shares
            .of(identity.as_ref().map_or(&self.nobody, |who| &who.agent));
        let Some(_place) = share.connection() else {
            self.report().unaccepted(Unaccepted::Full);
            return reset(&stream);
        };
        let _open = identity.as_ref().ok().and_then(|who| self.report().opened(who));
        let outside = Outside {
            identity: identity.as_ref(),
            original_destination: flow.original_destination,
            snapshot: self.snapshot.load_full(),
            report: self.report(),
        };
        if matches!(outside.identity, Err(Unidentified::Bystander)) {
            return outside
                .pass(Rewind::new(Bytes::new(), stream), None, Opening::NOTHING)
                .await;
        }
        let Some((first, bytes, dialled)) = outside.first_words(&mut stream, self.patience).await else {
            return;
        };
        match first.map(|first| (outside.route(&first), Speaks::of(&first))) {
            Err(error) => {
                self.report().client_error(error.kind());
                outside.denied(None, error.to_string());
                reset(&stream);
            }
            Ok((Route::Terminate { provider, sni }, _)) => {
                let (destination, snapshot) = (outside.original_destination, outside.snapshot);
                let requests = AtomicU64::new(0);
                let connection = Connection {
                    identity,
                    origin: Origin { destination, sni },
                    provider,
                    snapshot,
                    requests,
                    share,
                    next: sockets::Next::default(),
                };
                self.terminate(Rewind::new(bytes, stream), Arc::new(connection))
                    .await;
            }
            Ok((Route::PlainProvider { provider }, _)) => {
                let name = provider.hosts.first().map(String::as_str);
                outside.denied(name, "a provider over plain HTTP".to_owned());
                refuse_plain(stream).await;
            }
            Ok((Route::Passthrough { name, undecided, ech }, speaks)) => {
                let client = Rewind::new(bytes, stream);
                let said = Opening {
                    name: name.as_deref(),
                    speaks,
                    undecided,
                    ech,
                };
                outside.pass(client, dialled, said).await;
            }
        }
    }

    fn flow_of(&self, stream: &TcpStream) -> Option<FlowInfo> {
        let flow = prepare(stream).map_err(|error| error.to_string()).and_then(|()| {
            self.stages
                .flows
                .flow_of(stream)
                .map_err(|error| error.to_string())
        });
        flow.inspect_err(|error| tracing::debug!(%error, "a connection without a record"))
            .ok()
    }

    async fn identify(&self, flow: &FlowInfo) -> Result<Identity, Unidentified> {
        tokio::time::timeout(IDENTIFY, self.stages.identify.identify(flow))
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Unidentified::unknown(
                    "the caller was not identified within a second",
                ))
            })
    }

    async fn terminate(self: &Arc<Self>, stream: Rewind<TcpStream>, connection: Arc<Connection>) {
        let untrusted = |how: Distrust| {
            if let Ok(identity) = &connection.identity {
                self.report().untrusted(identity, &connection.origin.sni, how);
            }
        };
        let stream = match connection.snapshot.terminator.accept(stream).await {
            Ok(stream) => stream,
            Err(how) => return untrusted(how),
        };
        let h2 = is_h2(&stream);
        let service = service_fn(|request| {
            connection.requests.fetch_add(1, Ordering::Relaxed);
            let (proxy, connection) = (self.clone(), connection.clone());
            async move { Ok::<_, Infallible>(proxy.serve_call(&connection, request).await) }
        });
        let ended = serve(stream, h2, &self.drain, service).await;
        if let Some(socket) = connection.next.take() {
            return socket.await;
        }
        if let Some(kind) = ended
            .as_ref()
            .err()
            .and_then(|error| client_fault(error.as_ref()))
        {
            self.report().client_error(kind);
        }
        if connection.requests.load(Ordering::Relaxed) == 0 {
            // An alert still says more; a plain close after the handshake is just that.
            let alert = ended.err().and_then(|error| cause_of(error.as_ref()));
            let alert = alert.filter(|how| matches!(how, Distrust::UnknownCa | Distrust::BadCertificate));
            untrusted(alert.unwrap_or(Distrust::NoRequest));
        }
    }

    /// One call: admit, read, decide, forward; every "no" in the provider's own shape.
    async fn serve_call(&self, connection: &Connection, mut request: Request<Incoming>) -> Response<Reply> {
        let id = Ulid::new();
        sockets::tidy(&connection.provider, &mut request);
        let (method, target) = (request.method().clone(), request.uri().clone());
        let socket = sockets::wanted(&connection.provider, &request);
        let endpoint = match &socket {
            Some((endpoint, _)) => endpoint.clone(),
            None => (self.stages.endpoints)(&connection.provider, &method, target.path()),
        };
        let dialect = endpoint.dialect;
        let early = |identity, refusal: Refusal| {
            let (original_destination, provider) =
                (connection.origin.destination, connection.provider.as_ref());
            let path = target.path();
            let call = EarlyRefusal {
                id,
                identity,
                stranger: connection.identity.as_ref().err().and_then(Unidentified::who),
                provider,
                original_destination,
                method: &method,
                path,
                dialect: dialect.kind(),
            };
            self.report().refused(&call, &refusal);
            refuse(dialect, &refusal, id)
        };
        let identity = match &connection.identity {
            Ok(identity) => identity,
            Err(error) => return early(None, unidentified(error)),
        };
        if let Some(socket) = socket {
            return match self
                .serve_upgrade(connection, identity, id, socket, request)
                .await
            {
                Ok(response) => response,
                Err(Refused::Early(refusal)) => early(Some(identity), refusal),
                Err(Refused::Decided(refusal)) => refuse(dialect, &refusal, id),
            };
        }
        let mut room = connection.share.room();
        let call = match self.read(connection, &endpoint, id, request, &mut room).await {
            Ok(call) => call,
            Err(refusal) => return early(Some(identity), refusal),
        };
        let permit = match self.stages.decide.decide(identity, &connection.provider, &call) {
            Ok(permit) => permit,
            Err(refusal) => return refuse(dialect, &refusal, id),
        };
        let destination = Destination {
            original: connection.origin.destination,
            sni: &connection.origin.sni,
        };
        let upstreams = &connection.snapshot.upstreams;
        match forward(
            upstreams,
            &self.linger,
            dialect,
            identity,
            &destination,
            call,
            permit,
        )
        .await
        {
            Ok(response) => response.map(Either::Right),
            Err(refusal) => refuse(dialect, &refusal, id),
        }
    }

    async fn read(
        &self,
        connection: &Connection,
        endpoint: &Endpoint,
        id: Ulid,
        request: Request<Incoming>,
        room: &mut Room,
    ) -> Result<Call, Refusal> {
        let (parts, body) = request.into_parts();
        let port = connection.origin.destination.port();
        admit(&parts, &connection.origin.sni, port, endpoint.kind)?;
        let came = collect(&parts.headers, body, self.limits, room).await?;
        let started = Instant::now();
        let body = Body::read(endpoint, &parts.headers, came, self.limits.bytes, room).await?;
        self.report().added(Stage::Parse, started.elapsed());
        Ok(Call {
            id,
            provider: connection.provider.clone(),
            origin: connection.origin.clone(),
            endpoint: endpoint.kind,
            dialect: endpoint.dialect,
            said: Said::read(&parts.headers, &parts.uri),
            method: parts.method,
            target: parts.uri,
            headers: parts.headers,
            facts: body.facts,
            body_fingerprint: body.fingerprint,
            encoded_body: body.encoded,
            body: body.plain,
        })
    }
}

#[cfg(test)]
mod tests;
