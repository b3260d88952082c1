//! A fake provider: real TLS, real HTTP/1.1 and HTTP/2, the wire format of the real one, and a test at the controls.
//!
//! It answers each call as its [`Reply`] says, writes down every request as it arrived, and keeps a ledger of what
//! it would bill. It runs in the test's own process on a socket inside the lab's internet.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Alpn, Authority};
use crate::netns::NetNs;

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod live;
mod media;
mod mistral;
mod ollama;
mod openai;
mod outcome;
mod realtime;
mod responses;
mod script;
mod site;
mod sockets;
mod vertex;

pub use outcome::Answer;
pub use script::{Fault, Gate, Pace, Raw, Reply, Tokens};

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// OpenAI chat completions.
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// Amazon's Converse and InvokeModel.
    Bedrock,
    /// Cohere's second API.
    Cohere,
    /// Google's and Anthropic's models on Vertex AI.
    Vertex,
    /// Ollama's own API.
    Ollama,
    /// Mistral's chat completions.
    Mistral,
    /// Neither: an ordinary web site that says what it was asked.
    Site,
}

impl Speaks {
    /// The provider's name in the configuration.
    pub fn provider(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Cohere => "cohere",
            Self::Vertex => "vertex",
            Self::Ollama => "ollama",
            Self::Mistral => "mistral",
            Self::Site => "site",
        }
    }
}

/// Whom the server's certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// The right names, from the authority that clients trust.
    Right,
    /// The names of someone else, from the authority that clients trust.
    WrongName,
    /// The right names, from an authority that nobody trusts.
    WrongAuthority,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Position among all requests to this server, from 0.
    pub number: usize,
    /// Protocol.
    pub version: Version,
    /// Who dialled.
    pub from: SocketAddr,
    /// Method.
    pub method: Method,
    /// Path with query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Seen {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The credential, wherever the client put it.
    pub fn credential(&self) -> Option<&str> {
        let bearer = self
            .header("authorization")
            .map(|text| text.strip_prefix("Bearer ").unwrap_or(text));
        let google = self.header("x-goog-api-key");
        google.or(self.header("x-api-key")).or(bearer)
    }

    /// Which attempt at the same logical call this is, from 0, as the vendors' SDKs count it.
    pub fn attempt(&self) -> Option<u32> {
        self.header("x-stainless-retry-count")?.parse().ok()
    }

    /// The body as JSON; null when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the request names this tool, wherever its format lets a tool be declared.
    pub fn declares(&self, tool: &str) -> bool {
        self.text().contains(&format!("\"{tool}\""))
    }

    /// Whether the conversation has a tool's result, in the words of any format.
    pub fn is_answered(&self) -> bool {
        let results = [
            "\"tool_result\"",
            "\"function_call_output\"",
            "\"custom_tool_call_output\"",
            "\"functionResponse\"",
            "\"function_response\"",
            "\"toolResult\"",
        ];
        let text = self.text();
        let is_tool = |message: &Value| message["role"] == "tool";
        let messages = self.json()["messages"]
            .as_array()
            .is_some_and(|list| list.iter().any(is_tool));
        messages || results.iter().any(|result| text.contains(result))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Names of the tools that the request declares, in order.
    pub fn tools(&self) -> Vec<String> {
        let json = self.json();
        let tools = json["tools"].as_array().cloned().unwrap_or_default();
        tools
            .iter()
            .filter_map(|tool| tool["function"]["name"].as_str().or(tool["name"].as_str()))
            .map(str::to_owned)
            .collect()
    }
}

/// One line of the provider's bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Billed {
    /// [`Seen::number`] of the request.
    pub request: usize,
    /// The model that served it.
    pub model: String,
    /// What it cost, whatever the reply said.
    pub tokens: Tokens,
}

/// A fake provider, or an ordinary site. Stops when it is dropped.
#[derive(Debug)]
pub struct Provider {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    speaks: Speaks,
    state: Mutex<State>,
    changed: Condvar,
    certificates: Certificates,
}

#[derive(Debug)]
struct Certificates {
    both: [Arc<rustls::ServerConfig>; 3],
    http1: Arc<rustls::ServerConfig>,
}

