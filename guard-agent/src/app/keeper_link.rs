//! The worker's way to the keeper: questions, and their answers.
//!
//! In: a question. Out: the keeper's answer. On failure: there is none, and whoever asked refuses.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::accept::{FlowInfo, Identify, Unidentified};
use crate::dns::Sockets;
use crate::identity::Identity;
use crate::kernel::Flow;
use crate::seam::{Answer, Ask, Channel, FromWorker, Governed, Run, Sealed};

/// Messages that may wait for the keeper: one for every connection.
const QUEUE: usize = 10_000;
/// How long an answer may take; a reload reads files and asks back.
const PATIENCE: Duration = Duration::from_secs(25);

type Outgoing = (FromWorker, Vec<OwnedFd>);
type Answered = (Answer, Vec<OwnedFd>);

/// The way to the keeper.
#[derive(Debug)]
pub(super) struct KeeperLink {
    to: mpsc::Sender<Outgoing>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answered>>>,
    next: AtomicU64,
}

/// The keeper did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Guard's keeper did not answer; try again")]
pub(super) struct Unanswered;

impl KeeperLink {
    /// Asks over this channel. The task ends when the keeper is gone.
    pub(super) fn new(channel: Arc<Channel>) -> (Arc<Self>, JoinHandle<()>) {
        let (to, mut from) = mpsc::channel::<Outgoing>(QUEUE);
        let writing = tokio::spawn(async move {
            while let Some((message, descriptors)) = from.recv().await {
                if let Err(error) = channel.send(&message, &descriptors).await {
                    tracing::debug!(%error, "the keeper does not hear");
                    return;
                }
            }
        });
        let link = Self {
            to,
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
        };
        (Arc::new(link), writing)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answered>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the keeper something that has no answer.
    pub(super) fn tell(&self, message: FromWorker) {
        if self.to.try_send((message, Vec::new())).is_err() {
            tracing::debug!("the keeper is not told");
        }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, ask: Ask, descriptors: Vec<OwnedFd>) -> Result<Answered, Unanswered> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.lock().insert(id, answer);
        let sent = self.to.try_send((FromWorker::Ask { id, ask }, descriptors));
        if sent.is_err() {
            self.lock().remove(&id);
            return Err(Unanswered);
        }
        // Whoever gives up earlier leaves an entry that the answer, which always comes, removes.
        let answered = timeout(PATIENCE, answered).await;
        answered.ok().and_then(Result::ok).ok_or(Unanswered)
    }

    /// Asks from a thread that may block.
    fn ask_blocking(&self, ask: Ask, descriptors: Vec<OwnedFd>) -> Result<Answered, Unanswered> {
        Handle::current().block_on(self.ask(ask, descriptors))
    }

    /// An answer came.
    pub(super) fn answered(&self, id: u64, answer: Answer, descriptors: Vec<OwnedFd>) {
        let waiting = self.lock().remove(&id);
        // Whoever asked may have given up.
        drop(waiting.map(|waiting| waiting.send((answer, descriptors))));
    }

    /// The governed cgroups.
    pub(super) async fn governed(&self) -> Result<Governed, Unanswered> {
        listed(self.ask(Ask::Governed, Vec::new()).await?)
    }

    /// The governed cgroups, from a thread that may block.
    pub(super) fn governed_blocking(&self) -> Result<Governed, Unanswered> {
        listed(self.ask_blocking(Ask::Governed, Vec::new())?)
    }

    /// Whether a process belongs to an agent; from a thread that may block. Without an answer it counts as one.
    pub(super) fn is_governed(&self, pid: u32) -> bool {
        match self.ask_blocking(Ask::IsGoverned { pid }, Vec::new()) {
            Ok((Answer::IsGoverned(governed), _)) => governed,
            _ => true,
        }
    }

    /// Starts a run for whoever is at the other end of the connection; from a thread that may block.
    pub(super) fn run(&self, agent: &str, connection: &OwnedFd) -> Result<Run, String> {
        let copy = connection.try_clone().map_err(|why: io::Error| why.to_string())?;
        let ask = Ask::Run {
            agent: agent.to_owned(),
        };
        match self.ask_blocking(ask, vec![copy]) {
            Ok((Answer::Run(run), _)) => run,
            _ => Err(Unanswered.to_string()),
        }
    }

    /// A socket to a resolver, inside a namespace that Guard listens in.
    async fn resolver(&self, netns_cookie: u64, resolver: IpAddr, stream: bool) -> io::Result<OwnedFd> {
        let ask = Ask::Resolver {
            netns_cookie,
            resolver,
            stream,
        };
        match self.ask(ask, Vec::new()).await {
            Ok((Answer::Resolver(Ok(())), mut sockets)) => sockets
                .pop()
                .ok_or_else(|| io::Error::other("no socket came along")),
            Ok((Answer::Resolver(Err(why)), _)) => Err(io::Error::other(why)),
            _ => Err(io::Error::other(Unanswered)),
        }
    }

    /// Has the configuration read again; from a thread that may block.
    pub(super) fn reload(&self) -> Result<Vec<String>, String> {
        match self.ask_blocking(Ask::Reload, Vec::new()) {
            Ok((Answer::Reload(outcome), _)) => outcome,
            _ => Err(Unanswered.to_string()),
        }
    }
}

fn listed((answer, descriptors): Answered) -> Result<Governed, Unanswered> {
    let list = match answer {
        Answer::Governed => descriptors
            .into_iter()
            .next()
            .and_then(|list| Sealed::read(list).ok()),
        _ => None,
    };
    list.ok_or(Unanswered)
}

/// Asks the keeper who is behind a record.
#[derive(Debug)]
pub(super) struct Identifies(pub(super) Arc<KeeperLink>);

impl Identify for Identifies {
    fn identify<'a>(&'a self, flow: &'a FlowInfo) -> BoxFuture<'a, Result<Identity, Unidentified>> {
        Box::pin(async move {
            let flow = flow
                .record
                .downcast_ref::<Flow>()
                .ok_or_else(|| Unidentified::unknown("no record"))?;
            let ask = Ask::Identify(Box::new(flow.clone()));
            match self.0.ask(ask, Vec::new()).await {
                Ok((Answer::Identity(identity), _)) => *identity,
                _ => Err(Unidentified::unknown(Unanswered.to_string())),
            }
        })
    }
}

/// Asks the keeper for sockets to resolvers.
#[derive(Debug)]
pub(super) struct Resolvers(pub(super) Arc<KeeperLink>);

impl Sockets for Resolvers {
    fn open(&self, netns_cookie: u64, resolver: IpAddr, stream: bool) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(self.0.resolver(netns_cookie, resolver, stream))
    }
}
