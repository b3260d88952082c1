//! Connections that are not terminated: relayed to where they were going, or denied; either way reported.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::accept::Unidentified;
use crate::forward::dial::{DialError, Target};
use crate::identity::Identity;
use crate::passthrough::refuse::{Speaks, refuse};
use crate::passthrough::{self, Counted, Cut};
use crate::peek::{First, Patience, PeekError, Rewind, peek};
use crate::proxy::Snapshot;
use crate::report::{ConnectionReport, Report, Verdict};
use crate::route::Route;
use crate::route::egress::{Egress, Passage, Refused};

/// Addresses of a name that are tried, each for as long as a connection attempt may take.
const TRIED: usize = 3;

/// What a client said first, the bytes, and the connection that was made for it meanwhile.
type FirstWords = (Result<First, PeekError>, Bytes, Option<TcpStream>);

/// A connection while it is not known to be a provider's.
pub(super) struct Outside<'a> {
    pub(super) identity: Result<&'a Identity, &'a Unidentified>,
    pub(super) original_destination: SocketAddr,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) report: &'a dyn Report,
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    /// The name in them.
    pub(super) name: Option<&'a str>,
    /// What the client speaks, so that it can read a refusal.
    pub(super) speaks: Speaks,
    /// It has said nothing, so it is inspected when it does.
    pub(super) undecided: bool,
}

impl Said<'_> {
    /// Nothing, and nobody listens.
    pub(super) const NOTHING: Self = Self {
        name: None,
        speaks: Speaks::Other,
        undecided: false,
    };
}

