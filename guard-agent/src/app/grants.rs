//! What an operator allows beyond the budgets.
//!
//! In: a request of the admin socket. Out: a grant, on disk and in the audit log. On failure: an error that says that
//! nothing was granted.

use std::time::Duration;

use super::Daemon;
use super::admin_state::known;
use super::stops::{bounded, one_line};
use crate::admin::{AdminError, ErrorCode, GrantRequest, Peer};
use crate::audit::record::Admin;
use crate::money::Pico;
use crate::policy::grants::Grant;

/// Longest grant: what should hold longer belongs into the configuration.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 60 * 60);

impl Daemon {
    pub(super) fn grant_more(&self, by: &Peer, asked: &GrantRequest) -> Result<Grant, AdminError> {
        let refuse = |message: String| AdminError::new(ErrorCode::BadRequest, message);
        known(&self.config.load(), &asked.agent)?;
        let why = asked.why.trim();
        if why.is_empty() {
            return Err(refuse("say why, for the audit log: --why \"…\"".to_owned()));
        }
        bounded(why)?;
        if asked.pico_usd == Pico::ZERO {
            return Err(refuse(
                "nothing was asked for: grant an amount above $0".to_owned(),
            ));
        }
        let time = Duration::from_secs(asked.seconds);
        if time.is_zero() || time > LONGEST {
            let message = "a grant lasts at most 31 days, and longer than nothing: for more, raise the budget in guard.toml";
            return Err(refuse(message.to_owned()));
        }
        let now = self.recorder.now();
        let until = now.checked_add(time).map_err(|why| refuse(why.to_string()))?;
        let grant = Grant {
            agent: asked.agent.clone(),
            pico_usd: asked.pico_usd,
            why: one_line(why),
            at: now,
            until,
            by_uid: by.uid,
        };
        self.policy
            .grants()
            .grant(grant.clone())
            .map_err(|why| AdminError::new(ErrorCode::Failed, format!("nothing was granted: {why}")))?;
        self.policy.multipliers().forget_cuts(&asked.agent);
        tracing::info!(agent = asked.agent, amount = %asked.pico_usd, %until, why, "granted");
        self.recorder.admin(Admin {
            action: "grant".to_owned(),
            subject: Some(asked.agent.clone()),
            by_uid: Some(by.uid),
            by_pid: Some(by.pid),
            why: Some(grant.why.clone()),
            detail: Some(format!("{} until {until:.0}", asked.pico_usd)),
        });
        Ok(grant)
    }
}
