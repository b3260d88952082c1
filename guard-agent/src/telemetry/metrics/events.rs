//! The events that change a metric, one method each.

use prometheus::IntCounter;

use crate::ledger::{Amount, Cause, Scope, Unit};
use crate::policy::multipliers::Gauges;

use super::kinds::{AlertEnd, ClientError, Connection, Outcome, SideVerdict, Stage, ToolVerdict};
use super::{Duration, Metrics, Pico, Reason, ScopeKind, Usage, Window, usd};

impl Metrics {
    /// Whether enforcement is proven.
    pub fn enforcing(&self, proven: bool) {
        self.enforcing.set(i64::from(proven));
    }

    /// Whether enforcement is proven right now.
    pub fn is_enforcing(&self) -> bool {
        self.enforcing.get() == 1
    }

    /// A call ended.
    pub fn call(&self, agent: &str, provider: &str, model: &str, outcome: Outcome) {
        let known = self.labels.load();
        let values = [
            known.agent(agent),
            known.provider(provider),
            known.model(model),
            outcome.label(),
        ];
        self.calls.with_label_values(&values).inc();
    }

    /// A call was refused.
    pub fn refusal(&self, agent: &str, reason: Reason) {
        self.refusals
            .with_label_values(&[self.labels.load().agent(agent), reason.label()])
            .inc();
    }

    /// A client asked for something beside inference.
    pub fn side(&self, agent: &str, provider: &str, verdict: SideVerdict) {
        let known = self.labels.load();
        let verdict = match verdict {
            SideVerdict::Passed => "passed",
            SideVerdict::Refused => "refused",
        };
        self.side
            .with_label_values(&[known.agent(agent), known.provider(provider), verdict])
            .inc();
    }

    /// A call would have been refused, had its rule been enforced.
    pub fn would_refuse(&self, agent: &str, reason: Reason) {
        self.would_refuse
            .with_label_values(&[self.labels.load().agent(agent), reason.label()])
            .inc();
    }

    /// The provider reported usage.
    pub fn tokens(&self, agent: &str, provider: &str, model: &str, usage: &Usage) {
        let known = self.labels.load();
        let (agent, provider, model) = (known.agent(agent), known.provider(provider), known.model(model));
        for (kind, count) in [
            ("input", usage.total_uncached()),
            ("cache_read", usage.total_cache_read()),
            (
                "cache_write",
                usage.cache_write_5m.saturating_add(usage.cache_write_1h),
            ),
            ("output", usage.total_output()),
            ("reasoning", usage.reasoning),
        ] {
            if count > 0 {
                self.tokens
                    .with_label_values(&[agent, provider, model, kind])
                    .inc_by(count);
            }
        }
    }

    /// Money was settled. The owner is the agent's.
    pub fn cost(&self, agent: &str, provider: &str, model: &str, cost: Pico) {
        let known = self.labels.load();
        let values = [
            known.agent(agent),
            known.owner(agent),
            known.provider(provider),
            known.model(model),
        ];
        self.cost.with_label_values(&values).inc_by(cost.0);
    }

    /// A provider reported counts that contradict each other.
    pub fn usage_inconsistent(&self, provider: &str) {
        self.usage_inconsistent
            .with_label_values(&[self.labels.load().provider(provider)])
            .inc();
    }

    /// A call ended without usage.
    pub fn usage_unknown(&self, agent: &str, provider: &str, model: &str) {
        let known = self.labels.load();
        let values = [known.agent(agent), known.provider(provider), known.model(model)];
        self.usage_unknown.with_label_values(&values).inc();
    }

    /// A call named a model without a price.
    pub fn unpriced(&self, agent: &str, provider: &str) {
        let known = self.labels.load();
        self.unpriced
            .with_label_values(&[known.agent(agent), known.provider(provider)])
            .inc();
    }

