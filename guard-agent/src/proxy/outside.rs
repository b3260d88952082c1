//! Connections that are not terminated: relayed to where they were going, or denied; either way reported.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::accept::Unidentified;
use crate::forward::dial::{DialError, Target};
use crate::identity::Identity;
use crate::passthrough::refuse::{Speaks, refuse};
use crate::passthrough::{self, Counted, Cut};
use crate::peek::{First, Patience, PeekError, Rewind, peek};
use crate::proxy::Snapshot;
use crate::refusal::{Reason, Refusal};
use crate::report::{ConnectionReport, Report, Verdict};
use crate::route::Route;
use crate::route::egress::{Passage, Refused};

/// Addresses of a name that are tried, each for as long as a connection attempt may take.
const TRIED: usize = 3;

/// What a client said first, the bytes, and the connection that was made for it meanwhile.
type FirstWords = (Result<First, PeekError>, Bytes, Option<Dialled>);

/// A connection that was made for a client that had said nothing, and what let it be made.
pub(super) type Dialled = (Passage, TcpStream);

/// A connection while it is not known to be a provider's.
pub(super) struct Outside<'a> {
    pub(super) identity: Result<&'a Identity, &'a Unidentified>,
    pub(super) original_destination: SocketAddr,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) report: &'a dyn Report,
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    /// The name in them.
    pub(super) name: Option<&'a str>,
    /// What the client speaks, so that it can read a refusal.
    pub(super) speaks: Speaks,
    /// It has said nothing, so it is inspected when it does.
    pub(super) undecided: bool,
    /// It sent encrypted_client_hello, real or GREASE.
    pub(super) ech: bool,
}

