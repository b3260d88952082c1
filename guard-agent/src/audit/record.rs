//! The audit record, version 1: its fields, in their order.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::{SerializeMap, Serializer};
use serde::{Serialize, ser};
use serde_json::value::RawValue;

use crate::identity::{Container, Identity, Process, Stranger};
use crate::ledger::Cause;
use crate::llm::{DialectKind, OtherUsage, Usage};
use crate::money::Pico;
use crate::refusal::Reason;

/// One record.
#[derive(Debug, Clone)]
pub struct AuditRecord {
    /// Who and when: the same for every kind.
    pub head: Head,
    /// What.
    pub body: Body,
    /// Findings that this raised.
    pub findings: Vec<String>,
}

/// Who and when.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// When it began (for a call: when the request arrived); a record is written when it has ended.
    #[serde(skip)]
    pub time: Timestamp,
    /// Id of the call, as in refusals and in `ledger.db`.
    #[serde(skip)]
    pub id: String,
    /// Agent.
    pub agent: Option<Arc<str>>,
    /// Who pays.
    pub owner: Option<Arc<str>>,
    /// One life of the agent's cgroup.
    pub run: Option<Arc<str>>,
    /// A label that the client sent.
    pub session: Option<String>,
    /// The caller's cgroup.
    pub cgroup: Option<String>,
    /// The container.
    pub container: Option<Container>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The process that connected.
    pub process: Option<Process>,
}

impl Head {
    /// The head of a record that no agent caused.
    pub fn of_host(time: Timestamp, id: impl Into<String>) -> Self {
        Self {
            time,
            id: id.into(),
            agent: None,
            owner: None,
            run: None,
            session: None,
            cgroup: None,
            container: None,
            unit: None,
            process: None,
        }
    }

    /// The head of what a caller did that is no agent's.
    pub fn of_stranger(time: Timestamp, id: impl Into<String>, caller: Option<&Stranger>) -> Self {
        let caller = caller.cloned().unwrap_or_default();
        Self {
            cgroup: caller.cgroup,
            container: caller.container,
            process: caller.process,
            ..Self::of_host(time, id)
        }
    }

    /// The head of what an identified caller did.
    pub fn of_caller(time: Timestamp, id: impl Into<String>, caller: &Identity) -> Self {
        Self {
            agent: Some(Arc::clone(&caller.agent)),
            owner: Some(Arc::clone(&caller.owner)),
            run: Some(Arc::clone(&caller.run)),
            cgroup: Some(caller.cgroup.clone()),
            container: caller.container.clone(),
            unit: caller.unit.clone(),
            process: Some(caller.process.clone()),
            ..Self::of_host(time, id)
        }
    }
}

/// What happened, by kind.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Body {
    /// A call to a provider.
    Call(Box<Call>),
    /// A connection that was passed through or denied.
    Connection(Connection),
    /// An attempt that a kernel program refused.
    Kernel(Kernel),
    /// A person or a tool changed something.
    Admin(Admin),
    /// An alert was raised.
    Alert(Alert),
}

impl Body {
    fn kind(&self) -> &'static str {
        match self {
            Self::Call(call) if call.side => "side",
            Self::Call(_) => "call",
            Self::Connection(_) => "connection",
            Self::Kernel(_) => "kernel",
            Self::Admin(_) => "admin",
            Self::Alert(_) => "alert",
        }
    }
}

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Forwarded.
    #[default]
    Allowed,
    /// Refused by a rule.
    Refused,
    /// Admitted, but the provider could not be reached or did not answer.
    Failed,
}

/// A call to a provider. `None` where there is nothing to say.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Call {
    /// A client's request beside inference, which is no call: its record is of the kind `side`.
    #[serde(skip)]
    pub side: bool,
    /// Address that the caller connected to.
    pub original_destination: Option<SocketAddr>,
    /// Name in the TLS handshake.
    pub sni: Option<String>,
    /// Provider.
    pub provider: Option<String>,
    /// Wire format.
    pub dialect: Option<DialectKind>,
    /// Path, without the query.
    pub endpoint: Option<String>,
    /// Whether the reply was to be streamed.
    pub stream: Option<bool>,
    /// Model as the client named it.
    pub model_requested: Option<String>,
    /// Model that served, as the provider named it.
    pub model: Option<String>,
    /// Name (never the value) of the key that was used.
    pub key: Option<String>,
    /// The outcome.
    pub decision: Decision,
    /// Why it was refused.
    pub reason: Option<Reason>,
    /// What the client was told: which rule, the numbers, what to do. `guard-agent explain` shows it.
    pub why: Option<String>,
    /// What `observe` would have refused it for.
    pub would_refuse: Vec<Reason>,
    /// What was changed in the request: `key`, `include_usage`, `output_cap`, `tools`, …
    pub rewrites: Vec<String>,
    /// Tokens; none when the call was not forwarded.
    pub usage: Option<CallUsage>,
    /// What was booked.
    pub cost_pico_usd: Option<Pico>,
    /// Whether the money did something; none when nothing was booked.
    pub cause: Option<Cause>,
    /// What had been reserved.
    pub reserved_pico_usd: Option<Pico>,
    /// Why the model stopped.
    pub finish: Option<String>,
    /// Tools that the request declared.
    pub tools_declared: Vec<String>,
    /// Tools that the model called.
    pub tools_called: Vec<String>,
    /// Of these, the ones that a rule kept from the agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools_denied: Vec<String>,
    /// Tokens of other models inside the same reply, which `usage` does not contain and `cost_pico_usd` does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_usage: Vec<OtherUsage>,
    /// How many times the client says it has tried already.
    pub client_retries: u32,
    /// Status that the client got.
    pub status: Option<u16>,
    /// Size of the request's body.
    pub request_bytes: Option<u64>,
    /// Size of the reply's body.
    pub reply_bytes: Option<u64>,
    /// From the request's arrival to the first byte of the reply's body.
    pub first_token_ms: Option<Millis>,
    /// From the request's arrival to the end of the reply.
    pub duration_ms: Option<Millis>,
    /// Time spent in Guard itself, in microseconds.
    pub added_us: Option<u64>,
}

