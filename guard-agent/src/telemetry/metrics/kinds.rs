//! The words that become labels, and a gauge that goes down by itself.

use prometheus::IntGauge;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider answered, and the reply reached its end.
    Ok,
    /// The provider answered with an error of its own.
    ProviderError,
    /// The client went away before the reply's end.
    ClientGone,
    /// The provider could not be reached, or broke off.
    UpstreamFailed,
    /// Guard cut the reply: its run's time was over.
    Cut,
    /// Guard refused the call.
    Refused,
}

impl Outcome {
    /// Metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ProviderError => "provider_error",
            Self::ClientGone => "client_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::Cut => "cut",
            Self::Refused => "refused",
        }
    }
}

/// What happened to a client's request beside inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideVerdict {
    /// Forwarded.
    Passed,
    /// Refused.
    Refused,
}

/// What happened to a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolVerdict {
    /// The model called it.
    Called,
    /// Its declaration was removed from the request.
    Stripped,
    /// The model called it, and a rule kept the call from the agent.
    Denied,
    /// The call was refused because of it.
    Refused,
}

impl ToolVerdict {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Called => "called",
            Self::Stripped => "stripped",
            Self::Denied => "denied",
            Self::Refused => "refused",
        }
    }
}

/// A part of the path whose own time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Accept to identity.
    Identify,
    /// Body to facts.
    Parse,
    /// Facts to verdict.
    Decide,
}

impl Stage {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Parse => "parse",
            Self::Decide => "decide",
        }
    }
}

/// Why a connection was ended on account of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientError {
    /// Not TLS as TLS is written down, or too large.
    MalformedTls,
    /// Not HTTP as HTTP is written down, or too large.
    MalformedHttp,
    /// Handshake, header or body came too slowly.
    Slow,
    /// The client closed or reset before it had said anything.
    Gone,
    /// Nothing redirected it here: the kernel has no record of it.
    NoRecord,
}

impl ClientError {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::MalformedTls => "malformed_tls",
            Self::MalformedHttp => "malformed_http",
            Self::Slow => "slow",
            Self::Gone => "gone",
            Self::NoRecord => "no_record",
        }
    }
}

/// What became of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertEnd {
    /// Somebody was told.
    Sent,
    /// Nobody could be told.
    Failed,
    /// The same was told a short while ago.
    Repeated,
    /// Too many waited.
    Lost,
}

impl AlertEnd {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Repeated => "repeated",
            Self::Lost => "lost",
        }
    }
}

/// Counts as an open connection for as long as it lives.
#[derive(Debug)]
pub struct Connection(pub(super) IntGauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
