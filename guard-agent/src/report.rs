//! What the path tells of itself beside calls: connections that never become one, refusals before a decision.
//! Implementations count and record; they must not block.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use prometheus::IntCounter;
use ulid::Ulid;

use crate::dns;
use crate::identity::{Identity, Stranger};
use crate::llm::DialectKind;
use crate::llm::provider::Provider;
use crate::refusal::Refusal;
use crate::route::egress::Refused;
use crate::telemetry::metrics::{ClientError, Connection, Stage};
use crate::tls::Distrust;

/// Takes what the path has to tell.
pub trait Report: Send + Sync {
    /// A call that was refused before `decide` saw it.
    fn refused(&self, call: &EarlyRefusal<'_>, refusal: &Refusal);

    /// The counter that grows while an agent's connection is passed through.
    fn passing(&self, _identity: &Identity) -> Option<IntCounter> {
        None
    }

    /// A connection that ended (or was cut) without being terminated.
    fn connection(&self, connection: &ConnectionReport<'_>);

    /// A client that may not trust Guard's root.
    fn untrusted(&self, identity: &Identity, sni: &str, how: Distrust);

    /// An agent's connection is open for as long as the value lives.
    fn opened(&self, _identity: &Identity) -> Option<Connection> {
        None
    }

    /// A connection was ended on account of the client.
    fn client_error(&self, _kind: ClientError) {}

    /// Time of Guard's own.
    fn added(&self, _stage: Stage, _took: Duration) {}

    /// A DNS query ended.
    fn dns(&self, _identity: Option<&Identity>, _outcome: dns::Outcome) {}

    /// An agent's look-ups carry data; told once a minute.
    fn dns_tunnel(&self, _identity: &Identity, _name: &str) {}

    /// A connection without a kernel record, or beyond the limit of connections.
    fn unaccepted(&self, why: Unaccepted);
}

/// What is known of a call that was refused before it could be read.
pub struct EarlyRefusal<'a> {
    /// Names it in the message that the client got.
    pub id: Ulid,
    /// Who called; `None` when that is why it was refused.
    pub identity: Option<&'a Identity>,
    /// What is known of the caller when it is no agent's.
    pub stranger: Option<&'a Stranger>,
    /// Whom it called.
    pub provider: &'a Provider,
    /// Where the client meant to connect.
    pub original_destination: SocketAddr,
    /// Method.
    pub method: &'a Method,
    /// Path, without the query.
    pub path: &'a str,
    /// The wire format that is spoken there.
    pub dialect: DialectKind,
}

/// A connection that was passed through or denied.
pub struct ConnectionReport<'a> {
    /// Who opened it, if known.
    pub identity: Option<&'a Identity>,
    /// What is known of who opened it when that is no agent.
    pub stranger: Option<&'a Stranger>,
    /// Where to.
    pub original_destination: SocketAddr,
    /// The name in its first bytes.
    pub name: Option<&'a str>,
    /// The rule that would have refused it, had it been in force.
    pub would_refuse: Option<&'a Refused>,
    /// What happened.
    pub verdict: Verdict,
    /// Bytes from the client.
    pub sent: u64,
    /// Bytes to the client.
    pub received: u64,
}

/// What happened to a connection that was not terminated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Relayed to its end.
    Passed,
    /// Relayed, then broken by one side.
    Broken,
    /// Refused or cut by Guard; the text says why.
    Denied(String),
    /// Refused by the agent's `egress` rules.
    Egress(Refused),
    /// The destination could not be reached.
    Unreachable(String),
}

/// Why a connection was closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unaccepted {
    /// The kernel has no record of it: whoever opened it is not governed, or meddles.
    NoFlow,
    /// Too many connections are open.
    Full,
}
