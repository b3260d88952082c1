//! Metrics: one registry, one method per event, every label bounded by construction.
//!
//! Agents, owners and providers come from the configuration, models from the price table, tools from the allow lists;
//! whatever else a caller sends is `other`. So the number of series does not depend on traffic.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{
    Encoder as _, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::ledger::{ScopeKind, Window};
use crate::llm::Usage;
use crate::money::Pico;
use crate::refusal::Reason;

mod events;
mod kinds;
mod labels;
mod maker;
#[cfg(test)]
mod tests;
mod usd;

pub use events::BudgetState;
pub use kinds::{AlertEnd, ClientError, Connection, Outcome, SideVerdict, Stage, ToolVerdict};
pub use labels::Labels;
use maker::{Made, Maker};

/// Calls take from a quarter of a second (a short completion) to ten minutes (the SDKs' default timeout).
const CALL_SECONDS: &[f64] = &[
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0,
];
/// First tokens come after a network round trip at best, and after a minute of reasoning at worst.
const FIRST_TOKEN_SECONDS: &[f64] = &[0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 60.0];
/// A stage of Guard's own takes microseconds; a quarter of a second means that the host is short of CPU.
const ADDED_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.025, 0.1, 0.25,
];
/// A call is reserved at its worst case, so most settle far below it; a settled cost above 1 is a finding.
const RATIO: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0];

/// What a metric is, for the documentation.
#[derive(Debug, Clone)]
pub struct Described {
    /// Full name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Label names.
    pub labels: Vec<String>,
    /// Help text.
    pub help: String,
}

/// Every metric of Guard.
pub struct Metrics {
    registry: Registry,
    described: Vec<Described>,
    labels: ArcSwap<Labels>,
    enforcing: IntGauge,
    calls: IntCounterVec,
    refusals: IntCounterVec,
    side: IntCounterVec,
    would_refuse: IntCounterVec,
    tokens: IntCounterVec,
    cost: IntCounterVec,
    usage_unknown: IntCounterVec,
    unpriced: IntCounterVec,
    /// Limit, settled, reserved; the same in each unit.
    budget_usd: [IntGaugeVec; 3],
    budget_tokens: [IntGaugeVec; 3],
    budget_calls: [IntGaugeVec; 3],
    budget_exhausts: IntGaugeVec,
    estimate_error: HistogramVec,
    wasted: IntCounterVec,
    alerts: IntCounterVec,
    cost_per_success: IntGaugeVec,
    client_retries: IntCounterVec,
    loop_score: IntGaugeVec,
    context_growth: IntGaugeVec,
    tool_calls: IntCounterVec,
    usage_inconsistent: IntCounterVec,
    call_duration: HistogramVec,
    first_token: HistogramVec,
    added: HistogramVec,
    connections: IntGaugeVec,
    passthrough: IntCounterVec,
    egress_refused: IntCounterVec,
    bypass_attempts: IntCounterVec,
    findings: IntCounterVec,
    dns_queries: IntCounterVec,
    tls_untrusted: IntCounterVec,
    client_errors: IntCounterVec,
    audit_dropped: IntCounter,
    events_lost: IntCounter,
    worker_restarts: IntCounter,
    repairs: IntCounter,
    price_table_age: IntGauge,
}

