//! What an operator stops, and what is said of a run that has ended.
//!
//! In: a request of the admin socket. Out: a frozen or thawed agent or run, an outcome; both on disk and in the audit
//! log. On failure: an error that says what holds now.

use super::Daemon;
use super::admin_state::known;
use crate::admin::{AdminError, ErrorCode, FreezeRequest, Frozen, OutcomeRequest, OutcomeTold, Peer};
use crate::audit::record::Admin;
use crate::ledger::{ScopeKind, Unit};
use crate::money::Pico;
use crate::policy::frozen::Freeze;

/// Longest reason and longest run id, in bytes.
const LONGEST: usize = 512;

impl Daemon {
    pub(super) fn freeze_agent(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError> {
        known(&self.config.load(), &asked.agent)?;
        let why = asked.why.trim();
        if why.is_empty() {
            let message = "say why, for the agent and for the audit log: --why \"…\"";
            return Err(AdminError::new(ErrorCode::BadRequest, message));
        }
        bounded(why)?;
        bounded(asked.run.as_deref().unwrap_or_default())?;
        let freeze = Freeze {
            why: one_line(why),
            at: self.recorder.now(),
            by_uid: Some(by.uid),
        };
        let frozen = self.policy.frozen();
        frozen
            .freeze(&asked.agent, asked.run.as_deref(), freeze)
            .map_err(|why| {
                AdminError::new(
                    ErrorCode::Failed,
                    format!("not on disk, so a restart would thaw it: {why}"),
                )
            })?;
        self.note_stop("freeze", by, asked);
        Ok(self.frozen(asked, true))
    }

    pub(super) fn unfreeze_agent(&self, by: &Peer, asked: &FreezeRequest) -> Result<Frozen, AdminError> {
        // An agent that has left the configuration can still be thawed.
        let changed = self
            .policy
            .frozen()
            .unfreeze(&asked.agent, asked.run.as_deref())
            .map_err(|why| AdminError::new(ErrorCode::Failed, format!("it stays frozen: {why}")))?;
        if !changed {
            let message = format!("nothing of {:?} is frozen by that name", asked.agent);
            return Err(AdminError::new(ErrorCode::NotFound, message));
        }
        self.note_stop("unfreeze", by, asked);
        Ok(self.frozen(asked, false))
    }

    fn frozen(&self, asked: &FreezeRequest, frozen: bool) -> Frozen {
        Frozen {
            agent: asked.agent.clone(),
            run: asked.run.clone(),
            frozen,
            in_flight: self.policy.in_flight(&asked.agent).into(),
        }
    }

    fn note_stop(&self, action: &str, by: &Peer, asked: &FreezeRequest) {
        tracing::info!(action, agent = asked.agent, run = asked.run, why = asked.why);
        self.recorder.admin(Admin {
            action: action.to_owned(),
            subject: Some(asked.agent.clone()),
            by_uid: Some(by.uid),
            by_pid: Some(by.pid),
            why: Some(asked.why.clone()),
            detail: asked.run.clone(),
        });
    }

    pub(super) fn tell_outcome(&self, by: &Peer, asked: &OutcomeRequest) -> Result<OutcomeTold, AdminError> {
        bounded(&asked.run)?;
        let Some(totals) = self.policy.multipliers().totals(&asked.run) else {
            let message = format!(
                "no run {:?} has made a call since the daemon started; `guard-agent audit tail --json` shows the ids \
                 of runs",
                asked.run
            );
            return Err(AdminError::new(ErrorCode::NotFound, message));
        };
        // The ledger also knows what the run cost before a restart, where the run has a budget.
        let booked = self.ledger.accounts().into_iter().find(|account| {
            account.scope.kind == ScopeKind::Run
                && *account.scope.name == *asked.run
                && account.settled.unit == Unit::Usd
        });
        let cost = totals.cost.max(
            booked
                .and_then(|account| account.settled.money())
                .unwrap_or(Pico::ZERO),
        );
        let per_success = self
            .outcomes
            .tell(&totals.agent, &asked.run, asked.outcome, cost)
            .map_err(|why| {
                AdminError::new(ErrorCode::Failed, format!("the outcome is not on disk: {why}"))
            })?;
        if let Some(cost) = per_success {
            self.metrics.cost_per_success(&totals.agent, cost);
        }
        self.recorder.admin(Admin {
            action: "outcome".to_owned(),
            subject: Some(totals.agent.to_string()),
            by_uid: Some(by.uid),
            by_pid: Some(by.pid),
            why: None,
            detail: Some(format!("{}: {}, {cost}", asked.run, asked.outcome.label())),
        });
        Ok(OutcomeTold {
            agent: totals.agent.to_string(),
            run: asked.run.clone(),
            outcome: asked.outcome,
            cost_pico_usd: cost,
            wasted_pico_usd: totals.wasted,
            cost_per_success_pico_usd: per_success,
        })
    }
}

/// A text without what a terminal would obey.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

pub(super) fn bounded(text: &str) -> Result<(), AdminError> {
    if text.len() <= LONGEST {
        return Ok(());
    }
    let message = format!("longer than {LONGEST} bytes: say it in fewer words");
    Err(AdminError::new(ErrorCode::BadRequest, message))
}
