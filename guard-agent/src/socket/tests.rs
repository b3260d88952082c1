//! The bounds in time, with a clock that moves when nothing else does.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Caller, Client, Socket};
use crate::call::{Call, Origin};
use crate::drain::Drain;
use crate::forward::socket::Upstream;
use crate::identity::{Identity, Process};
use crate::llm::provider::{Provider, builtin, dialect_of};
use crate::llm::socket::Opening;
use crate::llm::{BodyEdits, DialectKind, Seen};
use crate::policy::{Credential, Decide, Outcome, Permit, Settle};
use crate::refusal::{Reason, Refusal};
use crate::report::{ConnectionReport, EarlyRefusal, Report, Unaccepted};
use crate::share::Share;
use crate::tls::Distrust;

mod realtime;

/// What the model reads at a time: less than any reservation has room for.
const WINDOW: u64 = 2_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Admits everything, and keeps how it ended.
struct World {
    outcomes: mpsc::Sender<Outcome>,
    refused: Mutex<Vec<String>>,
    withdrawn: Arc<AtomicUsize>,
    /// Nothing is admitted.
    poor: Arc<AtomicBool>,
    /// How much of a response is paid for; no more is.
    room: Option<Seen>,
}

struct Settled {
    outcomes: mpsc::Sender<Outcome>,
    withdrawn: Arc<AtomicUsize>,
    room: Option<Seen>,
}

impl Settle for Settled {
    fn settle(self: Box<Self>, outcome: Outcome) {
        self.outcomes.try_send(outcome).unwrap();
    }

    fn withdraw(self: Box<Self>) {
        self.withdrawn.fetch_add(1, Ordering::SeqCst);
    }

    fn room(&self) -> Option<Seen> {
        self.room
    }

    fn window(&self) -> Option<u64> {
        Some(WINDOW)
    }

    fn extend(&mut self, _: Seen) -> Result<Seen, Refusal> {
        Err(Refusal::new(Reason::BudgetExceeded, "No more than that."))
    }
}

impl Decide for World {
    fn decide(&self, _: &Identity, _: &Provider, _: &Call) -> Result<Permit, Refusal> {
        if self.poor.load(Ordering::SeqCst) {
            return Err(Refusal::new(Reason::BudgetExceeded, "Nothing more."));
        }
        let settlement = Box::new(Settled {
            outcomes: self.outcomes.clone(),
            withdrawn: self.withdrawn.clone(),
            room: self.room,
        });
        Ok(Permit::for_test(
            BodyEdits::default(),
            Credential::Pass,
            settlement,
        ))
    }
}

impl Report for World {
    fn refused(&self, _: &EarlyRefusal<'_>, refusal: &Refusal) {
        self.refused.lock().unwrap().push(refusal.message.to_string());
    }
    fn connection(&self, _: &ConnectionReport<'_>) {}
    fn untrusted(&self, _: &Identity, _: &str, _: Distrust) {}
    fn unaccepted(&self, _: Unaccepted) {}
}

/// A connection that has become a socket, and its other end.
async fn switched() -> (Upgraded, DuplexStream) {
    let (near, mut far) = duplex(64 * 1024);
    let (tell, mut told) = mpsc::channel(1);
    let service = service_fn(move |mut request| {
        tell.try_send(hyper::upgrade::on(&mut request)).unwrap();
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        async move { Ok::<_, Infallible>(response) }
    });
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(near), service)
            .with_upgrades(),
    );
    far.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    (told.recv().await.unwrap().await.unwrap(), far)
}

fn caller(world: &Arc<World>, kind: DialectKind, target: &'static str) -> Caller {
    let provider = builtin().into_iter().find(|provider| provider.name == "openai");
    let dialect = dialect_of(kind);
    Caller {
        identity: Identity {
            agent: "coder".into(),
            owner: "team".into(),
            run: "run".into(),
            cgroup: "/coder".to_owned(),
            container: None,
            unit: None,
            process: Process {
                pid: 1,
                uid: 1,
                exe: None,
                comm: "test".to_owned(),
            },
        },
        provider: Arc::new(provider.unwrap()),
        origin: Origin {
            destination: "203.0.113.1:443".parse().unwrap(),
            sni: "api.openai.com".to_owned(),
        },
        dialect,
        target: target.parse().unwrap(),
        headers: HeaderMap::new(),
        judge: world.clone(),
        report: world.clone(),
    }
}

/// A client, an open socket, a provider, and how calls end.
struct Open {
    client: WebSocketStream<DuplexStream>,
    provider: WebSocketStream<DuplexStream>,
    outcomes: mpsc::Receiver<Outcome>,
    withdrawn: Arc<AtomicUsize>,
    poor: Arc<AtomicBool>,
    began: Instant,
}

impl Open {
    async fn new() -> Self {
        Self::of(DialectKind::OpenaiResponses, "/v1/responses", None).await
    }

