//! A WebSocket between an agent and a provider, once it is open.
//!
//! In: both sides of the socket, who the agent is, and the rules. Out: messages, both ways. Each message that asks for a
//! response is a call of its own: decided, reserved, forwarded, metered, settled and recorded as one over HTTP is. A lane
//! has one call at a time; what its client asks for meanwhile waits here, undecided. Where the provider begins responses by
//! itself, one is decided and reserved for before the input that could lead to it goes on (`socket/standing.rs`).
//! On failure: a refusal is a message in the format's own shape, and the socket stays open. A message that cannot be
//! framed, a freeze and the end of a run's time end it, with a message that says why. A client that goes away leaves its
//! calls to be read to their end, in bounds; a provider that goes away leaves their usage unknown.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::drain::Drain;
use crate::forward::socket::Upstream;
use crate::llm::socket::{Request, Session};
use crate::llm::{DeclaredTool, RequestFacts};
use crate::meter::{Tab, stopping};
use crate::refusal::Refusal;
use crate::share::Room;

mod caller;
pub(crate) mod client;
mod replies;
mod requests;
mod setup;
mod standing;
#[cfg(test)]
mod tests;

pub use caller::Caller;
pub use client::Client;
use standing::Standing;

/// Without a call under way, and without a message, a socket is closed after this long; clients open another.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// A provider that says nothing for this long during a call has stalled; reasoning models are silent for minutes.
const SILENCE: Duration = Duration::from_secs(10 * 60);
/// How long, and how many bytes, calls are read on after their client has gone.
const LINGER: Duration = Duration::from_secs(120);
const LINGER_BYTES: u64 = 64 * 1024 * 1024;
/// How often what may end a socket is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Lanes of one socket.
const LANES: usize = 32;
/// Messages that wait for their lane, in all lanes of a socket.
const WAITING: usize = 32;
/// How long a provider may take to end a response that it was told to end.
const CUT: Duration = Duration::from_secs(10);
/// How long a response that has to come may take to begin.
const DUE: Duration = Duration::from_secs(30);

/// An open socket.
pub struct Socket {
    caller: Caller,
    session: Box<dyn Session>,
    client: Option<Client>,
    upstream: Upstream,
    lanes: Vec<Lane>,
    /// Tools that were declared on this socket, and not taken out: a later message that goes on from an earlier one need
    /// not repeat them.
    tools: Vec<DeclaredTool>,
    /// What is reserved for responses that the provider may begin by itself.
    standing: Vec<Standing>,
    /// Until when the provider is to have begun a response that nobody asks for.
    due: Option<Instant>,
    /// Why the last one could not be reserved, and when that was.
    uncovered: Option<(Instant, Refusal, String)>,
    /// A message that waits for the response before it to end. No other is read meanwhile, so that none overtakes it.
    held: Option<Waiting>,
    drain: Drain,
    /// When the client, and when the provider, last said something.
    heard: (Instant, Instant),
    /// When the client went away, with which frame, and how many bytes were read since.
    gone: Option<(Instant, Option<CloseFrame>, u64)>,
    /// Why no further call is taken; told when the calls under way have ended.
    over: Option<Over>,
}

/// Why a socket takes no further call.
enum Over {
    /// Guard is being stopped; the client may go on with the next one.
    Draining,
    /// The agent may not go on; what is still to be said.
    Refused(Option<Refusal>),
}

/// One lane.
#[derive(Default)]
struct Lane {
    name: Option<String>,
    call: Option<Current>,
    waiting: VecDeque<Waiting>,
}

/// A call under way.
struct Current {
    tab: Tab,
    /// The provider has said something of it.
    begun: bool,
    /// The provider has said that it begins.
    created: bool,
    /// Something failed, perhaps this.
    doubtful: bool,
    /// The client has asked for its end.
    stopping: bool,
    /// When the provider was told to end it, because no more of it is forwarded.
    cut: Option<Instant>,
}

impl Current {
    fn new(tab: Tab) -> Self {
        Self {
            tab,
            begun: false,
            created: false,
            doubtful: false,
            stopping: false,
            cut: None,
        }
    }
}

/// A message that waits for its lane.
struct Waiting {
    asked: (Box<RequestFacts>, Request),
    message: Bytes,
    room: Room,
    /// Others went on meanwhile, which may have changed what it asks for.
    overtaken: bool,
}

/// What woke the socket up.
enum Woken {
    Client(Option<Result<Message, Error>>),
    Provider(Option<Result<Message, Error>>),
    Look,
    Draining,
    LastWords,
}

/// Whether the socket goes on.
type Goes = Result<(), Ended>;

/// The socket has ended: how the client and the provider are told.
struct Ended {
    client: Option<CloseFrame>,
    provider: Option<CloseFrame>,
}

impl Ended {
    fn both(code: CloseCode, reason: &'static str) -> Self {
        Self {
            client: Some(frame(code, reason)),
            provider: Some(frame(CloseCode::Normal, "")),
        }
    }
}

fn frame(code: CloseCode, reason: &'static str) -> CloseFrame {
    let reason = reason.into();
    CloseFrame { code, reason }
}

