//! Outcomes: what did the runs that succeeded cost?
//!
//! In: what somebody says of a run (`guard-agent outcome RUN success`). Out: the cost per success of its agent, which
//! counts the runs that failed too: they were paid for as well. On failure: an error; what was told before stays.
//!
//! Kept in a file over restarts. Of each agent the last runs are kept one by one, so that an outcome can be corrected;
//! older ones only in their sum.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::kept::{read, replace};
use crate::money::Pico;

/// Name of the file in `state_dir`.
const FILE: &str = "outcomes.json";
/// Runs of one agent that are kept one by one.
const RUNS: usize = 256;
/// Runs that are compared with those before them.
const LAST: usize = 8;

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it was for.
    Success,
    /// It did not.
    Failure,
}

impl Outcome {
    /// Its word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What is known of one agent's runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Runs that succeeded and are not kept one by one any more.
    successes: u64,
    /// What all runs cost that are not kept one by one any more.
    cost_pico_usd: Pico,
    runs: VecDeque<Run>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    run: String,
    outcome: Outcome,
    cost_pico_usd: Pico,
}

impl Told {
    /// Cost of all runs for each that succeeded; none while none has.
    pub fn cost_per_success(&self) -> Option<Pico> {
        let succeeded = |run: &&Run| run.outcome == Outcome::Success;
        let recent = u64::try_from(self.runs.iter().filter(succeeded).count()).ok()?;
        let cost = self.runs.iter().fold(self.cost_pico_usd.0, |sum, run| {
            sum.saturating_add(run.cost_pico_usd.0)
        });
        cost.checked_div(self.successes.saturating_add(recent)).map(Pico)
    }

    /// What there is to say when the last runs cost more, and succeed less, than those before them.
    fn falls(&self) -> Option<String> {
        let kept = self.runs.len();
        let (before, last) = (kept.checked_sub(LAST)?, LAST);
        if before < LAST {
            return None;
        }
        let sum = |from: usize, count: usize| {
            let runs = self.runs.iter().skip(from).take(count);
            runs.fold((0_u128, 0_u128), |(cost, succeeded), run| {
                let success = u128::from(run.outcome == Outcome::Success);
                (cost + u128::from(run.cost_pico_usd.0), succeeded + success)
            })
        };
        let ((old_cost, old_success), (new_cost, new_success)) = (sum(0, before), sum(before, last));
        let (before, last) = (before as u128, last as u128);
        // Half again as expensive each, and at most half as often a success.
        let dearer = new_cost * before * 2 >= old_cost * last * 3 && new_cost > 0;
        let worse = old_success > 0 && new_success * before * 2 <= old_success * last;
        let each = |cost: u128, runs: u128| Pico(u64::try_from(cost / runs.max(1)).unwrap_or(u64::MAX));
        (dearer && worse).then(|| {
            format!(
                "{new_success} of the last {last} runs succeeded, at {} each; of the {before} before them {old_success}, \
                 at {} each",
                each(new_cost, last),
                each(old_cost, before)
            )
        })
    }

    fn tell(&mut self, told: Run) {
        if let Some(known) = self.runs.iter_mut().find(|known| known.run == told.run) {
            *known = told;
            return;
        }
        if self.runs.len() == RUNS
            && let Some(oldest) = self.runs.pop_front()
        {
            self.successes += u64::from(oldest.outcome == Outcome::Success);
            self.cost_pico_usd = Pico(self.cost_pico_usd.0.saturating_add(oldest.cost_pico_usd.0));
        }
        self.runs.push_back(told);
    }
}

/// What is known of every agent's runs, and where it is kept.
#[derive(Debug)]
pub struct Outcomes {
    file: PathBuf,
    agents: Mutex<BTreeMap<String, Told>>,
}

impl Outcomes {
    /// What was told before the daemon stopped.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join(FILE);
        let agents = read(&file, "repair it, or remove it to begin anew")?;
        Ok(Self {
            file,
            agents: Mutex::new(agents),
        })
    }

    /// Takes a run's outcome, in the place of an earlier one, and gives the agent's cost per success.
    ///
    /// # Errors
    /// It cannot be written to disk; then it is not taken.
    pub fn tell(
        &self,
        agent: &Arc<str>,
        run: &str,
        outcome: Outcome,
        cost: Pico,
    ) -> io::Result<Option<Pico>> {
        let mut agents = self.lock();
        let mut changed = agents.clone();
        let told = changed.entry(agent.to_string()).or_default();
        told.tell(Run {
            run: run.to_owned(),
            outcome,
            cost_pico_usd: cost,
        });
        let per_success = told.cost_per_success();
        replace(&self.file, &serde_json::to_vec(&changed)?)?;
        *agents = changed;
        Ok(per_success)
    }

    /// What there is to say of an agent whose last runs cost more, and succeed less, than those before them.
    pub fn falls(&self, agent: &str) -> Option<String> {
        self.lock().get(agent)?.falls()
    }

    /// The cost per success of every agent that has one.
    pub fn per_success(&self) -> Vec<(String, Pico)> {
        let agents = self.lock();
        let known = agents
            .iter()
            .filter_map(|(agent, told)| Some((agent.clone(), told.cost_per_success()?)));
        known.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_part_of_what_a_success_costs_and_a_restart_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let agent: Arc<str> = "coder".into();
        let outcomes = Outcomes::open(dir.path()).unwrap();
        let tell = |run, outcome, cost| outcomes.tell(&agent, run, outcome, Pico(cost)).unwrap();
        assert_eq!(tell("a", Outcome::Failure, 30), None);
        assert_eq!(tell("b", Outcome::Success, 10), Some(Pico(40)));
        assert_eq!(tell("c", Outcome::Success, 20), Some(Pico(30)));
        assert_eq!(
            tell("a", Outcome::Success, 30),
            Some(Pico(20)),
            "corrected, not counted twice"
        );
        let again = Outcomes::open(dir.path()).unwrap();
        assert_eq!(again.per_success(), [("coder".to_owned(), Pico(20))]);
        for n in 0..1_000 {
            again
                .tell(&agent, &format!("r{n}"), Outcome::Success, Pico(20))
                .unwrap();
        }
        assert_eq!(again.per_success(), [("coder".to_owned(), Pico(20))]);
        assert_eq!(again.lock()["coder"].runs.len(), RUNS);
        std::fs::write(dir.path().join(FILE), "[]").unwrap();
        assert!(Outcomes::open(dir.path()).is_err());
    }

    #[test]
    fn runs_that_cost_more_and_succeed_less_than_before_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let agent: Arc<str> = "coder".into();
        let outcomes = Outcomes::open(dir.path()).unwrap();
        let tell = |run: u32, outcome, cost| {
            let run = format!("r{run}");
            let _cost = outcomes.tell(&agent, &run, outcome, Pico(cost)).unwrap();
            outcomes.falls("coder")
        };
        for run in 0..20 {
            assert_eq!(tell(run, Outcome::Success, 10), None, "as ever");
        }
        for run in 20..24 {
            assert_eq!(tell(run, Outcome::Failure, 10), None, "no dearer");
        }
        assert_eq!(tell(24, Outcome::Failure, 30), None, "one alone");
        let said = tell(25, Outcome::Failure, 30).unwrap();
        assert!(said.starts_with("2 of the last 8 runs succeeded"), "{said}");
        assert_eq!(outcomes.falls("other"), None);
    }
}
