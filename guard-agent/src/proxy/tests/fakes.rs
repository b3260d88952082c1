//! A provider, its dialect, the stages around the data path, and clients.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::*;
use crate::accept::{Connections, NoFlow, listen};
use crate::forward::dial::Dialer;
use crate::identity::Process;
use crate::keys::Secret;
use crate::llm::detect::{self, Endpoint};
use crate::llm::provider::Mount;
use crate::llm::{
    BodyEdits, Dialect, DialectKind, EndpointKind, Malformed, RefusalReply, ReplyFacts, ReplyHead,
    ReplyReader, RequestFacts, Seen, Usage,
};
use crate::policy::{Credential, Deadline, Outcome, Permit, Settle};
use crate::refusal::Reason;
use crate::report::ConnectionReport;
use crate::route::addresses::ProviderAddresses;
use crate::route::tests::provider;
use crate::seam::settings::TrustFiles;

pub(super) const HOST: &str = "api.fake.example";
pub(super) const REAL_KEY: &str = "sk-real-1234567890";

pub(super) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn full(text: &str) -> AnyBody {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed_unsync()
}

/// A body that is fed from outside, event by event.
pub(super) fn fed() -> (mpsc::Sender<&'static str>, AnyBody) {
    let (feed, mut events) = mpsc::channel::<&'static str>(1);
    let frames = futures_util::stream::poll_fn(move |cx| {
        let event = events.poll_recv(cx);
        event.map(|event| event.map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
    });
    (feed, StreamBody::new(frames).boxed_unsync())
}

pub(super) type Handler =
    Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<AnyBody>> + Send + Sync + 'static>;

/// Answers every request with the same text after reading it whole.
pub(super) fn answering(text: &'static str) -> Handler {
    Arc::new(move |request| {
        Box::pin(async move {
            let _whole = request.into_body().collect().await;
            Response::new(full(text))
        })
    })
}

pub(super) struct FakeProvider {
    pub(super) address: SocketAddr,
    pub(super) trust: tempfile::NamedTempFile,
    pub(super) connections: Arc<AtomicUsize>,
}

/// Serves over TLS with a certificate for `name`.
pub(super) async fn fake_provider(name: &str, alpn: &[u8], handler: Handler) -> FakeProvider {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let trust = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(trust.path(), made.cert.pem()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request| {
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                drop(
                    builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    });
    FakeProvider {
        address,
        trust,
        connections,
    }
}

struct FakeDialect;

/// Usage is `usage=N` anywhere in one chunk.
#[derive(Default)]
struct FakeReader(ReplyFacts);

impl ReplyReader for FakeReader {
    fn feed(&mut self, chunk: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&chunk);
        if let Some((_, rest)) = text.split_once("usage=") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            self.0.usage = Some(Usage {
                output: digits.parse().unwrap(),
                ..Usage::default()
            });
        }
        chunk
    }
    fn finish(&mut self) -> (Bytes, ReplyFacts) {
        (Bytes::new(), std::mem::take(&mut self.0))
    }
}

