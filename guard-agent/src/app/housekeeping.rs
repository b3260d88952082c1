//! What is looked after on a timer, away from the path: gauges, soft limits, and what the programs refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::Daemon;
use super::burn_rate::{BurnRates, Watched};
use super::ended_runs::EndedRuns;
use super::soft_limits::SoftLimits;
use crate::audit::record::Kernel as Attempt;
use crate::config::{Budget, Per};
use crate::identify;
use crate::kernel::Reason;
use crate::kernel::governed::GovernedCgroup;
use crate::ledger::{AccountView, Scope, ScopeKind, Window};
use crate::policy::grants::Extra;
use crate::seam::Attempts;
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
    let mut ended = EndedRuns::default();
    let mut soft = SoftLimits::default();
    let mut burn = BurnRates::default();
    loop {
        ticks.tick().await;
        daemon.metrics.price_table_age(price_age(&daemon));
        // Read once for both: it takes the lock that every reservation takes. Budget gauges are read at a scrape.
        let accounts = daemon.ledger.accounts();
        // Without an answer nobody's run is known to be over.
        let Ok(governed) = daemon.keeper.governed().await else {
            continue;
        };
        daemon.forget_ended(&mut ended, &accounts, &governed);
        daemon.warn(&mut soft, &accounts, &governed);
        daemon.warn_shared(&mut soft, &accounts);
        daemon.write_frozen();
        daemon.tell_burn_rates(&mut burn, &accounts);
    }
}

impl Daemon {
    /// Says which budgets are soon gone.
    fn tell_burn_rates(&self, burn: &mut BurnRates, accounts: &[AccountView]) {
        let config = self.config.load();
        let now = self.recorder.now();
        let own = config.agents.iter().flat_map(|agent| {
            let extra = self.policy.grants().extra(&agent.name, now);
            agent.budgets.iter().map(move |budget| {
                let scope = Scope {
                    kind: ScopeKind::Agent,
                    name: agent.name.clone(),
                };
                Watched {
                    agent: Some(agent),
                    limit: extra.raise(&scope, budget.limit),
                    scope,
                    budget,
                }
            })
        });
        let shared = config.budgets.iter().map(|shared| Watched {
            agent: None,
            scope: shared.scope(),
            budget: &shared.budget,
            limit: shared.budget.limit,
        });
        let Some(looked) = burn.look(own.chain(shared), accounts, std::time::Instant::now()) else {
            return;
        };
        self.metrics.budgets_exhaust(&looked.exhausts);
        for (agent, message) in looked.said {
            match agent {
                Some(agent) => self.recorder.alert(&agent, "budget.burn_rate", "", message),
                None => self.recorder.host_alert("budget.burn_rate", message),
            }
        }
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
                self.recorder
                    .alert(agent, "budget.soft", &message, message.clone());
            }
        }
    }

    /// The same, for the budgets that agents share.
    fn warn_shared(&self, soft: &mut SoftLimits, accounts: &[AccountView]) {
        for shared in &self.config.load().budgets {
            if let Some(message) = soft.shared(shared, accounts) {
                tracing::warn!("{message}");
                self.recorder.host_alert("budget.soft", message);
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
        let config = self.config.load();
        for agent in &config.agents {
            let own = Scope {
                kind: ScopeKind::Agent,
                name: agent.name.clone(),
            };
            let extra = self.policy.grants().extra(&agent.name, self.recorder.now());
            for budget in &agent.budgets {
                // Runs and sessions are ids, which are never labels.
                if budget.window != Window::Run && budget.per == Per::Agent {
                    self.show_budget(&own, budget, &accounts, &extra);
                }
            }
        }
        for shared in &config.budgets {
            self.show_budget(&shared.scope(), &shared.budget, &accounts, &Extra::default());
        }
    }

    fn show_budget(&self, scope: &Scope, budget: &Budget, accounts: &[AccountView], extra: &Extra) {
        let account = budget.account(scope, accounts);
        let state = BudgetState {
            limit: extra.raise(scope, budget.limit),
            settled: account.map_or(0, |account| account.settled.count),
            reserved: account.map_or(0, |account| account.reserved.count),
        };
        self.metrics.budget(scope.kind, &scope.name, budget.window, state);
    }
}

fn price_age(daemon: &Daemon) -> Duration {
    let made = daemon.prices.load().date().to_zoned(jiff::tz::TimeZone::UTC);
    let age = made.map(|made| jiff::Timestamp::now().duration_since(made.timestamp()));
    age.ok()
        .and_then(|age| Duration::try_from(age).ok())
        .unwrap_or_default()
}

/// Counts and records what the programs refused, gathered by agent and vector.
pub(super) async fn refusals(daemon: Arc<Daemon>, mut refused: mpsc::Receiver<Attempts>) {
    let mut gathered: HashMap<(Option<Arc<str>>, &'static str), Attempt> = HashMap::new();
    let mut flush = interval_at(Instant::now() + GATHER, GATHER);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            attempts = refused.recv() => {
                let Some(attempts) = attempts else { return };
                let Some(reason) = Reason::from_number(attempts.reason) else { continue };
                let vector = reason.label();
                let name = attempts.agent.as_deref().unwrap_or("other");
                daemon.metrics.bypass_attempts(name, vector, attempts.count);
                if gathered.len() < GATHERED {
                    let attempt = gathered.entry((attempts.agent, vector)).or_insert_with(|| Attempt {
                        original_destination: attempts.destination,
                        vector: vector.to_owned(),
                        count: 0,
                    });
                    attempt.count += attempts.count;
                }
            }
            _ = flush.tick() => {
                for ((agent, _), attempt) in gathered.drain() {
                    daemon.recorder.bypass_attempt(agent.as_ref(), attempt);
                }
            }
        }
    }
}