/// Tokens of a forwarded call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallUsage {
    /// As the provider reported.
    Known(Usage),
    /// Not reported: `{"known":false}` with nulls, never zeros. Tokens of a call that is billed by number alone are not
    /// reported either; what was counted stands beside the nulls.
    Unknown,
}

impl Serialize for CallUsage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = match self {
            Self::Known(usage) => Some(usage),
            Self::Unknown => None,
        };
        let usage = told.and_then(|usage| usage.tokens_told());
        // The documented keys always stand there; what a call did not use beside them is left out.
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("known", &usage.is_some())?;
        out.serialize_entry("input", &usage.map(|u| u.input))?;
        out.serialize_entry("cache_read", &usage.map(|u| u.cache_read))?;
        out.serialize_entry("cache_write_5m", &usage.map(|u| u.cache_write_5m))?;
        out.serialize_entry("cache_write_1h", &usage.map(|u| u.cache_write_1h))?;
        out.serialize_entry("output", &usage.map(|u| u.output))?;
        out.serialize_entry("reasoning", &usage.map(|u| u.reasoning))?;
        for (name, count) in usage.iter().flat_map(|usage| usage.media.named()) {
            if count > 0 {
                out.serialize_entry(name, &count)?;
            }
        }
        for (unit, count) in told.iter().flat_map(|usage| usage.units.iter()) {
            out.serialize_entry(unit.label(), &count)?;
        }
        out.end()
    }
}

/// A duration, held in microseconds and written in milliseconds with one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub u64);

impl From<std::time::Duration> for Millis {
    fn from(duration: std::time::Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As text: the number is exact without floating point.
        let text = format!("{}.{}", self.0 / 1000, self.0 % 1000 / 100);
        RawValue::from_string(text)
            .map_err(ser::Error::custom)?
            .serialize(serializer)
    }
}

/// A connection that was passed through or denied.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Connection {
    /// Address that the caller connected to.
    pub original_destination: Option<SocketAddr>,
    /// Name in the TLS handshake, or the Host header.
    pub sni: Option<String>,
    /// The outcome.
    pub decision: Decision,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Bytes from the caller.
    pub sent_bytes: u64,
    /// Bytes to the caller.
    pub received_bytes: u64,
    /// How long it lasted.
    pub duration_ms: Option<Millis>,
}

/// An attempt that a kernel program refused.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Kernel {
    /// Address that the caller tried.
    pub original_destination: Option<SocketAddr>,
    /// Which way around the proxy was tried.
    pub vector: String,
    /// How many attempts this record stands for.
    pub count: u64,
}

/// A person or a tool changed something.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Admin {
    /// `freeze`, `grant`, `reload`, …
    pub action: String,
    /// What it was done to.
    pub subject: Option<String>,
    /// User id of the peer on the admin socket.
    pub by_uid: Option<u32>,
    /// Process id of the peer.
    pub by_pid: Option<u32>,
    /// The reason that was given.
    pub why: Option<String>,
    /// What exactly changed.
    pub detail: Option<String>,
}

/// An alert was raised.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Alert {
    /// Which one: `budget.soft`, `loop`, `audit.torn`, …
    pub alert: String,
    /// In words.
    pub message: String,
    /// A hash of what it is about, where that is kept elsewhere.
    pub evidence: Option<String>,
}

/// A record as it is written, but for its hash.
#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    time: String,
    id: &'a str,
    kind: &'static str,
    #[serde(flatten)]
    head: &'a Head,
    #[serde(flatten)]
    body: &'a Body,
    findings: &'a [String],
    prev: &'a str,
}

impl AuditRecord {
    /// The record's JSON text, without its hash.
    pub(super) fn line(&self, prev: &str) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Line {
            v: 1,
            time: format!("{:.6}", self.head.time),
            id: &self.head.id,
            kind: self.body.kind(),
            head: &self.head,
            body: &self.body,
            findings: &self.findings,
            prev,
        })
    }

    /// What stands in for the record of a slot that was dropped.
    pub(super) fn lost(
        now: Timestamp,
        since: Timestamp,
        id: Option<String>,
        agent: Option<Arc<str>>,
    ) -> Self {
        let message = format!("a call that was admitted at {since:.6} ended without a record");
        let mut head = Head::of_host(now, id.unwrap_or_else(|| ulid::Ulid::new().to_string()));
        head.agent = agent;
        Self::alert(head, "audit.lost", message, None)
    }

    /// An alert.
    pub fn alert(head: Head, alert: &str, message: String, evidence: Option<String>) -> Self {
        let body = Body::Alert(Alert {
            alert: alert.into(),
            message,
            evidence,
        });
        Self {
            head,
            body,
            findings: Vec::new(),
        }
    }
}