impl Dialect for FakeDialect {
    fn kind(&self) -> DialectKind {
        DialectKind::OpenaiChat
    }
    fn endpoint(&self, method: &Method, path: &str) -> EndpointKind {
        match (method.as_str(), path) {
            ("POST", "/v1/chat/completions") => EndpointKind::Inference,
            ("GET", "/v1/models") => EndpointKind::Models,
            _ => EndpointKind::Other,
        }
    }
    fn request(&self, body: &[u8]) -> Result<RequestFacts, Malformed> {
        if body == b"bad" {
            Err(Malformed("bad body".to_owned()))
        } else {
            Ok(RequestFacts::default())
        }
    }
    fn rewrite(&self, body: &Bytes, edits: &BodyEdits) -> Result<Bytes, Malformed> {
        Ok(Bytes::from(format!(
            "{}+{}",
            String::from_utf8_lossy(body),
            edits.output_cap.unwrap_or(0)
        )))
    }
    fn reply(&self, _head: &ReplyHead<'_>) -> Box<dyn ReplyReader> {
        Box::new(FakeReader::default())
    }
    fn refusal(&self, refusal: &Refusal, request_id: &str) -> RefusalReply {
        use crate::refusal::Class;
        let status = match refusal.reason.class() {
            Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Class::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Class::Upgrade => StatusCode::UPGRADE_REQUIRED,
            Class::Upstream => StatusCode::BAD_GATEWAY,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = format!("{}|{}|{request_id}", refusal.reason.code(), refusal.message);
        RefusalReply {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }
}

/// Everything around the data path; remembers what it was told.
pub(super) struct World {
    pub(super) original_destination: SocketAddr,
    pub(super) edits: BodyEdits,
    pub(super) pass_login: bool,
    pub(super) anonymous: bool,
    /// How long each reply may last.
    pub(super) lasts: Option<Duration>,
    /// How many tokens of output are paid for.
    pub(super) room: Option<u64>,
    pub(super) frozen: AtomicBool,
    /// What was admitted.
    pub(super) decided: Mutex<Vec<RequestFacts>>,
    /// Nobody is an agent, and this host is a provider's.
    pub(super) bystander: bool,
    agents: AtomicUsize,
    outcomes: mpsc::Sender<Outcome>,
    told: Mutex<Vec<String>>,
    pub(super) presented: Mutex<Vec<String>>,
}

struct Settled(mpsc::Sender<Outcome>, Option<Duration>, Option<u64>);
impl Settle for Settled {
    fn deadline(&self) -> Option<Deadline> {
        Some(Deadline {
            at: Instant::now() + self.1?,
            refusal: Refusal::new(Reason::RunTimeout, "the run is over"),
            id: "01ID".to_owned(),
        })
    }
    fn room(&self) -> Option<Seen> {
        let output = self.2?;
        Some(Seen { input: 0, output })
    }
    fn extend(&mut self, _: Seen) -> Result<Seen, Refusal> {
        Err(Refusal::new(Reason::BudgetExceeded, "the money is spent"))
    }

    fn settle(self: Box<Self>, outcome: Outcome) {
        self.0.try_send(outcome).unwrap();
    }
}

impl FlowSource for World {
    fn flow_of(&self, _stream: &TcpStream) -> Result<FlowInfo, NoFlow> {
        Ok(FlowInfo {
            original_destination: self.original_destination,
            record: Arc::new(()),
        })
    }
}

/// Every connection is another agent's.
impl Identify for World {
    fn identify<'a>(&'a self, _flow: &'a FlowInfo) -> BoxFuture<'a, Result<Identity, Unidentified>> {
        Box::pin(async {
            if self.anonymous {
                std::future::pending::<()>().await;
            }
            if self.bystander {
                return Err(Unidentified::Bystander);
            }
            let number = self.agents.fetch_add(1, Ordering::Relaxed);
            Ok(Identity {
                agent: format!("agent-{number}").into(),
                owner: "owner".into(),
                run: "run".into(),
                cgroup: "/a".to_owned(),
                container: None,
                unit: None,
                process: Process {
                    pid: 1,
                    uid: 1,
                    exe: None,
                    comm: "test".to_owned(),
                },
            })
        })
    }
}

impl Decide for World {
    fn standing(&self, _: &Identity) -> Option<Refusal> {
        let frozen = self.frozen.load(Ordering::Relaxed);
        frozen.then(|| Refusal::new(Reason::Frozen, "stopped by the operator"))
    }

    fn decide(&self, _: &Identity, _: &Provider, call: &Call) -> Result<Permit, Refusal> {
        let secrets = call.said.credentials.iter().map(|c| c.secret.expose().to_owned());
        self.presented.lock().unwrap().extend(secrets);
        if call.endpoint == EndpointKind::Other {
            return Err(Refusal::new(Reason::EndpointDenied, "no"));
        }
        let facts = call.facts.clone().unwrap_or_default();
        if facts.model == "denied" {
            return Err(Refusal::new(Reason::ModelDenied, "not this model"));
        }
        self.decided.lock().unwrap().push(facts);
        let credential = if self.pass_login {
            Credential::Pass
        } else {
            Credential::Inject {
                header: AUTHORIZATION,
                secret: Secret::new(REAL_KEY),
            }
        };
        let settlement = Box::new(Settled(self.outcomes.clone(), self.lasts, self.room));
        Ok(Permit::for_test(self.edits.clone(), credential, settlement))
    }
}

impl Report for World {
    fn refused(&self, call: &EarlyRefusal<'_>, refusal: &Refusal) {
        self.told
            .lock()
            .unwrap()
            .push(format!("refused {} {}", call.path, refusal.reason.label()));
    }
    fn connection(&self, connection: &ConnectionReport<'_>) {
        self.told
            .lock()
            .unwrap()
            .push(format!("{:?} {:?}", connection.verdict, connection.name));
    }
    fn untrusted(&self, _: &Identity, sni: &str, how: Distrust) {
        self.told
            .lock()
            .unwrap()
            .push(format!("untrusted {sni} {}", how.label()));
    }
    fn unaccepted(&self, why: Unaccepted) {
        self.told.lock().unwrap().push(format!("{why:?}"));
    }
}

/// A running proxy in front of a provider.
pub(super) struct Setup {
    pub(super) proxy: Arc<Proxy>,
    pub(super) world: Arc<World>,
    pub(super) address: SocketAddr,
    pub(super) roots: rustls::RootCertStore,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
}

pub(super) async fn setup(upstream: &FakeProvider) -> Setup {
    setup_with(upstream, |_| {}).await
}

/// What tests change.
fn world(outcomes: mpsc::Sender<Outcome>) -> World {
    World {
        original_destination: "203.0.113.1:443".parse().unwrap(),
        edits: BodyEdits::default(),
        pass_login: false,
        anonymous: false,
        lasts: None,
        room: None,
        frozen: AtomicBool::new(false),
        decided: Mutex::default(),
        bystander: false,
        agents: AtomicUsize::new(0),
        outcomes,
        told: Mutex::default(),
        presented: Mutex::default(),
    }
}

pub(super) async fn setup_with(upstream: &FakeProvider, change: impl FnOnce(&mut World)) -> Setup {
    let mut fake = provider("fake", HOST);
    fake.formats.push(Mount {
        base: String::new(),
        dialect: DialectKind::OpenaiResponses,
    });
    fake.connect_to = Some(upstream.address);
    fake.trust = vec![upstream.trust.path().to_owned()];
    let providers = [Arc::new(fake)];
    let (terminator, roots) = crate::tls::tests::terminator(&[HOST]);
    let addresses = Arc::new(ProviderAddresses::new(|_name| {
        Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()])
    }));
    let snapshot = Snapshot {
        router: Router::new(&providers).with_addresses(addresses.clone()),
        upstreams: Upstreams::new(
            &providers,
            &[],
            &[],
            &TrustFiles::of(&providers).unwrap(),
            Dialer::default(),
        )
        .unwrap(),
        terminator,
    };
    let (sender, outcomes) = mpsc::channel(64);
    let mut world = world(sender);
    change(&mut world);
    if world.bystander {
        addresses.watch(vec![HOST.to_owned()]);
        addresses.keep_current().unwrap();
        while !addresses.is_provider(std::net::Ipv4Addr::LOCALHOST.into()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let world = Arc::new(world);
    let stages = Stages {
        dns: None,
        flows: world.clone(),
        identify: world.clone(),
        decide: world.clone(),
        report: world.clone(),
        endpoints: |provider, method, path| Endpoint {
            dialect: &FakeDialect,
            ..detect::endpoint(provider, method, path)
        },
    };
    let patience = Patience {
        silence: Duration::from_millis(100),
        verdict: Duration::from_millis(300),
    };
    let limits = BodyLimits {
        bytes: 100_000,
        silence: Duration::from_secs(2),
        total: Duration::from_secs(4),
    };
    let proxy = Arc::new(Proxy::new(stages, snapshot, Drain::default()).with_limits(patience, limits));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(listen(
        listener,
        proxy.clone(),
        Connections::default(),
        CancellationToken::new(),
    ));
    Setup {
        proxy,
        world,
        address,
        roots,
        outcomes,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test's client is not an upstream socket"
)]
pub(super) async fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(super) enum Client {
    H1(hyper::client::conn::http1::SendRequest<AnyBody>),
    H2(hyper::client::conn::http2::SendRequest<AnyBody>),
}

impl Setup {
    pub(super) async fn client(&self, h2: bool) -> Client {
        let alpn: &[u8] = if h2 { b"h2" } else { b"http/1.1" };
        let connector = crate::tls::tests::client(self.roots.clone(), &[alpn]);
        let stream = tcp(self.address).await;
        let stream = TokioIo::new(connector.connect(HOST.try_into().unwrap(), stream).await.unwrap());
        if h2 {
            // A stalled stream must not spend this client's own budget for small frames, however fast the proxy is.
            let made = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(64 * 1024)
                .initial_connection_window_size(64 * 1024 * 1024)
                .handshake(stream)
                .await;
            let (sender, connection) = made.unwrap();
            tokio::spawn(connection);
            Client::H2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            Client::H1(sender)
        }
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.world.told.lock().unwrap().clone()
    }

    /// The one outcome of the one call.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let outcome = tokio::time::timeout(Duration::from_secs(5), self.outcomes.recv()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(self.outcomes.try_recv().is_err(), "settled twice");
        outcome.expect("settled in time").unwrap()
    }
}

pub(super) fn post(h2: bool, text: &str) -> Request<AnyBody> {
    request(h2, Method::POST, "/v1/chat/completions")
        .body(full(text))
        .unwrap()
}

pub(super) fn request(h2: bool, method: Method, path: &str) -> http::request::Builder {
    let uri = if h2 {
        format!("https://{HOST}{path}")
    } else {
        path.to_owned()
    };
    let builder = Request::builder().method(method).uri(uri);
    if h2 { builder } else { builder.header("host", HOST) }
}

impl Client {
    pub(super) async fn send(&mut self, request: Request<AnyBody>) -> Response<Incoming> {
        let answer = async {
            match self {
                Self::H1(sender) => sender.send_request(request).await,
                Self::H2(sender) => sender.send_request(request).await,
            }
        };
        tokio::time::timeout(Duration::from_secs(10), answer)
            .await
            .expect("an answer in time")
            .unwrap()
    }
}

pub(super) async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}