impl Socket {
    /// A socket of this client and this provider.
    pub fn new(
        caller: Caller,
        session: Box<dyn Session>,
        client: Client,
        upstream: Upstream,
        drain: Drain,
    ) -> Self {
        Self {
            caller,
            session,
            client: Some(client),
            upstream,
            lanes: Vec::new(),
            tools: Vec::new(),
            standing: Vec::new(),
            due: None,
            uncovered: None,
            held: None,
            drain,
            heard: (Instant::now(), Instant::now()),
            gone: None,
            over: None,
        }
    }

    /// Carries messages until the socket has ended.
    pub async fn run(mut self) {
        let drain = self.drain.clone();
        let mut last_words = std::pin::pin!(drain.last_words());
        let mut draining = std::pin::pin!(drain.ending());
        let ended = loop {
            let told = self.over.is_some();
            let wake = self.wake();
            let waits = self.held.is_some();
            let woken = tokio::select! {
                message = Client::next(&mut self.client), if !waits => Woken::Client(message),
                message = self.upstream.next() => Woken::Provider(message),
                () = tokio::time::sleep_until(wake) => Woken::Look,
                () = draining.as_mut(), if !told => Woken::Draining,
                () = last_words.as_mut() => Woken::LastWords,
            };
            let goes = match woken {
                Woken::Client(message) => self.hear_client(message).await,
                Woken::Provider(message) => self.hear_provider(message).await,
                Woken::Look => self.look().await,
                Woken::Draining => {
                    self.over = Some(Over::Draining);
                    Ok(())
                }
                Woken::LastWords => Err(self.last_words().await),
            };
            match goes {
                Ok(()) if self.busy() => {}
                Ok(()) => match self.rest().await {
                    Ok(()) => {}
                    Err(ended) => break ended,
                },
                Err(ended) => break ended,
            }
        };
        // What is still under way is settled with what is known, before anybody is waited for.
        self.lanes.clear();
        self.stand_down();
        let client = async {
            if let Some(client) = self.client {
                client.close(ended.client).await;
            }
        };
        tokio::join!(client, self.upstream.close(ended.provider));
    }

    fn busy(&self) -> bool {
        let under_way = |lane: &Lane| lane.call.as_ref().is_some_and(|call| !call.doubtful);
        self.is_due() || self.lanes.iter().any(under_way)
    }

    /// When to look next: at the latest when a reply's time is over.
    fn wake(&self) -> Instant {
        let calls = self.lanes.iter().filter_map(|lane| lane.call.as_ref());
        let deadlines = calls
            .filter_map(|call| call.tab.deadline())
            .chain(
                self.standing
                    .iter()
                    .filter_map(|standing| standing.tab.deadline()),
            )
            .map(Instant::from_std);
        deadlines.fold(Instant::now() + LOOK, Instant::min)
    }

    /// Nothing is under way: whether the socket stays open.
    async fn rest(&mut self) -> Goes {
        if let Some((_, frame, _)) = self.gone.take() {
            return Err(Ended {
                client: None,
                provider: frame,
            });
        }
        match self.over.take() {
            None => Ok(()),
            Some(Over::Draining) => Err(Ended::both(
                CloseCode::Restart,
                "the host's firewall is being restarted",
            )),
            Some(Over::Refused(refusal)) => {
                if let Some(refusal) = refusal {
                    self.refuse_unread(&refusal, None).await;
                }
                Err(Ended::both(
                    CloseCode::Policy,
                    "the host's firewall has stopped this agent",
                ))
            }
        }
    }

    /// Looks at what may end the socket.
    async fn look(&mut self) -> Goes {
        let now = Instant::now();
        if let Some((since, _, bytes)) = &self.gone
            && (now.duration_since(*since) > LINGER || *bytes > LINGER_BYTES)
        {
            return Err(self.provider_gone("the reply takes too long after the client had gone", None));
        }
        self.expire(now).await?;
        self.end_cut(now)?;
        if self.over.is_none()
            && let Some(refusal) = self.caller.standing()
        {
            self.over = Some(Over::Refused(Some(refusal)));
        }
        let (client, provider) = self.heard;
        if self.busy() && now.duration_since(provider) > SILENCE {
            return Err(self.provider_gone("the provider sent nothing for ten minutes", None));
        }
        if !self.busy() && now.duration_since(client.max(provider)) > IDLE {
            return Err(Ended::both(CloseCode::Away, "nothing was said for half an hour"));
        }
        Ok(())
    }

    /// Ends everything with last words, because Guard stops.
    async fn last_words(&mut self) -> Ended {
        for at in 0..self.lanes.len() {
            let words = self.lanes.get_mut(at).and_then(|lane| lane.call.as_mut());
            let words = words.map(|call| call.tab.stop_messages()).unwrap_or_default();
            self.say_all(words, false).await;
        }
        tracing::debug!(why = stopping().message, "a socket is cut");
        Ended::both(CloseCode::Restart, "the host's firewall is being restarted")
    }
}