#[derive(Debug)]
struct State {
    seen: Vec<Seen>,
    billed: Vec<Billed>,
    queued: VecDeque<Reply>,
    usual: Reply,
    key: Option<String>,
    certificate: Certificate,
    alpn: Alpn,
    connections: usize,
    relay: Option<SocketAddr>,
}

impl Provider {
    /// Starts one in `network`, listening on these addresses, with a certificate for these names.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn start(
        speaks: Speaks,
        network: &NetNs,
        addresses: &[SocketAddr],
        names: &[&str],
        authority: &Authority,
        runtime: &Handle,
    ) -> Result<Self> {
        let stranger = Authority::new("Nobody's Root")?;
        let certificates = Certificates {
            both: [
                authority.server(names, Alpn::Both)?,
                authority.server(&["wrong.example.net"], Alpn::Both)?,
                stranger.server(names, Alpn::Both)?,
            ],
            http1: authority.server(names, Alpn::Http1)?,
        };
        let shared = Arc::new(Shared {
            speaks,
            state: Mutex::new(State {
                seen: Vec::new(),
                billed: Vec::new(),
                queued: VecDeque::new(),
                usual: Reply::default(),
                key: None,
                certificate: Certificate::Right,
                alpn: Alpn::Both,
                connections: 0,
                relay: None,
            }),
            changed: Condvar::new(),
            certificates,
        });
        let mut tasks = Vec::new();
        for address in addresses {
            let listener = network.run(|| {
                let listener =
                    TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })?;
            let _inside = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(runtime.spawn(Arc::clone(&shared).listen(listener)));
        }
        Ok(Self { shared, tasks })
    }

    /// Answers every call so, from now on.
    pub fn always(&self, reply: Reply) {
        self.shared.lock().usual = reply;
    }

    /// Answers the next call so that has no other answer queued before it.
    pub fn next(&self, reply: Reply) {
        self.shared.lock().queued.push_back(reply);
    }

    /// Accepts this key only, and refuses others with the provider's own 401.
    pub fn require_key(&self, key: &str) {
        self.shared.lock().key = Some(key.to_owned());
    }

    /// Shows this certificate to whoever connects from now on.
    pub fn certificate(&self, certificate: Certificate) {
        self.shared.lock().certificate = certificate;
    }

    /// Offers these protocols to whoever connects from now on.
    pub fn alpn(&self, alpn: Alpn) {
        self.shared.lock().alpn = alpn;
    }

    /// Answers nothing itself from now on: what comes out of TLS goes there as it is, and the answers back.
    pub fn relay(&self, to: SocketAddr) {
        self.shared.lock().relay = Some(to);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// The last request.
    ///
    /// # Errors
    /// There was none.
    pub fn last(&self) -> Result<Seen> {
        self.shared
            .lock()
            .seen
            .last()
            .cloned()
            .context("the provider saw no request")
    }

    /// Everything billed so far.
    pub fn billed(&self) -> Vec<Billed> {
        self.shared.lock().billed.clone()
    }

    /// How many connections were accepted, with or without a request on them.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits until at least this many requests were seen in all.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn wait_for(&self, count: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.seen.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} of {count} requests after {patience:?}", state.seen.len());
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Self>, listener: tokio::net::TcpListener) {
        // connections are children of this task: they end with the provider
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    if let Ok((stream, from)) = accepted {
                        connections.spawn(Arc::clone(&self).serve(stream, from));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: tokio::net::TcpStream, from: SocketAddr) {
        let (config, relay) = {
            let mut state = self.lock();
            state.connections += 1;
            self.changed.notify_all();
            let config = match (state.alpn, state.certificate) {
                _ if state.relay.is_some() => Arc::clone(&self.certificates.http1),
                (Alpn::Http1, _) => Arc::clone(&self.certificates.http1),
                (Alpn::Both, Certificate::Right) => Arc::clone(&self.certificates.both[0]),
                (Alpn::Both, Certificate::WrongName) => Arc::clone(&self.certificates.both[1]),
                (Alpn::Both, Certificate::WrongAuthority) => Arc::clone(&self.certificates.both[2]),
            };
            (config, state.relay)
        };
        // an event must leave when it is sent, or a test could not tell who buffers
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else {
            return;
        };
        if let Some(to) = relay {
            pass_on(stream, to).await;
            return;
        }
        let service = service_fn(move |request| Arc::clone(&self).call(request, from));
        let served = auto::Builder::new(TokioExecutor::new())
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .await;
        // a client that hangs up, or a reply that is cut on purpose, ends here; tests look at what was seen
        drop(served);
    }

    /// Writes a request down; gives it with its number, the answer that is due, and whether its key is refused.
    fn note(&self, mut seen: Seen) -> (Seen, Reply, bool) {
        let mut state = self.lock();
        seen.number = state.seen.len();
        state.seen.push(seen.clone());
        let mut reply = if seen.method == Method::POST {
            state.queued.pop_front().unwrap_or_else(|| state.usual.clone())
        } else {
            state.usual.clone()
        };
        self.changed.notify_all();
        if reply.until_answered {
            reply
                .tool
                .take_if(|(name, _)| seen.is_answered() || !seen.declares(name));
        }
        let refused = state
            .key
            .as_ref()
            .is_some_and(|key| seen.credential() != Some(key.as_str()));
        (seen, reply, refused)
    }

    fn bill(&self, seen: &Seen, model: &str, tokens: Tokens) {
        let billed = Billed {
            request: seen.number,
            model: model.to_owned(),
            tokens,
        };
        self.lock().billed.push(billed);
    }

    async fn call(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        from: SocketAddr,
    ) -> Result<Response<outcome::Body>, Infallible> {
        let socket = sockets::is_asked_for(&request).then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return Ok(outcome::empty());
        };
        let path = head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string);
        let (seen, reply, refused) = self.note(Seen {
            number: 0,
            version: head.version,
            from,
            method: head.method,
            path,
            headers: head.headers,
            body: body.to_bytes(),
        });
        if let Some(upgraded) =
            socket.filter(|_| !refused && matches!(self.speaks, Speaks::OpenAi | Speaks::Gemini))
        {
            return Ok(sockets::open(&self, seen, upgraded));
        }
        let answer = match self.speaks {
            Speaks::OpenAi if refused => openai::unauthorized(&seen),
            Speaks::Anthropic if refused => anthropic::unauthorized(&seen),
            Speaks::Gemini | Speaks::Vertex if refused => gemini::unauthorized(),
            Speaks::Ollama if refused => ollama::unauthorized(),
            Speaks::Cohere if refused => cohere::unauthorized(),
            Speaks::Mistral if refused => mistral::unauthorized(),
            // Its keys sign; tests look at the signature themselves.
            Speaks::Bedrock => bedrock::answer(&seen, &reply),
            Speaks::Gemini => gemini::answer(&seen, &reply),
            Speaks::Cohere => cohere::answer(&seen, &reply),
            Speaks::Vertex => vertex::answer(&seen, &reply),
            Speaks::Ollama => ollama::answer(&seen, &reply),
            Speaks::Mistral => mistral::answer(&seen, &reply),
            Speaks::OpenAi => openai::answer(&seen, &reply),
            Speaks::Anthropic => anthropic::answer(&seen, &reply),
            Speaks::Site => site::answer(&seen),
        };
        if let Some(model) = &answer.billed_model {
            self.bill(&seen, model, reply.tokens);
        }
        if let Some(gate) = &reply.gate {
            gate.pass().await;
        }
        tokio::time::sleep(reply.delay).await;
        Ok(answer.send(&reply))
    }
}

/// Passes a client's bytes on, and the answers back.
async fn pass_on(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, to: SocketAddr) {
    #[expect(clippy::disallowed_methods, reason = "this is the outside world, not Guard")]
    let connected = tokio::net::TcpStream::connect(to).await;
    let Ok(mut other) = connected else {
        return;
    };
    // whoever hangs up first ends it; tests look at what came through
    drop(tokio::io::copy_bidirectional(&mut stream, &mut other).await);
}
