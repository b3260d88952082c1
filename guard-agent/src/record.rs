//! The last two stages: settle and record.
//!
//! In: a decided call with what it holds (money, an audit slot, a place in flight), and later its outcome. Out: a
//! settled reservation, one audit record, metrics. On failure: nothing here can fail the call any more; a reservation
//! without known usage is charged in full.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::IntCounter;
use ulid::Ulid;

use crate::alert::Alerts;
use crate::audit::record::{Body, Call as CallBody, Connection, Decision, Head, Kernel};
use crate::audit::{Audit, AuditRecord, AuditSlot};
use crate::call::Call;
use crate::clock::SharedClock;
use crate::dns;
use crate::identity::Identity;
use crate::llm::prices::PriceTable;
use crate::llm::provider::Provider;
use crate::llm::{BodyEdits, EndpointKind, Gate};
use crate::policy::{Hold, Places};
use crate::refusal::{Reason, Refusal};
use crate::report::{ConnectionReport, EarlyRefusal, Report, Unaccepted, Verdict};
use crate::telemetry::metrics::{self, Metrics};
use crate::tls::Distrust;

pub mod tally;
mod telling;
#[cfg(test)]
mod tests;
mod ticket;

use tally::Tally;
use ticket::Ticket;

/// Where outcomes go.
pub struct Recorder {
    audit: Audit,
    metrics: Arc<Metrics>,
    prices: ArcSwap<PriceTable>,
    clock: SharedClock,
    tally: Tally,
    alerts: OnceLock<Alerts>,
}

/// A call's audit record while it is being made.
pub(crate) struct Draft {
    agent: Arc<str>,
    provider: String,
    model: String,
    /// The region that the request chose.
    region: Option<String>,
    head: Head,
    body: CallBody,
    findings: Vec<String>,
    /// Judges the tools that the model calls, for the record alone.
    tool_watch: Option<Arc<dyn Gate>>,
}

impl Recorder {
    /// A recorder that writes to these.
    pub fn new(audit: Audit, metrics: Arc<Metrics>, prices: Arc<PriceTable>, clock: SharedClock) -> Self {
        Self {
            audit,
            metrics,
            prices: ArcSwap::new(prices),
            clock,
            tally: Tally::default(),
            alerts: OnceLock::new(),
        }
    }

    /// Settles by these prices from now on.
    pub fn price_by(&self, prices: Arc<PriceTable>) {
        self.prices.store(prices);
    }

    /// Counts by agent, for `status`.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The clock itself.
    pub(crate) fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    /// What the clock says.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// The place of a call's record, taken before the call may happen.
    pub(crate) fn slot(&self) -> Result<AuditSlot, Refusal> {
        self.audit.slot().map_err(|full| {
            self.metrics.audit_dropped();
            tracing::warn!(%full, "a call was refused because it could not be recorded");
            Refusal::new(
                Reason::NotRecordable,
                "Guard cannot record calls at the moment, so it lets none happen. The operator finds the cause with \
                 `guard-agent status`.",
            )
        })
    }

    pub(crate) fn draft(&self, who: &Identity, provider: &Provider, call: &Call) -> Draft {
        let mut head = Head::of_caller(self.clock.now(), call.id.to_string(), who);
        head.session.clone_from(&call.said.session);
        let facts = call.facts.as_ref();
        let body = CallBody {
            original_destination: Some(call.origin.destination),
            sni: Some(call.origin.sni.clone()),
            provider: Some(provider.name.clone()),
            dialect: Some(call.dialect.kind()),
            side: matches!(
                call.endpoint,
                EndpointKind::Side | EndpointKind::Telemetry | EndpointKind::Socket
            ),
            endpoint: Some(call.path().to_owned()),
            stream: facts.map(|facts| facts.stream),
            model_requested: facts.map(|facts| facts.model.clone()),
            tools_declared: facts
                .map(|facts| facts.tools.iter().map(|tool| tool.name.clone()).collect())
                .unwrap_or_default(),
            client_retries: call.said.retry_count,
            request_bytes: Some(call.request_bytes()),
            ..CallBody::default()
        };
        Draft {
            agent: who.agent.clone(),
            provider: provider.name.clone(),
            model: facts.map(|facts| facts.model.clone()).unwrap_or_default(),
            region: facts.and_then(|facts| facts.region.clone()),
            head,
            body,
            findings: Vec::new(),
            tool_watch: None,
        }
    }