impl Outside<'_> {
    pub(super) fn route(&self, first: &First) -> Route {
        self.snapshot.router.route(first)
    }

    /// The client's first bytes and what they are. A client that is silent is connected, if its address alone lets it
    /// pass: either the server speaks first, or the client is only slow, and whoever speaks now shows which. `None` when
    /// it cannot be connected, which is reported.
    pub(super) async fn first_words(&self, stream: &mut TcpStream, patience: Patience) -> Option<FirstWords> {
        let (first, bytes) = peek(stream, patience).await;
        if !matches!(first, Ok(First::Silent)) {
            return Some((first, bytes, None));
        }
        if !self.passes_unnamed() {
            // The name that a slow client has yet to say may be a reason to pass.
            let silence = patience.verdict;
            let (first, bytes) = peek(stream, Patience { silence, ..patience }).await;
            return Some((first, bytes, None));
        }
        let dialled = self.dial().await?;
        let (first, bytes) = match passthrough::client_speaks_first(stream, &dialled).await {
            true => peek(stream, patience).await,
            false => (first, bytes),
        };
        Some((first, bytes, Some(dialled)))
    }

    /// Whether a client that has said nothing may be connected.
    fn passes_unnamed(&self) -> bool {
        self.identity.is_err() || matches!(self.judge(None), Ok((Passage::Original, _)))
    }

    /// Connects to where the client was going; `None` when that was not possible or not allowed, which is reported.
    async fn dial(&self) -> Option<TcpStream> {
        let dialled = self.dial_original().await;
        dialled
            .inspect_err(|verdict| self.tell(Said::NOTHING, verdict.clone(), None, &Counted::default()))
            .ok()
    }

    /// Relays to the end. A provider's name that comes after the server has spoken is cut.
    pub(super) async fn pass(&self, client: Rewind<TcpStream>, upstream: Option<TcpStream>, said: Said<'_>) {
        let router = &self.snapshot.router;
        if let Err(why) = router.judge_passage(self.original_destination, said.name).await {
            return self.refuse(client, said, Verdict::Denied(why)).await;
        }
        let (passage, would) = match self.judge(said.name) {
            Ok(passage) => passage,
            Err(refused) => return self.refuse(client, said, Verdict::Egress(refused)).await,
        };
        let dialled = match (passage, upstream, said.name) {
            (Passage::Original, Some(upstream), _) => Ok(upstream),
            (Passage::Named, _, Some(name)) => self.dial_named(name).await,
            (Passage::Original | Passage::Named, ..) => self.dial_original().await,
        };
        let upstream = match dialled {
            Ok(upstream) => upstream,
            Err(verdict) => return self.refuse(client, said, verdict).await,
        };
        let metric = self.identity.ok().and_then(|who| self.report.passing(who));
        let counted = Counted {
            metric,
            ..Counted::default()
        };
        let judge = |first: &First| match self.route(first) {
            Route::Passthrough { name, .. } => self
                .judge(name.as_deref())
                .map(drop)
                .map_err(|refused| refused.to_string()),
            Route::Terminate { .. } | Route::PlainProvider { .. } => {
                Err("a provider's name, after the server was given the first word".to_owned())
            }
        };
        let verdict = match passthrough::relay(client, upstream, said.undecided, judge, &counted).await {
            Ok(()) => Verdict::Passed,
            Err(Cut::Io(_)) => Verdict::Broken,
            Err(Cut::Denied(why)) => Verdict::Denied(why),
        };
        self.tell(said, verdict, would.as_ref(), &counted);
    }

    /// What the agent's rules say, and what they would say if the host did not only observe. Who is no agent's has none.
    fn judge(&self, name: Option<&str>) -> Result<(Passage, Option<Refused>), Refused> {
        let Some(egress) = self.egress() else {
            return Ok((Passage::Original, None));
        };
        match egress.judge(self.original_destination, name) {
            // Where a name leads is part of the rule: who only observes lets the client go where it was going.
            Ok(_) if self.snapshot.router.observes() => Ok((Passage::Original, None)),
            Ok(passage) => Ok((passage, None)),
            Err(refused) if self.snapshot.router.observes() => Ok((Passage::Original, Some(refused))),
            Err(refused) => Err(refused),
        }
    }

    fn egress(&self) -> Option<&Egress> {
        let who = self.identity.ok()?;
        Some(self.snapshot.router.egress(&who.agent))
    }

    async fn dial_original(&self) -> Result<TcpStream, Verdict> {
        if let Err(error @ Unidentified::Unknown { .. }) = self.identity {
            return Err(Verdict::Denied(error.to_string()));
        }
        self.dial_to(self.original_destination).await
    }

    /// Connects to where an allowed name leads.
    async fn dial_named(&self, name: &str) -> Result<TcpStream, Verdict> {
        let Some(egress) = self.egress() else {
            return self.dial_original().await;
        };
        let found = self
            .snapshot
            .router
            .resolve(egress, self.original_destination, name)
            .await
            .map_err(Verdict::Egress)?;
        let mut last = Verdict::Unreachable(format!("{name:?} has no address"));
        for address in found.into_iter().take(TRIED) {
            match self.dial_to(address).await {
                Ok(upstream) => return Ok(upstream),
                Err(verdict) => last = verdict,
            }
        }
        Err(last)
    }

    async fn dial_to(&self, address: SocketAddr) -> Result<TcpStream, Verdict> {
        let target = Target::Original(address);
        self.snapshot
            .upstreams
            .dialer()
            .dial(target)
            .await
            .map_err(|error| match error {
                DialError::Forbidden(..) => Verdict::Denied(error.to_string()),
                error => Verdict::Unreachable(error.to_string()),
            })
    }

    async fn refuse(&self, client: Rewind<TcpStream>, said: Said<'_>, verdict: Verdict) {
        let why = match &verdict {
            Verdict::Denied(why) => Some(why.clone()),
            Verdict::Egress(refused) => Some(refused.to_string()),
            Verdict::Passed | Verdict::Broken | Verdict::Unreachable(_) => None,
        };
        self.tell(said, verdict, None, &Counted::default());
        if let Some(why) = why {
            refuse(client, said.speaks, &why).await;
        }
    }

    pub(super) fn denied(&self, name: Option<&str>, why: String) {
        let said = Said {
            name,
            ..Said::NOTHING
        };
        self.tell(said, Verdict::Denied(why), None, &Counted::default());
    }

    fn tell(&self, said: Said<'_>, verdict: Verdict, would_refuse: Option<&Refused>, counted: &Counted) {
        self.report.connection(&ConnectionReport {
            identity: self.identity.ok(),
            stranger: self.identity.err().and_then(Unidentified::who),
            original_destination: self.original_destination,
            name: said.name,
            would_refuse,
            verdict,
            sent: counted.sent.load(Ordering::Relaxed),
            received: counted.received.load(Ordering::Relaxed),
        });
    }
}