    async fn of(kind: DialectKind, target: &'static str, room: Option<Seen>) -> Self {
        let (tell, outcomes) = mpsc::channel(16);
        let withdrawn = Arc::new(AtomicUsize::new(0));
        let poor = Arc::new(AtomicBool::new(false));
        let world = Arc::new(World {
            outcomes: tell,
            refused: Mutex::default(),
            withdrawn: withdrawn.clone(),
            poor: poor.clone(),
            room,
        });
        let (stream, client) = switched().await;
        let (upstream, provider) = switched().await;
        let near = Client::new(stream, Share::default(), 1024 * 1024).await;
        let far = Upstream::over(upstream).await;
        let caller = caller(&world, kind, target);
        let opening = Opening {
            target: &caller.target,
            headers: &caller.headers,
        };
        let session = caller
            .dialect
            .socket(caller.target.path())
            .unwrap()
            .open(&opening);
        tokio::spawn(Socket::new(caller, session.unwrap(), near, far, Drain::default()).run());
        Self {
            client: WebSocketStream::from_raw_socket(client, Role::Client, None).await,
            provider: WebSocketStream::from_raw_socket(provider, Role::Server, None).await,
            outcomes,
            withdrawn,
            poor,
            began: Instant::now(),
        }
    }

    /// The client asks for a response, and the provider begins it.
    async fn ask(&mut self) {
        let create = json!({"type": "response.create", "model": "gpt-5", "input": "hi"});
        self.client.send(Message::text(create.to_string())).await.unwrap();
        let asked = self.provider.next().await.unwrap().unwrap();
        assert_eq!(asked, Message::text(create.to_string()));
        self.tell(&json!({"type": "response.created", "response": {"id": "r", "object": "response"}}))
            .await;
        assert_eq!(self.heard().await["type"], "response.created");
    }

    async fn tell(&mut self, event: &serde_json::Value) {
        self.provider
            .send(Message::text(event.to_string()))
            .await
            .unwrap();
    }

    async fn heard(&mut self) -> serde_json::Value {
        let message = self.client.next().await.unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// With which code the client's side is closed, and whole minutes after the beginning.
    async fn closed(&mut self) -> (CloseCode, u64) {
        match self.client.next().await {
            Some(Ok(Message::Close(Some(frame)))) => (frame.code, self.began.elapsed().as_secs() / 60),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_on_which_nobody_speaks_is_closed_after_half_an_hour() {
    let mut open = Open::new().await;
    assert_eq!(open.closed().await, (CloseCode::Away, 30));
    let provider = open.provider.next().await;
    assert!(matches!(provider, Some(Ok(Message::Close(_)))), "{provider:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_speaks_begins_the_half_hour_anew() {
    let mut open = Open::new().await;
    sleep(29 * MINUTE).await;
    open.client
        .send(Message::Ping(Bytes::from_static(b"p")))
        .await
        .unwrap();
    assert!(matches!(open.client.next().await, Some(Ok(Message::Pong(_)))));
    sleep(29 * MINUTE).await;
    open.provider
        .send(Message::Ping(Bytes::from_static(b"p")))
        .await
        .unwrap();
    assert!(matches!(open.provider.next().await, Some(Ok(Message::Pong(_)))));
    assert_eq!(open.closed().await, (CloseCode::Away, 88));
    assert!(open.outcomes.try_recv().is_err(), "there was no call");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_falls_silent_in_a_response_is_left_after_ten_minutes_and_the_cost_is_unknown() {
    let mut open = Open::new().await;
    open.ask().await;
    assert_eq!(open.closed().await, (CloseCode::Error, 10));
    let outcome = open.outcomes.recv().await.unwrap();
    assert_eq!(outcome.facts.usage, None);
    assert!(outcome.forwarded && !outcome.facts.complete);
    let why = outcome.upstream_error.unwrap();
    assert!(why.contains("nothing for ten minutes"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_response_may_take_hours_while_its_agent_only_listens() {
    let mut open = Open::new().await;
    open.ask().await;
    for _ in 0..12 {
        sleep(9 * MINUTE).await;
        open.tell(&json!({"type": "response.output_text.delta", "output_index": 0, "delta": "a"}))
            .await;
        assert_eq!(open.heard().await["delta"], "a");
    }
    let usage = json!({"input_tokens": 5, "output_tokens": 7, "total_tokens": 12});
    let response = json!({"id": "r", "object": "response", "status": "completed", "model": "gpt-5", "output": [], "usage": usage});
    open.tell(&json!({"type": "response.completed", "response": response}))
        .await;
    assert_eq!(open.heard().await["type"], "response.completed");
    let outcome = open.outcomes.recv().await.unwrap();
    assert_eq!(outcome.facts.usage.map(|usage| usage.output), Some(7));
    assert_eq!(open.closed().await, (CloseCode::Away, 12 * 9 + 30));
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_client_has_gone_is_read_on_for_two_minutes() {
    let mut open = Open::new().await;
    open.ask().await;
    drop(open.client);
    let began = Instant::now();
    let delta = json!({"type": "response.output_text.delta", "output_index": 0, "delta": "a"}).to_string();
    while open.provider.send(Message::text(delta.clone())).await.is_ok() {
        sleep(Duration::from_secs(10)).await;
        if open.outcomes.is_closed() || !open.outcomes.is_empty() {
            break;
        }
    }
    let outcome = open.outcomes.recv().await.unwrap();
    assert!(outcome.client_gone && outcome.facts.usage.is_none());
    let took = began.elapsed().as_secs();
    assert!((120..=140).contains(&took), "{took}");
}