    /// The state of one budget. Runs are left out: a run's name is an id, and ids are never labels.
    pub fn budget(&self, scope: ScopeKind, name: &str, window: Window, state: BudgetState) {
        if matches!(scope, ScopeKind::Run | ScopeKind::Session) || window == Window::Run {
            return;
        }
        let known = self.labels.load();
        // Names of shared budgets come from the configuration, as agents' do.
        let name = if scope == ScopeKind::Agent {
            known.agent(name)
        } else {
            name
        };
        let window = window.label();
        let values = [scope.label(), name, &*window];
        let gauges = match state.limit.unit {
            Unit::Usd => &self.budget_usd,
            Unit::Tokens => &self.budget_tokens,
            Unit::Calls => &self.budget_calls,
        };
        for (gauge, count) in gauges
            .iter()
            .zip([state.limit.count, state.settled, state.reserved])
        {
            gauge
                .with_label_values(&values)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// When budgets are gone at the present rate, in seconds; those that are not named here are not being spent.
    pub fn budgets_exhaust(&self, soon: &[(Scope, Window, u64)]) {
        let known = self.labels.load();
        let mut least: std::collections::HashMap<(ScopeKind, &str, String), u64> =
            std::collections::HashMap::new();
        for (scope, window, seconds) in soon {
            let name = match scope.kind {
                ScopeKind::Agent => known.agent(&scope.name),
                _ => &*scope.name,
            };
            // Of several units the one that is gone first.
            let value = least
                .entry((scope.kind, name, window.label().into_owned()))
                .or_insert(*seconds);
            *value = (*value).min(*seconds);
        }
        self.budget_exhausts.reset();
        for ((kind, name, window), seconds) in least {
            self.budget_exhausts
                .with_label_values(&[kind.label(), name, window.as_str()])
                .set(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// A reservation was settled from reported usage.
    pub fn estimate(&self, provider: &str, reserved: Pico, settled: Pico) {
        if reserved > Pico::ZERO {
            let known = self.labels.load();
            let provider = known.provider(provider);
            self.estimate_error
                .with_label_values(&[provider])
                .observe(usd::ratio(settled, reserved));
        }
    }

    /// Settled money did something, or nothing.
    pub fn wasted(&self, agent: &str, cause: Cause, cost: Pico) {
        if cause != Cause::Useful && cost > Pico::ZERO {
            self.wasted
                .with_label_values(&[self.labels.load().agent(agent), cause.label()])
                .inc_by(cost.0);
        }
    }

    /// What a successful run costs.
    pub fn cost_per_success(&self, agent: &str, cost: Pico) {
        self.cost_per_success
            .with_label_values(&[self.labels.load().agent(agent)])
            .set(i64::try_from(cost.0).unwrap_or(i64::MAX));
    }

    /// A client tried again.
    pub fn client_retry(&self, agent: &str) {
        self.client_retries
            .with_label_values(&[self.labels.load().agent(agent)])
            .inc();
    }

    /// How near the agent's conversations are to a loop, and how fast they grow.
    pub fn multipliers(&self, agent: &str, gauges: Gauges) {
        let known = self.labels.load();
        let values = [known.agent(agent)];
        for (gauge, value) in [
            (&self.loop_score, gauges.loop_score),
            (&self.context_growth, gauges.growth),
        ] {
            gauge.with_label_values(&values).set(value.into());
        }
    }

    /// An alert came to its end.
    pub fn alert(&self, end: AlertEnd) {
        self.alerts.with_label_values(&[end.label()]).inc();
    }

    /// Something happened to a tool.
    pub fn tool(&self, agent: &str, tool: &str, verdict: ToolVerdict) {
        let known = self.labels.load();
        let values = [known.agent(agent), known.tool(agent, tool), verdict.label()];
        self.tool_calls.with_label_values(&values).inc();
    }

    /// How long a call took.
    pub fn call_duration(&self, provider: &str, took: Duration) {
        let known = self.labels.load();
        self.call_duration
            .with_label_values(&[known.provider(provider)])
            .observe(took.as_secs_f64());
    }

    /// How long the first byte of the reply's body took.
    pub fn first_token(&self, provider: &str, took: Duration) {
        let known = self.labels.load();
        self.first_token
            .with_label_values(&[known.provider(provider)])
            .observe(took.as_secs_f64());
    }

    /// Time of Guard's own.
    pub fn added(&self, stage: Stage, took: Duration) {
        self.added
            .with_label_values(&[stage.label()])
            .observe(took.as_secs_f64());
    }

    /// A governed process opened a connection; it ends when the value is dropped.
    #[must_use]
    pub fn connection(&self, agent: &str) -> Connection {
        let gauge = self
            .connections
            .with_label_values(&[self.labels.load().agent(agent)]);
        gauge.inc();
        Connection(gauge)
    }

    /// The counter for a connection that is passed through; looked up once, then an atomic add per piece.
    pub fn passthrough(&self, agent: &str) -> IntCounter {
        self.passthrough
            .with_label_values(&[self.labels.load().agent(agent)])
    }

    /// An agent's `egress` rules refused a connection.
    pub fn egress_refused(&self, agent: &str, cause: &'static str) {
        self.egress_refused
            .with_label_values(&[self.labels.load().agent(agent), cause])
            .inc();
    }

    /// The kernel programs refused a way around Guard.
    pub fn bypass_attempts(&self, agent: &str, vector: &'static str, count: u64) {
        self.bypass_attempts
            .with_label_values(&[self.labels.load().agent(agent), vector])
            .inc_by(count);
    }

    /// A DNS query ended.
    pub fn dns(&self, agent: &str, outcome: crate::dns::Outcome) {
        self.dns_queries
            .with_label_values(&[self.labels.load().agent(agent), outcome.label()])
            .inc();
    }

    /// Something for the agent's owner to look at.
    pub fn finding(&self, agent: &str, kind: &'static str) {
        self.findings
            .with_label_values(&[self.labels.load().agent(agent), kind])
            .inc();
    }

    /// A client does not trust our CA.
    pub fn tls_untrusted(&self, agent: &str) {
        self.tls_untrusted
            .with_label_values(&[self.labels.load().agent(agent)])
            .inc();
    }

    /// A connection was ended on account of the client.
    pub fn client_error(&self, kind: ClientError) {
        self.client_errors.with_label_values(&[kind.label()]).inc();
    }

    /// An audit record was lost.
    pub fn audit_dropped(&self) {
        self.audit_dropped.inc();
    }

    /// The kernel could not deliver this many events.
    pub fn events_lost(&self, count: u64) {
        self.events_lost.inc_by(count);
    }

    /// How many workers had ended before this one. Said once, when it starts.
    pub fn worker_restarts(&self, before: u64) {
        self.worker_restarts.inc_by(before);
    }

    /// A program or a pin was put back.
    pub fn repaired(&self) {
        self.repairs.inc();
    }

    /// How old the price table is.
    pub fn price_table_age(&self, age: Duration) {
        self.price_table_age
            .set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
    }
}

/// What a budget gauge shows.
#[derive(Debug, Clone, Copy)]
pub struct BudgetState {
    /// Limit in force; the other two are in its unit.
    pub limit: Amount,
    /// Settled in the current window.
    pub settled: u64,
    /// Reserved by calls in flight.
    pub reserved: u64,
}
