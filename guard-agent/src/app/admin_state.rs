//! What the admin interface shows and changes.

use std::sync::Arc;

use super::Daemon;
use crate::admin::{
    AdminError, AdminState, AgentEnvironment, AgentStatus, BudgetStatus, ErrorCode, FreezeRequest, Frozen,
    Grant, GrantRequest, LastRefusal, OutcomeRequest, OutcomeTold, Peer, Reloaded, RunStarted, Status,
};
use crate::audit::record::Admin;
use crate::config::{Agent, Budget, Config, Mode, Per};
use crate::keys::environment;
use crate::ledger::{AccountView, Scope, ScopeKind, Window};
use crate::policy::grants::Extra;

impl AdminState for Daemon {
    fn status(&self) -> Status {
        let config = self.config.load();
        let accounts = self.ledger.accounts();
        let runs = self.keeper.governed_blocking().unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: match config.host.mode {
                Mode::Enforce => "enforce".to_owned(),
                Mode::Observe => "observe".to_owned(),
            },
            enforcing: self.metrics.is_enforcing(),
            not_ready: self.ready().err(),
            started_at: self.started_at,
            configured_at: **self.configured_at.load(),
            agents: config
                .agents
                .iter()
                .map(|agent| {
                    let number = crate::identify::number(&agent.name);
                    let lives: Vec<&str> = runs
                        .iter()
                        .filter(|(_, governed)| governed.agent == number)
                        .map(|(_, governed)| governed.run.as_str())
                        .collect();
                    self.agent_status(agent, &lives, &accounts)
                })
                .collect(),
            shared: config
                .budgets
                .iter()
                .map(|shared| budget_status(&shared.budget, &shared.scope(), &accounts, &Extra::default()))
                .collect(),
        }
    }

    fn start_run(&self, peer: &Peer, agent: &str) -> Result<RunStarted, AdminError> {
        let config = self.config.load();
        let agent = known(&config, agent)?;
        let run = match &peer.connection {
            Some(connection) => self.keeper.run(&agent.name, connection),
            None => Err("the connection of the process that asks is gone".to_owned()),
        };
        let run = run.map_err(|why| AdminError::new(ErrorCode::Failed, why))?;
        let environment = environment::of_run(&config, agent, &self.placeholders);
        self.recorder.admin(Admin {
            action: "run".to_owned(),
            subject: Some(agent.name.to_string()),
            by_pid: Some(peer.pid),
            detail: Some(run.id.clone()),
            ..Admin::default()
        });
        Ok(RunStarted {
            run: run.id,
            cgroup: run.cgroup,
            env: environment.set,
            remove: environment.remove,
        })
    }

    fn environment(&self, agent: &str) -> Result<AgentEnvironment, AdminError> {
        let config = self.config.load();
        let environment = environment::of_run(&config, known(&config, agent)?, &self.placeholders);
        Ok(AgentEnvironment {
            env: environment.set,
            remove: environment.remove,
        })
    }

    fn reload(&self) -> Result<Reloaded, AdminError> {
        let notes = self
            .keeper
            .reload()
            .map_err(|why| AdminError::new(ErrorCode::BadConfiguration, why))?;
        self.recorder.admin(Admin {
            action: "reload".to_owned(),
            ..Admin::default()
        });
        Ok(Reloaded {
            agents: self.config.load().agents.len() as u64,
            notes,
        })
    }

    fn freeze(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError> {
        self.freeze_agent(by, asked)
    }

    fn unfreeze(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError> {
        self.unfreeze_agent(by, asked)
    }

    fn grant(&self, by: &Peer, asked: &GrantRequest) -> Result<Grant, AdminError> {
        self.grant_more(by, asked)
    }

    fn outcome(&self, by: &Peer, asked: &OutcomeRequest) -> Result<OutcomeTold, AdminError> {
        self.tell_outcome(by, asked)
    }

    fn peer_is_governed(&self, pid: u32) -> bool {
        self.keeper.is_governed(pid)
    }

    fn ready(&self) -> Result<(), String> {
        self.proven()?;
        if let Some(why) = self.ledger.stopped() {
            return Err(format!("the ledger admits nothing: {why}"));
        }
        match self.recorder.audit().stats().failing {
            Some(why) => Err(format!("the audit log cannot be written: {why}")),
            None => Ok(()),
        }
    }

    fn metrics(&self) -> Result<Vec<u8>, String> {
        self.show_budgets();
        self.show_multipliers();
        self.show_outcomes();
        self.metrics.text().map_err(|why| why.to_string())
    }
}

impl Daemon {
    fn agent_status(&self, agent: &Arc<Agent>, lives: &[&str], accounts: &[AccountView]) -> AgentStatus {
        let tally = self.recorder.tally().of(&agent.name);
        let now = self.recorder.now();
        let extra = self.policy.grants().extra(&agent.name, now);
        let budgets = agent.budgets.iter().flat_map(|budget| {
            let row = move |kind: ScopeKind, name: &str| {
                let name = name.into();
                budget_status(budget, &Scope { kind, name }, accounts, &extra)
            };
            match (budget.per, budget.window) {
                (Per::Session, _) => accounts
                    .iter()
                    .filter(|account| {
                        let run = account.scope.name.split('/').next().unwrap_or_default();
                        account.scope.kind == ScopeKind::Session
                            && account.window == budget.window
                            && account.settled.unit == budget.limit.unit
                            && lives.contains(&run)
                    })
                    .map(|account| row(ScopeKind::Session, &account.scope.name))
                    .collect(),
                (Per::Agent, Window::Run) => lives
                    .iter()
                    .map(|run| row(ScopeKind::Run, run))
                    .collect::<Vec<_>>(),
                (Per::Agent, _) => vec![row(ScopeKind::Agent, &agent.name)],
            }
        });
        AgentStatus {
            name: agent.name.to_string(),
            owner: agent.owner.to_string(),
            runs: lives.len() as u64,
            calls: tally.calls,
            refusals: tally.refusals,
            in_flight: self.policy.in_flight(&agent.name).into(),
            last_refusal: tally.last_refusal.map(|(at, reason, message)| LastRefusal {
                at,
                reason: reason.label().to_owned(),
                message,
            }),
            budgets: budgets.collect(),
            grants: self.policy.grants().of(&agent.name, now),
        }
    }
}

/// How a budget of this scope stands.
fn budget_status(budget: &Budget, scope: &Scope, accounts: &[AccountView], extra: &Extra) -> BudgetStatus {
    let account = budget.account(scope, accounts);
    BudgetStatus {
        scope: scope.kind.label().to_owned(),
        name: scope.name.to_string(),
        window: budget.window.label().into_owned(),
        unit: budget.limit.unit,
        limit: extra.raise(scope, budget.limit).count,
        soft: budget.soft_ppm.map(|ppm| budget.limit.part(ppm).count),
        settled: account.map_or(0, |account| account.settled.count),
        reserved: account.map_or(0, |account| account.reserved.count),
        resets_at: account.and_then(|account| account.resets_at),
    }
}

/// The agent with this name.
pub(super) fn known<'c>(config: &'c Config, agent: &str) -> Result<&'c Arc<Agent>, AdminError> {
    let found = config.agents.iter().find(|known| &*known.name == agent);
    found.ok_or_else(|| {
        let message = format!("no [[agent]] is named {agent:?}; `guard-agent status` lists those in force");
        AdminError::new(ErrorCode::NotFound, message)
    })
}