impl Opening<'_> {
    /// Nothing, and nobody listens.
    pub(super) const NOTHING: Self = Self {
        name: None,
        speaks: Speaks::Other,
        undecided: false,
        ech: false,
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
        let unnamed = match self.judge(None) {
            Ok((passage, _)) => passage,
            Err(_) => {
                // The name that a slow client has yet to say may be a reason to pass.
                let silence = patience.verdict;
                let (first, bytes) = peek(stream, Patience { silence, ..patience }).await;
                return Some((first, bytes, None));
            }
        };
        let dialled = match self.dial(&unnamed).await {
            Ok(dialled) => dialled,
            Err(verdict) => {
                self.tell(Opening::NOTHING, verdict, None, &Counted::default());
                return None;
            }
        };
        let (first, bytes) = match passthrough::client_speaks_first(stream, &dialled).await {
            true => peek(stream, patience).await,
            false => (first, bytes),
        };
        Some((first, bytes, Some((unnamed, dialled))))
    }

    /// Relays to the end. A provider's name that comes after the server has spoken is cut.
    pub(super) async fn pass(&self, client: Rewind<TcpStream>, dialled: Option<Dialled>, said: Opening<'_>) {
        let router = &self.snapshot.router;
        // Who is no agent's may go to providers, too.
        let is_bystander = matches!(self.identity, Err(Unidentified::Bystander));
        if !is_bystander && let Err(why) = router.judge_passage(self.original_destination, said.name).await {
            return self.refuse(client, said, Verdict::Denied(why)).await;
        }
        let (passage, would) = match self.judge_said(said.name, said.ech) {
            Ok(passage) => passage,
            Err(verdict) => return self.refuse(client, said, verdict).await,
        };
        let dialled = match dialled {
            Some((unnamed, upstream)) if unnamed == passage => Ok(upstream),
            _ => self.dial(&passage).await,
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
        let cut = OnceLock::new();
        let judge = |first: &First| {
            self.judge_late(first).map_err(|verdict| {
                let why = why(&verdict).unwrap_or_default();
                // Words are judged once.
                let _first = cut.set(verdict);
                why
            })
        };
        let relayed = passthrough::relay(client, upstream, said.undecided, judge, &counted).await;
        let verdict = match relayed {
            Ok(()) => Verdict::Passed,
            Err(Cut::Io(_)) => Verdict::Broken,
            Err(Cut::Denied(why)) => cut.into_inner().unwrap_or(Verdict::Denied(why)),
        };
        self.tell(said, verdict, would.as_ref(), &counted);
    }

    /// What a client said after it had been connected for its address alone.
    fn judge_late(&self, first: &First) -> Result<(), Verdict> {
        match self.route(first) {
            Route::Passthrough { name, ech, .. } => self.judge_said(name.as_deref(), ech).map(drop),
            Route::Terminate { .. } | Route::PlainProvider { .. } => Err(Verdict::Denied(
                "a provider's name, after the server was given the first word".to_owned(),
            )),
        }
    }

    /// What the agent's rules say of a connection with these first words, and whether its name can be believed.
    fn judge_said(&self, name: Option<&str>, ech: bool) -> Result<(Passage, Option<Refused>), Verdict> {
        let judged = self.judge(name).map_err(Verdict::Egress)?;
        if ech {
            let agent = self.identity.map_or("", |who| &who.agent);
            let router = &self.snapshot.router;
            router
                .judge_ech(agent, self.original_destination, name)
                .map_err(Verdict::Denied)?;
        }
        Ok(judged)
    }

    /// What the agent's rules say, and what they would say if the host did not only observe. Who is no agent's has none.
    fn judge(&self, name: Option<&str>) -> Result<(Passage, Option<Refused>), Refused> {
        let Ok(who) = self.identity else {
            return Ok((Passage::Original, None));
        };
        let router = &self.snapshot.router;
        match router.judge_egress(&who.agent, self.original_destination, name) {
            // Where a name leads is part of the rule: who only observes lets the client go where it was going.
            Ok(_) if router.observes() => Ok((Passage::Original, None)),
            Ok(passage) => Ok((passage, None)),
            Err(refused) if router.observes() => Ok((Passage::Original, Some(refused))),
            Err(refused) => Err(refused),
        }
    }

    async fn dial(&self, passage: &Passage) -> Result<TcpStream, Verdict> {
        match (passage, self.identity) {
            (_, Err(error @ Unidentified::Unknown { .. })) => Err(Verdict::Denied(error.to_string())),
            (Passage::Named(name), Ok(who)) => self.dial_named(&who.agent, name).await,
            (Passage::Original | Passage::Named(_), _) => self.dial_to(self.original_destination).await,
        }
    }

    /// Connects to where a name leads that is the reason to pass.
    async fn dial_named(&self, agent: &str, name: &str) -> Result<TcpStream, Verdict> {
        let router = &self.snapshot.router;
        let found = router.resolve(agent, self.original_destination, name).await;
        let found = found.map_err(Verdict::Egress)?;
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

    async fn refuse(&self, client: Rewind<TcpStream>, said: Opening<'_>, verdict: Verdict) {
        let why = why(&verdict);
        self.tell(said, verdict, None, &Counted::default());
        if let Some(why) = why {
            refuse(client, said.speaks, &why).await;
        }
    }

    pub(super) fn denied(&self, name: Option<&str>, why: String) {
        let said = Opening {
            name,
            ..Opening::NOTHING
        };
        self.tell(said, Verdict::Denied(why), None, &Counted::default());
    }

    fn tell(&self, said: Opening<'_>, verdict: Verdict, would_refuse: Option<&Refused>, counted: &Counted) {
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

/// What a caller is told that could not be identified.
pub(super) fn unidentified(error: &Unidentified) -> Refusal {
    Refusal::new(
        Reason::Unidentified,
        format!(
            "The host's firewall could not tell which agent this process belongs to ({error}). Ask the host's owner."
        ),
    )
}

/// What a client is told that may not pass; nothing when it is not Guard that stops it.
fn why(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Denied(why) => Some(why.clone()),
        Verdict::Egress(refused) => Some(refused.to_string()),
        Verdict::Passed | Verdict::Broken | Verdict::Unreachable(_) => None,
    }
}
