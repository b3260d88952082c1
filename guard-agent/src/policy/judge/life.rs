//! How large a body may be, how long a run may last, and when its streams are ended.

use std::time::{Duration, Instant};

use ulid::Ulid;

use super::Judging;
use crate::config::{Agent, Mode};
use crate::policy::{Deadline, caps};
use crate::refusal::Refusal;

impl Judging<'_> {
    /// The caps on the body's size and on the life of the run.
    pub(super) fn limits(&mut self, agent: &Agent) -> Result<(), Refusal> {
        let body = self.call.body.len() as u64;
        self.weigh(caps::input(agent, body))?;
        if agent.caps.run_timeout.is_some() {
            let lasted = self.lasted();
            self.weigh(caps::run_timeout(agent, &self.who.run, lasted))?;
        }
        Ok(())
    }

    /// When the run's time is over, and what its streams are told then.
    pub(super) fn deadline(&self, agent: &Agent) -> Option<Deadline> {
        let limit = agent
            .caps
            .run_timeout
            .filter(|_| self.rules.mode == Mode::Enforce)?;
        let left = limit.checked_sub(self.lasted())?;
        Some(Deadline {
            at: Instant::now().checked_add(left)?,
            refusal: caps::run_timeout(agent, &self.who.run, limit).err()?,
            id: self.call.id.to_string(),
        })
    }

    /// How long the run has lasted: since its id was made, where Guard made it; else since its first call.
    fn lasted(&self) -> Duration {
        let run = &self.who.run;
        let now = Instant::now();
        // The ids of other runs look the same, and tell no time.
        let ours = self.who.cgroup.rsplit('/').any(|part| part == &**run);
        match Ulid::from_string(run) {
            Ok(id) if ours => {
                let now = u64::try_from(self.policy.recorder.now().as_millisecond()).unwrap_or(0);
                Duration::from_millis(now.saturating_sub(id.timestamp_ms()))
            }
            Ok(_) | Err(_) => {
                let first = self.policy.multipliers.first_call(&self.who.agent, run, now);
                now.saturating_duration_since(first)
            }
        }
    }
}