    /// A call that was refused.
    pub(crate) fn refused_call(&self, slot: Option<AuditSlot>, mut draft: Draft, refusal: &Refusal) {
        let Draft {
            agent,
            provider,
            model,
            ..
        } = &draft;
        if draft.body.side {
            self.metrics.side(agent, provider, metrics::SideVerdict::Refused);
        } else {
            self.metrics.refusal(agent, refusal.reason);
            self.metrics.call(
                agent,
                provider,
                &self.label(provider, model),
                metrics::Outcome::Refused,
            );
            self.tally.refused(agent, self.clock.now(), refusal);
        }
        if refusal.reason == Reason::ToolDenied {
            for tool in &draft.body.tools_declared {
                self.metrics.tool(agent, tool, metrics::ToolVerdict::Refused);
            }
        }
        draft.body.decision = Decision::Refused;
        draft.body.reason = Some(refusal.reason);
        draft.body.why = Some(refusal.message.clone());
        draft.body.reserved_pico_usd = None;
        self.raise_findings(&draft);
        if let Some(slot) = slot {
            slot.record(draft.into_record());
        }
    }

    pub(crate) fn ticket(
        self: &Arc<Self>,
        mut slot: AuditSlot,
        draft: Draft,
        hold: Option<Hold>,
        places: Places,
    ) -> Ticket {
        slot.expect(&draft.head.id, &draft.agent);
        if !draft.body.side {
            self.tally.admitted(&draft.agent);
        }
        Ticket::new(Arc::clone(self), slot, draft, hold, places)
    }

    /// The model's metric label: its canonical name if it has a price, else nothing that a client chose.
    fn label(&self, provider: &str, model: &str) -> String {
        let prices = self.prices.load();
        let price = prices.find(provider, model);
        price.map_or_else(|| "other".to_owned(), |price| price.label.clone())
    }

    /// Records something that is no call, if there is room; a full log loses it and counts.
    fn note(&self, record: AuditRecord) {
        match self.audit.slot() {
            Ok(slot) => slot.record(record),
            Err(_full) => self.metrics.audit_dropped(),
        }
    }

    /// A way around Guard that a kernel program refused. `count` is how many attempts it stands for.
    pub fn bypass_attempt(&self, agent: Option<&Arc<str>>, attempt: Kernel) {
        let mut head = Head::of_host(self.clock.now(), Ulid::new().to_string());
        head.agent = agent.cloned();
        self.note(AuditRecord {
            head,
            body: Body::Kernel(attempt),
            findings: Vec::new(),
        });
    }

    /// A person or a tool changed something.
    pub fn admin(&self, action: crate::audit::record::Admin) {
        let head = Head::of_host(self.clock.now(), Ulid::new().to_string());
        self.note(AuditRecord {
            head,
            body: Body::Admin(action),
            findings: Vec::new(),
        });
    }
}

impl Draft {
    /// Raises a finding.
    pub(crate) fn finding(&mut self, kind: &str) {
        self.findings.push(kind.to_owned());
    }

    /// A rule that observe mode did not enforce.
    pub(crate) fn would_refuse(&mut self, reason: Reason) {
        self.body.would_refuse.push(reason);
    }

    /// Judge the tools that the model calls, for the record alone.
    pub(crate) fn watch_tools(&mut self, gate: Arc<dyn Gate>) {
        self.tool_watch = Some(gate);
    }

