//! What is looked after on a timer, away from the path: proof of enforcement, gauges, and what the kernel reports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::Daemon;
use super::ended_runs::EndedRuns;
use super::soft_limits::SoftLimits;
use crate::audit::record::Kernel as Attempt;
use crate::identify;
use crate::kernel::KernelEvent;
use crate::kernel::governed::GovernedCgroup;
use crate::ledger::{AccountView, ScopeKind, Window};
use crate::money::Pico;
use crate::telemetry::metrics::BudgetState;

const EVERY: Duration = Duration::from_secs(2);
/// Attempts of one agent along one vector within this time are one audit record: a client in a tight loop must not
/// fill the log.
const GATHER: Duration = Duration::from_secs(1);
/// Attempts that are told apart at the same time.
const GATHERED: usize = 1024;

/// Keeps the gauges current.
pub(super) async fn keep(daemon: Arc<Daemon>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost = 0;
    let mut ended = EndedRuns::default();
    let mut soft = SoftLimits::default();
    loop {
        ticks.tick().await;
        daemon.prove();
        let stats = daemon.kernel.stats();
        let now_lost = stats.events_lost;
        daemon.metrics.events_lost(now_lost.saturating_sub(lost));
        lost = now_lost;
        daemon.metrics.price_table_age(price_age(&daemon));
        // Read once for both: it takes the lock that every reservation takes. Budget gauges are read at a scrape.
        let accounts = daemon.ledger.accounts();
        let governed = daemon.governed.all();
        daemon.forget_ended(&mut ended, &accounts, &governed);
        daemon.warn(&mut soft, &accounts, &governed);
        daemon.write_frozen();
    }
}

impl Daemon {
    /// Asks the kernel whether every program is still attached.
    fn prove(&self) {
        let attached = self.kernel.attached();
        let proven = attached.all();
        if !proven && self.metrics.is_enforcing() {
            tracing::error!(missing = ?attached.missing(), "programs are not attached any more: NOT ENFORCING");
        }
        self.metrics.enforcing(proven);
    }

    /// Puts on disk what a rule has frozen.
    fn write_frozen(&self) {
        if let Err(why) = self.policy.frozen().write() {
            tracing::error!(%why, "what is frozen is not on disk: a restart would thaw it");
        }
    }

    /// Says which budgets have passed their soft limit.
    fn warn(&self, soft: &mut SoftLimits, accounts: &[AccountView], governed: &[(u64, GovernedCgroup)]) {
        soft.forget_all_but(accounts);
        for agent in &self.config.load().agents {
            let number = identify::number(&agent.name);
            let runs: Vec<Arc<str>> = governed
                .iter()
                .filter(|(_, cgroup)| cgroup.agent == number)
                .map(|(_, cgroup)| cgroup.run.as_str().into())
                .collect();
            for message in soft.passed(agent, &runs, accounts) {
                tracing::warn!("{message}");
                self.recorder.alert(agent, "budget.soft", message);
            }
        }
    }

    fn forget_ended(
        &self,
        ended: &mut EndedRuns,
        accounts: &[AccountView],
        governed: &[(u64, GovernedCgroup)],
    ) {
        let alive = governed.iter().map(|(_, cgroup)| cgroup.run.clone());
        let due = ended.due(accounts, &alive.collect(), Instant::now().into_std());
        for scope in due {
            tracing::debug!(run = %scope.name, "the account of a run that is over leaves memory");
            self.ledger.forget(&scope);
        }
    }

    pub(super) fn show_multipliers(&self) {
        let known = self.policy.multipliers().gauges(std::time::Instant::now());
        for agent in &self.config.load().agents {
            let gauges = known.get(&agent.name).copied().unwrap_or_default();
            self.metrics.multipliers(&agent.name, gauges);
        }
    }

    pub(super) fn show_outcomes(&self) {
        for (agent, cost) in self.outcomes.per_success() {
            self.metrics.cost_per_success(&agent, cost);
        }
    }

    pub(super) fn show_budgets(&self) {
        let accounts = self.ledger.accounts();
        for agent in &self.config.load().agents {
            for budget in agent.budgets.iter().filter(|budget| budget.window != Window::Run) {
                let account = accounts.iter().find(|account| {
                    account.scope.kind == ScopeKind::Agent
                        && account.scope.name == agent.name
                        && account.window == budget.window
                });
                let state = BudgetState {
                    limit: budget.limit,
                    settled: account.map_or(Pico::ZERO, |account| account.settled),
                    reserved: account.map_or(Pico::ZERO, |account| account.reserved),
                };
                self.metrics
                    .budget(ScopeKind::Agent, &agent.name, budget.window, state);
            }
        }
    }
}

fn price_age(daemon: &Daemon) -> Duration {
    let made = daemon.prices.date().to_zoned(jiff::tz::TimeZone::UTC);
    let age = made.map(|made| jiff::Timestamp::now().duration_since(made.timestamp()));
    age.ok()
        .and_then(|age| Duration::try_from(age).ok())
        .unwrap_or_default()
}

/// Counts and records what the programs refused, gathered by agent and vector.
pub(super) async fn kernel_events(daemon: Arc<Daemon>) {
    let mut events = daemon.kernel.events();
    let mut gathered: HashMap<(u32, &'static str), (KernelEvent, u64)> = HashMap::new();
    let mut flush = interval_at(Instant::now() + GATHER, GATHER);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return };
                let vector = event.reason.label();
                let name = daemon.identifier.agent_name(event.agent);
                daemon.metrics.bypass_attempt(name.as_deref().unwrap_or("other"), vector);
                if gathered.len() < GATHERED {
                    gathered.entry((event.agent, vector)).or_insert((event, 0)).1 += 1;
                }
            }
            _ = flush.tick() => {
                for ((agent, vector), (event, count)) in gathered.drain() {
                    let name = daemon.identifier.agent_name(agent);
                    let attempt =
                        Attempt { original_destination: event.destination, vector: vector.to_owned(), count };
                    daemon.recorder.bypass_attempt(name.as_ref(), attempt);
                }
            }
        }
    }
}
