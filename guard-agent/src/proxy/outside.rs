//! Connections that are not terminated: relayed to where they were going, or denied; either way reported.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;

use crate::accept::Unidentified;
use crate::forward::dial::{DialError, Target};
use crate::identity::Identity;
use crate::passthrough::{self, Counted, Cut};
use crate::peek::{First, Rewind};
use crate::proxy::Snapshot;
use crate::refusal::{Reason, Refusal};
use crate::report::{ConnectionReport, Report, Verdict};
use crate::route::Route;

/// A connection while it is not known to be a provider's.
pub(super) struct Outside<'a> {
    pub(super) identity: Result<&'a Identity, &'a Unidentified>,
    pub(super) original_destination: SocketAddr,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) report: &'a dyn Report,
}

impl Outside<'_> {
    pub(super) fn route(&self, first: &First) -> Route {
        self.snapshot.router.route(first)
    }

    /// Whether the connection may pass, as far as its name can be believed.
    fn judge_name(&self, name: Option<&str>, ech: bool) -> Result<(), String> {
        let agent = self.identity.map_or("", |who| &who.agent);
        let router = &self.snapshot.router;
        router.judge_name(agent, self.original_destination, name, ech)
    }

    /// The same, and reported if not.
    pub(super) fn believes(&self, name: Option<&str>, ech: bool) -> bool {
        let judged = self.judge_name(name, ech);
        judged.inspect_err(|why| self.denied(name, why.clone())).is_ok()
    }

    /// Connects to where the client was going; `None` when that was not possible or not allowed, which is reported.
    pub(super) async fn dial(&self) -> Option<TcpStream> {
        if let Err(error @ Unidentified::Unknown { .. }) = self.identity {
            self.denied(None, error.to_string());
            return None;
        }
        let target = Target::Original(self.original_destination);
        match self.snapshot.upstreams.dialer().dial(target).await {
            Ok(upstream) => return Some(upstream),
            Err(error @ DialError::Forbidden(..)) => self.denied(None, error.to_string()),
            Err(error) => self.tell(None, Verdict::Unreachable(error.to_string()), &Counted::default()),
        }
        None
    }

    /// Relays to the end. A provider's name that comes after the server has spoken is cut.
    pub(super) async fn pass(
        &self,
        client: Rewind<TcpStream>,
        upstream: Option<TcpStream>,
        name: Option<&str>,
        undecided: bool,
    ) {
        let router = &self.snapshot.router;
        if let Err(why) = router.judge_passage(self.original_destination, name).await {
            return self.denied(name, why);
        }
        let upstream = match upstream {
            Some(upstream) => upstream,
            None => match self.dial().await {
                Some(upstream) => upstream,
                None => return,
            },
        };
        let metric = self.identity.ok().and_then(|who| self.report.passing(who));
        let counted = Counted {
            metric,
            ..Counted::default()
        };
        let judge = |first: &First| match self.route(first) {
            Route::Passthrough { name, ech, .. } => self.judge_name(name.as_deref(), ech),
            Route::Terminate { .. } | Route::PlainProvider { .. } => {
                Err("a provider's name, after the server was given the first word".to_owned())
            }
        };
        let verdict = match passthrough::relay(client, upstream, undecided, judge, &counted).await {
            Ok(()) => Verdict::Passed,
            Err(Cut::Io(_)) => Verdict::Broken,
            Err(Cut::Denied(why)) => Verdict::Denied(why),
        };
        self.tell(name, verdict, &counted);
    }

    pub(super) fn denied(&self, name: Option<&str>, why: String) {
        self.tell(name, Verdict::Denied(why), &Counted::default());
    }

    fn tell(&self, name: Option<&str>, verdict: Verdict, counted: &Counted) {
        self.report.connection(&ConnectionReport {
            identity: self.identity.ok(),
            stranger: self.identity.err().and_then(Unidentified::who),
            original_destination: self.original_destination,
            name,
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