    /// The call goes to this model, whatever was asked for.
    pub(crate) fn goes_to(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    /// Name of the key that goes to the provider.
    pub(crate) fn key(&mut self, name: &str) {
        self.body.key = Some(name.to_owned());
    }

    /// Name of the key that goes to the provider; none when the caller's own login goes.
    pub(crate) fn key_name(&self) -> Option<&str> {
        self.body.key.as_deref()
    }

    /// What is changed in the request.
    pub(crate) fn rewrites(&mut self, edits: &BodyEdits, key: bool) {
        let done = [
            (key, "key"),
            (edits.output_cap.is_some(), "output_cap"),
            (edits.include_usage, "include_usage"),
            (!edits.strip_tools.is_empty(), "tools"),
            (edits.model.is_some(), "model"),
            (edits.note.is_some(), "steer"),
        ];
        self.body.rewrites = done
            .iter()
            .filter(|(did, _)| *did)
            .map(|(_, name)| (*name).to_owned())
            .collect();
    }

    fn into_record(self) -> AuditRecord {
        AuditRecord {
            head: self.head,
            body: Body::Call(Box::new(self.body)),
            findings: self.findings,
        }
    }
}

impl Report for Recorder {
    fn refused(&self, early: &EarlyRefusal<'_>, refusal: &Refusal) {
        let id = early.id.to_string();
        let head = match early.identity {
            Some(who) => Head::of_caller(self.clock.now(), id, who),
            None => Head::of_stranger(self.clock.now(), id, early.stranger),
        };
        let body = CallBody {
            original_destination: Some(early.original_destination),
            provider: Some(early.provider.name.clone()),
            dialect: Some(early.dialect),
            endpoint: Some(early.path.to_owned()),
            ..CallBody::default()
        };
        let draft = Draft {
            agent: early
                .identity
                .map_or_else(|| "other".into(), |who| who.agent.clone()),
            provider: early.provider.name.clone(),
            model: String::new(),
            region: None,
            head,
            body,
            findings: Vec::new(),
            tool_watch: None,
        };
        let slot = self
            .audit
            .slot()
            .map_err(|_full| self.metrics.audit_dropped())
            .ok();
        self.refused_call(slot, draft, refusal);
    }

    fn passing(&self, identity: &Identity) -> Option<IntCounter> {
        Some(self.metrics.passthrough(&identity.agent))
    }

    fn connection(&self, connection: &ConnectionReport<'_>) {
        let id = Ulid::new().to_string();
        let head = match connection.identity {
            Some(who) => Head::of_caller(self.clock.now(), id, who),
            None => Head::of_stranger(self.clock.now(), id, connection.stranger),
        };
        let (decision, rule) = match &connection.verdict {
            Verdict::Passed | Verdict::Broken => {
                let would = connection.would_refuse;
                (
                    Decision::Allowed,
                    would.map(|rule| format!("would be refused: {rule}")),
                )
            }
            Verdict::Egress(refused) => {
                if let Some(who) = connection.identity {
                    self.metrics.egress_refused(&who.agent, refused.cause.label());
                }
                (Decision::Refused, Some(refused.to_string()))
            }
            Verdict::Denied(why) => (Decision::Refused, Some(why.clone())),
            Verdict::Unreachable(why) => (Decision::Failed, Some(why.clone())),
        };
        let body = Body::Connection(Connection {
            original_destination: Some(connection.original_destination),
            sni: connection.name.map(str::to_owned),
            decision,
            rule,
            sent_bytes: connection.sent,
            received_bytes: connection.received,
            duration_ms: None,
        });
        self.note(AuditRecord {
            head,
            body,
            findings: Vec::new(),
        });
    }

    fn untrusted(&self, identity: &Identity, sni: &str, how: Distrust) {
        self.metrics.tls_untrusted(&identity.agent);
        tracing::warn!(
            agent = %identity.agent, pid = identity.process.pid, comm = %identity.process.comm, sni, ?how,
            "a client does not seem to trust Guard's CA; `guard-agent ca env` prints what it needs"
        );
    }

    fn opened(&self, identity: &Identity) -> Option<metrics::Connection> {
        Some(self.metrics.connection(&identity.agent))
    }

    fn client_error(&self, kind: metrics::ClientError) {
        self.metrics.client_error(kind);
    }

    fn added(&self, stage: metrics::Stage, took: Duration) {
        self.metrics.added(stage, took);
    }

    fn dns(&self, identity: Option<&Identity>, outcome: dns::Outcome) {
        let agent = identity.map_or("other", |who| &who.agent);
        self.metrics.dns(agent, outcome);
    }

    fn dns_tunnel(&self, identity: &Identity, name: &str) {
        self.metrics.finding(&identity.agent, "dns_tunnel");
        let head = Head::of_caller(self.clock.now(), Ulid::new().to_string(), identity);
        let message = format!(
            "look-ups carry more bytes of names than look-ups need and are refused until the minute is over; one of them: {name}"
        );
        self.note(AuditRecord::alert(head, "dns.tunnel", message, None));
    }

    fn unaccepted(&self, why: Unaccepted) {
        if why == Unaccepted::NoFlow {
            self.metrics.client_error(metrics::ClientError::NoRecord);
        }
        tracing::debug!(?why, "a connection was reset");
    }
}

/// Micro-seconds, for the record.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
