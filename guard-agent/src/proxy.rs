//! The whole path of a connection and of a call, in two functions.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use http::header::CONTENT_ENCODING;
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::TcpStream;
use ulid::Ulid;

use crate::accept::{FlowInfo, FlowSource, IDENTIFY, Identify, Unidentified, prepare, reset};
use crate::call::{Call, Fingerprint, Origin, Said};
use crate::drain::Drain;
use crate::forward::dial::Target;
use crate::forward::pool::Upstreams;
use crate::forward::{Destination, forward};
use crate::http::admit::admit;
use crate::http::body::{BodyLimits, collect};
use crate::http::{Reply, refuse, refuse_plain, serve};
use crate::identity::Identity;
use crate::llm::encoding::decode_request;
use crate::llm::provider::Provider;
use crate::llm::{Dialect, EndpointKind, detect};
use crate::meter::Linger;
use crate::passthrough::{self, Counted, Cut};
use crate::peek::{First, Patience, Rewind, peek};
use crate::policy::Decide;
use crate::refusal::{Reason, Refusal};
use crate::report::{ConnectionReport, EarlyRefusal, Report, Unaccepted, Verdict};
use crate::route::{Route, Router};
use crate::tls::{Distrust, Terminator, cause_of, is_h2};

/// Gives the dialect of a provider.
pub type Dialects = fn(&Provider) -> &'static dyn Dialect;

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
    /// Wire formats.
    pub dialects: Dialects,
}

/// The data path.
pub struct Proxy {
    stages: Stages,
    snapshot: ArcSwap<Snapshot>,
    drain: Drain,
    linger: Linger,
    patience: Patience,
    limits: BodyLimits,
}