impl Metrics {
    /// Every metric, in a registry of its own.
    ///
    /// # Errors
    /// Two metrics have one name: a fault of this file, which any start shows.
    #[allow(
        clippy::too_many_lines,
        reason = "one statement per metric: the list is the documentation"
    )]
    pub fn new(labels: Labels) -> Result<Self, prometheus::Error> {
        let mut make = Maker {
            registry: Registry::new(),
            described: Vec::new(),
        };
        let enforcing = make.gauge(
            "enforcing",
            "1 while it is proven that governed processes cannot get past Guard: every program is attached, and the canary was refused or arrived here. Else 0.",
        )?;
        let who = &["agent", "provider", "model"];
        let calls = make.counters(
            "calls_total",
            &["agent", "provider", "model", "outcome"],
            "Calls that ended, by outcome (ok, provider_error, client_gone, upstream_failed, cut, refused).",
        )?;
        let refusals = make.counters("refusals_total", &["agent", "reason"], "Calls refused.")?;
        let side = make.counters(
            "side_requests_total",
            &["agent", "provider", "verdict"],
            "Requests of clients beside inference (settings, telemetry), which are no calls, by verdict (passed, refused).",
        )?;
        let would_refuse = make.counters(
            "would_refuse_total",
            &["agent", "reason"],
            "Calls that a rule in observe mode would have refused.",
        )?;
        let tokens = make.counters(
            "tokens_total",
            &["agent", "provider", "model", "kind"],
            "Tokens as the provider reports them. The kinds do not overlap, except that reasoning is part of output.",
        )?;
        let cost = make.usd_counters(
            "cost_usd_total",
            &["agent", "owner", "provider", "model"],
            "Settled cost in US dollars. Counted in whole pico-dollars, converted when it is shown.",
        )?;
        let usage_unknown = make.counters(
            "usage_unknown_total",
            who,
            "Calls whose usage the provider did not report; settled at their reservation.",
        )?;
        let unpriced = make.counters(
            "unpriced_total",
            &["agent", "provider"],
            "Calls to models without a price.",
        )?;
        let budget = &["scope", "name", "window"];
        let budget_usd = [
            make.usd_gauges("budget_limit_usd", budget, "Hard limit in force, in US dollars.")?,
            make.usd_gauges(
                "budget_settled_usd",
                budget,
                "Settled in the current window, in US dollars.",
            )?,
            make.usd_gauges(
                "budget_reserved_usd",
                budget,
                "Reserved by calls in flight, in US dollars.",
            )?,
        ];
        let budget_tokens = [
            make.gauges("budget_limit_tokens", budget, "Hard limit in force, in tokens.")?,
            make.gauges(
                "budget_settled_tokens",
                budget,
                "Tokens settled in the current window.",
            )?,
            make.gauges(
                "budget_reserved_tokens",
                budget,
                "Tokens reserved by calls in flight.",
            )?,
        ];
        let budget_calls = [
            make.gauges("budget_limit_calls", budget, "Hard limit in force, in calls.")?,
            make.gauges(
                "budget_settled_calls",
                budget,
                "Calls of the current window that have ended.",
            )?,
            make.gauges(
                "budget_reserved_calls",
                budget,
                "Calls in flight that count in the current window.",
            )?,
        ];
        let budget_exhausts = make.gauges(
            "budget_exhausts_seconds",
            budget,
            "Seconds until the budget (of several units, the first) is gone at the rate of the last five minutes. No series while nothing is spent.",
        )?;
        let estimate_error = make.histograms(
            "estimate_error_ratio",
            &["provider"],
            RATIO,
            "Settled cost divided by the reservation. Above 1 a reservation was too small.",
        )?;
        let alerts = make.counters(
            "alerts_total",
            &["end"],
            "Alerts that somebody asked for, by what became of them (sent, failed after every attempt, repeated within ten minutes and so not told again, lost because too many waited).",
        )?;
        let wasted = make.usd_counters(
            "wasted_usd_total",
            &["agent", "cause"],
            "Of the settled cost, US dollars that did nothing: for calls that failed, that were retried after one that was paid, or that went on with a loop (failed, retried, looping).",
        )?;
        let cost_per_success = make.usd_gauges(
            "cost_per_success_usd",
            &["agent"],
            "Cost of the runs whose outcome was told (guard-agent outcome), divided by how many of them succeeded, in US dollars.",
        )?;
        let client_retries = make.counters(
            "client_retries_total",
            &["agent"],
            "Requests that try again what failed or was refused: the same body, or a client that says so.",
        )?;
        let loop_score = make.gauges(
            "loop_score",
            &["agent"],
            "Percent of the way to the trip level of the loop rule that is nearest to it, over the conversations of the last ten minutes. 100 and above: a call was refused or, without a trip level, warned of.",
        )?;
        let context_growth = make.gauges(
            "context_tokens_per_turn",
            &["agent"],
            "Tokens of input that each call adds to the one before, in the conversation of the last ten minutes that grows fastest; 0 until one has grown steadily.",
        )?;
        let usage_inconsistent = make.counters(
            "usage_inconsistent_total",
            &["provider"],
            "Replies whose counts contradict each other (a part larger than its whole). The part was cut to the whole.",
        )?;
        let tool_calls = make.counters(
            "tool_calls_total",
            &["agent", "tool", "verdict"],
            "Tools, by what happened (called, denied in a reply, stripped, refused). `tool` is the pattern of the allow list that covers it.",
        )?;
        let call_duration = make.histograms(
            "call_duration_seconds",
            &["provider"],
            CALL_SECONDS,
            "From the request's first byte to the reply's last.",
        )?;
        let first_token = make.histograms(
            "first_token_seconds",
            &["provider"],
            FIRST_TOKEN_SECONDS,
            "From the request's last byte to the first byte of the reply's body.",
        )?;
        let added = make.histograms(
            "added_seconds",
            &["stage"],
            ADDED_SECONDS,
            "Time that Guard itself added to a call, by stage of the path.",
        )?;
        let connections = make.gauges(
            "connections",
            &["agent"],
            "Connections of governed processes that are open.",
        )?;
        let passthrough = make.counters(
            "passthrough_bytes_total",
            &["agent"],
            "Bytes relayed, both ways, on connections that are not a provider's.",
        )?;
        let egress_refused = make.counters(
            "egress_refused_total",
            &["agent", "cause"],
            "Connections that the agent's `egress` rules refused, by cause.",
        )?;
        let bypass_attempts = make.counters(
            "bypass_attempts_total",
            &["agent", "vector"],
            "Attempts to reach the network past Guard that the kernel programs refused, by vector.",
        )?;
        let findings = make.counters(
            "findings_total",
            &["agent", "kind"],
            "Findings for the agent's owner.",
        )?;
        let dns_queries = make.counters(
            "dns_queries_total",
            &["agent", "outcome"],
            "DNS queries of governed processes, by outcome (answered, stripped, unknown, too_many, tunnel, malformed, failed).",
        )?;
        let tls_untrusted = make.counters(
            "tls_untrusted_total",
            &["agent"],
            "TLS handshakes that the client gave up because it does not trust Guard's CA.",
        )?;
        let client_errors = make.counters(
            "client_errors_total",
            &["kind"],
            "Connections ended because of what the client sent or did not send (malformed TLS, malformed HTTP, too slow).",
        )?;
        let audit_dropped = make.counter(
            "audit_dropped_total",
            "Audit records lost. A call is never forwarded without a slot for its own.",
        )?;
        let events_lost = make.counter(
            "events_lost_total",
            "Kernel events lost because nobody read them in time.",
        )?;
        let worker_restarts = make.counter(
            "worker_restarts_total",
            "Times that the unprivileged worker died and was replaced, since the daemon was started.",
        )?;
        let repairs = make.counter(
            "repairs_total",
            "Programs or pins that somebody took away and the daemon put back.",
        )?;
        let price_table_age = make.gauge("price_table_age_seconds", "Age of the price table in seconds.")?;
        make.register("gauge", Box::new(build_info()?))?;
        Ok(Self {
            registry: make.registry,
            described: make.described,
            labels: ArcSwap::from_pointee(labels),
            enforcing,
            calls,
            refusals,
            side,
            would_refuse,
            tokens,
            cost,
            usage_unknown,
            unpriced,
            budget_usd,
            budget_tokens,
            budget_calls,
            budget_exhausts,
            estimate_error,
            wasted,
            alerts,
            cost_per_success,
            client_retries,
            loop_score,
            context_growth,
            tool_calls,
            usage_inconsistent,
            call_duration,
            first_token,
            added,
            connections,
            passthrough,
            egress_refused,
            bypass_attempts,
            findings,
            dns_queries,
            tls_untrusted,
            client_errors,
            audit_dropped,
            events_lost,
            worker_restarts,
            repairs,
            price_table_age,
        })
    }

    /// Takes the label values of a new configuration. Series of agents that are gone stay until the restart.
    pub fn relabel(&self, labels: Labels) {
        self.labels.store(Arc::new(labels));
    }

    /// Every metric, whether or not it has a series yet.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// The text exposition format (`Content-Type: text/plain; version=0.0.4`).
    ///
    /// # Errors
    /// A series cannot be written.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn build_info() -> Made<IntGauge> {
    let opts = Opts::new("build_info", "Always 1; the labels say which build this is.")
        .namespace("guard")
        .const_label("version", env!("CARGO_PKG_VERSION"));
    let made = IntGauge::with_opts(opts)?;
    made.set(1);
    Ok(made)
}