/// A connection that is known and routed.
struct Connection {
    identity: Result<Identity, Unidentified>,
    original_destination: SocketAddr,
    provider: Arc<Provider>,
    sni: String,
    snapshot: Arc<Snapshot>,
    requests: AtomicU64,
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
        let flow = match prepare(&stream)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                self.stages
                    .flows
                    .flow_of(&stream)
                    .map_err(|error| error.to_string())
            }) {
            Ok(flow) => flow,
            Err(error) => {
                tracing::debug!(%error, "a connection without a record");
                self.report().unaccepted(Unaccepted::NoFlow);
                return reset(&stream);
            }
        };
        let identity = self.identify(&flow).await;
        if matches!(identity, Err(Unidentified::Bystander)) {
            return self.let_by(stream, &identity, flow.original_destination).await;
        }
        let (first, bytes) = peek(&mut stream, self.patience).await;
        let snapshot = self.snapshot.load_full();
        let original_destination = flow.original_destination;
        let route = match &first {
            Ok(first) => snapshot.router.route(first, original_destination),
            Err(error) => {
                let verdict = Verdict::Denied(error.to_string());
                self.tell(
                    &identity,
                    original_destination,
                    None,
                    verdict,
                    &Counted::default(),
                );
                return reset(&stream);
            }
        };
        match route {
            Route::Terminate { provider, sni } => {
                let requests = AtomicU64::new(0);
                let connection = Connection {
                    identity,
                    original_destination,
                    provider,
                    sni,
                    snapshot,
                    requests,
                };
                self.terminate(Rewind::new(bytes, stream), Arc::new(connection))
                    .await;
            }
            Route::PlainProvider { provider } => {
                let verdict = Verdict::Denied("a provider over plain HTTP".to_owned());
                let name = provider.hosts.first().map(String::as_str);
                self.tell(
                    &identity,
                    original_destination,
                    name,
                    verdict,
                    &Counted::default(),
                );
                refuse_plain(stream).await;
            }
            Route::Passthrough { name, undecided } => {
                let client = Rewind::new(bytes, stream);
                let counted = Counted::default();
                let verdict = match &identity {
                    Ok(_) => pass(&snapshot, client, original_destination, undecided, &counted).await,
                    Err(error) => Verdict::Denied(error.to_string()),
                };
                self.tell(
                    &identity,
                    original_destination,
                    name.as_deref(),
                    verdict,
                    &counted,
                );
            }
        }
    }

    /// Somebody who only had to wait until it was known that nobody governs them: nothing is read.
    async fn let_by(
        &self,
        stream: TcpStream,
        identity: &Result<Identity, Unidentified>,
        original_destination: SocketAddr,
    ) {
        let counted = Counted::default();
        let verdict = match self
            .snapshot
            .load()
            .upstreams
            .dialer()
            .dial(Target::Original(original_destination))
            .await
        {
            Ok(upstream) => match passthrough::relay(stream, upstream, false, |_| Ok(()), &counted).await {
                Ok(()) => Verdict::Passed,
                Err(_broken) => Verdict::Broken,
            },
            Err(error) => Verdict::Unreachable(error.to_string()),
        };
        self.tell(identity, original_destination, None, verdict, &counted);
    }

    async fn identify(&self, flow: &FlowInfo) -> Result<Identity, Unidentified> {
        tokio::time::timeout(IDENTIFY, self.stages.identify.identify(flow))
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Unidentified::Unknown(
                    "the caller was not identified within a second".to_owned(),
                ))
            })
    }

    fn tell(
        &self,
        identity: &Result<Identity, Unidentified>,
        original_destination: SocketAddr,
        name: Option<&str>,
        verdict: Verdict,
        counted: &Counted,
    ) {
        self.report().connection(&ConnectionReport {
            identity: identity.as_ref().ok(),
            original_destination,
            name,
            verdict,
            sent: counted.sent.load(Ordering::Relaxed),
            received: counted.received.load(Ordering::Relaxed),
        });
    }

    async fn terminate(self: &Arc<Self>, stream: Rewind<TcpStream>, connection: Arc<Connection>) {
        let untrusted = |how: Distrust| {
            if let Ok(identity) = &connection.identity {
                self.report().untrusted(identity, &connection.sni, how);
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
        if connection.requests.load(Ordering::Relaxed) == 0 {
            // An alert still says more; a plain close after the handshake is just that.
            let alert = ended.err().and_then(|error| cause_of(error.as_ref()));
            let alert = alert.filter(|how| matches!(how, Distrust::UnknownCa | Distrust::BadCertificate));
            untrusted(alert.unwrap_or(Distrust::NoRequest));
        }
    }

    /// One call: admit, read, decide, forward; every "no" in the provider's own shape.
    async fn serve_call(&self, connection: &Connection, request: Request<Incoming>) -> Response<Reply> {
        let id = Ulid::new();
        let dialect = (self.stages.dialects)(&connection.provider);
        let (method, target) = (request.method().clone(), request.uri().clone());
        let early = |identity, refusal: Refusal| {
            let (original_destination, provider) =
                (connection.original_destination, connection.provider.as_ref());
            let path = target.path();
            let call = EarlyRefusal {
                id,
                identity,
                provider,
                original_destination,
                method: &method,
                path,
            };
            self.report().refused(&call, &refusal);
            refuse(dialect, &refusal, id)
        };
        let identity = match &connection.identity {
            Ok(identity) => identity,
            Err(error) => return early(None, unidentified(error)),
        };
        let call = match self.read(connection, dialect, id, request).await {
            Ok(call) => call,
            Err(refusal) => return early(Some(identity), refusal),
        };
        let permit = match self.stages.decide.decide(identity, &connection.provider, &call) {
            Ok(permit) => permit,
            Err(refusal) => return refuse(dialect, &refusal, id),
        };
        let destination = Destination {
            original: connection.original_destination,
            sni: &connection.sni,
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
        dialect: &dyn Dialect,
        id: Ulid,
        request: Request<Incoming>,
    ) -> Result<Call, Refusal> {
        let (parts, body) = request.into_parts();
        admit(&parts, &connection.sni, connection.original_destination.port())?;
        let came = collect(&parts.headers, body, self.limits).await?;
        let body = decode_request(&parts.headers, &came, self.limits.bytes)
            .map_err(|error| Refusal::new(error.reason(), format!("{error}.")))?;
        let encoded = parts.headers.contains_key(CONTENT_ENCODING);
        let endpoint = detect::endpoint(&connection.provider, &parts.method, parts.uri.path());
        let facts = match endpoint {
            EndpointKind::Inference => Some(
                dialect
                    .request(&body)
                    .map_err(|error| Refusal::new(Reason::Malformed, error.to_string()))?,
            ),
            _ => None,
        };
        Ok(Call {
            id,
            provider: connection.provider.clone(),
            origin: Origin {
                destination: connection.original_destination,
                sni: connection.sni.clone(),
            },
            endpoint,
            said: Said::read(&parts.headers, &parts.uri),
            method: parts.method,
            target: parts.uri,
            headers: parts.headers,
            facts,
            body_fingerprint: Fingerprint::of(&body),
            encoded_body: encoded.then_some(came),
            body,
        })
    }
}

fn unidentified(error: &Unidentified) -> Refusal {
    Refusal::new(
        Reason::Unidentified,
        format!(
            "The host's firewall could not tell which agent this process belongs to ({error}). Ask the host's owner."
        ),
    )
}

/// Relays to the original destination; a name of a provider that comes late is cut.
async fn pass(
    snapshot: &Snapshot,
    client: Rewind<TcpStream>,
    original_destination: SocketAddr,
    undecided: bool,
    counted: &Counted,
) -> Verdict {
    let upstream = match snapshot
        .upstreams
        .dialer()
        .dial(Target::Original(original_destination))
        .await
    {
        Ok(upstream) => upstream,
        Err(error @ crate::forward::dial::DialError::Forbidden(..)) => {
            return Verdict::Denied(error.to_string());
        }
        Err(error) => return Verdict::Unreachable(error.to_string()),
    };
    let judge = |first: &First| match snapshot.router.route(first, original_destination) {
        Route::Passthrough { .. } => Ok(()),
        Route::Terminate { .. } | Route::PlainProvider { .. } => {
            Err("a provider's name, after the server was given the first word".to_owned())
        }
    };
    match passthrough::relay(client, upstream, undecided, judge, counted).await {
        Ok(()) => Verdict::Passed,
        Err(Cut::Io(_)) => Verdict::Broken,
        Err(Cut::Denied(why)) => Verdict::Denied(why),
    }
}

#[cfg(test)]
mod tests;
