//! What `top` remembers between two looks: enough for rates, and the refusals that it met. Pure: no clock, no terminal.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::admin::{AgentStatus, BudgetStatus, LastRefusal, Status};
use crate::ledger::{Amount, Unit};

/// Rates are over this long: short enough to show a fire, long enough for one call not to look like one.
const OVER: SignedDuration = SignedDuration::from_mins(1);
/// Refusals that are remembered.
const REFUSALS: usize = 200;

/// A budget: scope, name, window and unit.
type Key = (String, String, String, Unit);

/// An agent's counters at one moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Timestamp,
    calls: u64,
    refusals: u64,
    /// Settled, by budget.
    settled: HashMap<Key, u64>,
}

/// A refusal that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) agent: String,
    pub(super) last: LastRefusal,
    /// How many more came between the looks and were not met themselves.
    pub(super) unseen: u64,
}

/// Under this name, which no agent can have, stand the budgets that agents share.
pub(super) const SHARED: &str = "";

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) status: Option<Status>,
    /// Why the daemon does not answer, since it does not.
    pub(super) trouble: Option<String>,
    pub(super) refused: VecDeque<Refused>,
    samples: HashMap<String, VecDeque<Sample>>,
}

impl History {
    /// Takes a new picture in.
    pub(super) fn take(&mut self, status: Status, now: Timestamp) {
        let restarted = self
            .status
            .as_ref()
            .is_some_and(|before| before.started_at != status.started_at);
        if restarted {
            // Counters of calls begin anew with the daemon.
            self.samples.clear();
        }
        self.samples
            .retain(|name, _| name == SHARED || status.agents.iter().any(|agent| &agent.name == name));
        for agent in &status.agents {
            let samples = self.samples.entry(agent.name.clone()).or_default();
            if let Some(last) = &agent.last_refusal {
                let before = samples.back().map(|sample| sample.refusals);
                note(&mut self.refused, agent, last, before);
            }
            push(samples, sample(agent.calls, agent.refusals, &agent.budgets, now));
        }
        let shared = self.samples.entry(SHARED.to_owned()).or_default();
        push(shared, sample(0, 0, &status.shared, now));
        self.trouble = None;
        self.status = Some(status);
    }

    /// The daemon did not answer.
    pub(super) fn lost(&mut self, why: &str) {
        self.trouble = Some(why.to_owned());
    }

    /// Calls in a minute.
    pub(super) fn calls_per_minute(&self, agent: &str) -> Option<u64> {
        let (first, last, millis) = self.span(agent)?;
        per(last.calls.saturating_sub(first.calls), 60_000, millis)
    }

    /// What is used in an hour, at the rate of the last minute.
    pub(super) fn per_hour(&self, agent: &str, budget: &BudgetStatus) -> Option<Amount> {
        let (first, last, millis) = self.span(agent)?;
        let key = key(budget);
        let (before, now) = (first.settled.get(&key)?, last.settled.get(&key)?);
        // A window that began anew has less than before: its rate is not known yet.
        let used = now.checked_sub(*before)?;
        per(used, 3_600_000, millis).map(|count| budget.amount(count))
    }

    /// When a budget will be gone at that rate; none when it holds until its window ends.
    pub(super) fn gone_in(
        &self,
        agent: &str,
        budget: &BudgetStatus,
        now: Timestamp,
    ) -> Option<SignedDuration> {
        let rate = self.per_hour(agent, budget)?.count;
        let used = budget.settled.saturating_add(budget.reserved);
        let left = u128::from(budget.limit.saturating_sub(used));
        let seconds = (left * 3600).checked_div(u128::from(rate))?;
        let gone = SignedDuration::from_secs(i64::try_from(seconds).ok()?);
        let holds = budget.resets_at.is_some_and(|at| at.duration_since(now) <= gone);
        (!holds).then_some(gone)
    }

    fn span(&self, agent: &str) -> Option<(&Sample, &Sample, u64)> {
        let samples = self.samples.get(agent)?;
        let (first, last) = (samples.front()?, samples.back()?);
        let millis = u64::try_from(last.at.duration_since(first.at).as_millis()).ok()?;
        (millis > 0).then_some((first, last, millis))
    }
}

fn key(budget: &BudgetStatus) -> Key {
    (
        budget.scope.clone(),
        budget.name.clone(),
        budget.window.clone(),
        budget.unit,
    )
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample) {
    let now = sample.at;
    samples.push_back(sample);
    // The oldest one kept is the last that is older than the span, so that the span is covered.
    while samples
        .get(1)
        .is_some_and(|second| now.duration_since(second.at) >= OVER)
    {
        samples.pop_front();
    }
}

fn sample(calls: u64, refusals: u64, budgets: &[BudgetStatus], at: Timestamp) -> Sample {
    Sample {
        at,
        calls,
        refusals,
        settled: budgets
            .iter()
            .map(|budget| (key(budget), budget.settled))
            .collect(),
    }
}

/// Puts a refusal in front, unless it is known.
fn note(refused: &mut VecDeque<Refused>, agent: &AgentStatus, last: &LastRefusal, before: Option<u64>) {
    let known = refused
        .iter()
        .any(|known| known.agent == agent.name && known.last == *last);
    if known {
        return;
    }
    let met = before.map_or(1, |before| agent.refusals.saturating_sub(before));
    refused.push_front(Refused {
        agent: agent.name.clone(),
        last: last.clone(),
        unseen: met.saturating_sub(1),
    });
    refused.truncate(REFUSALS);
}

/// `amount` in `millis`, scaled to `unit` milliseconds.
fn per(amount: u64, unit: u64, millis: u64) -> Option<u64> {
    let scaled = (u128::from(amount) * u128::from(unit)).checked_div(u128::from(millis))?;
    u64::try_from(scaled).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::money::Pico;

    pub(in crate::cli::top) fn at(second: u32) -> Timestamp {
        Timestamp::from_second(1_795_000_000 + i64::from(second)).unwrap()
    }

    fn usd(text: &str) -> u64 {
        Pico::from_usd_text(text).unwrap().0
    }

    pub(in crate::cli::top) fn picture(calls: u64, settled: &str, refusal: Option<(u64, &str)>) -> Status {
        Status {
            version: "0.1.0".into(),
            mode: "enforce".into(),
            enforcing: true,
            not_ready: None,
            started_at: at(0),
            configured_at: at(0),
            agents: vec![AgentStatus {
                name: "coder".into(),
                owner: "team".into(),
                runs: 1,
                calls,
                refusals: refusal.map_or(0, |(count, _)| count),
                in_flight: 0,
                last_refusal: refusal.map(|(count, message)| LastRefusal {
                    at: at(u32::try_from(count).unwrap()),
                    reason: "model_denied".into(),
                    message: message.into(),
                }),
                budgets: vec![BudgetStatus {
                    scope: "agent".into(),
                    name: "coder".into(),
                    window: "day".into(),
                    unit: Unit::Usd,
                    limit: usd("20"),
                    soft: Some(usd("16")),
                    settled: usd(settled),
                    reserved: 0,
                    resets_at: Some(at(36_000)),
                }],
                grants: Vec::new(),
            }],
            shared: Vec::new(),
        }
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let mut history = History::default();
        history.take(picture(0, "0", None), at(0));
        assert_eq!(history.calls_per_minute("coder"), None, "one look is no rate");
        // A call each second for a minute, then a call each ten seconds.
        for second in 1..=60 {
            history.take(picture(second, "1", None), at(u32::try_from(second).unwrap()));
        }
        assert_eq!(history.calls_per_minute("coder"), Some(60));
        for step in 1..=6 {
            history.take(
                picture(60 + step, "2", None),
                at(60 + 10 * u32::try_from(step).unwrap()),
            );
        }
        assert_eq!(history.calls_per_minute("coder"), Some(6));
    }

    #[test]
    fn a_budget_is_gone_when_the_rate_has_eaten_it_or_holds_until_its_reset() {
        let mut history = History::default();
        history.take(picture(0, "10", None), at(0));
        history.take(picture(1, "11", None), at(60));
        let now = history.status.clone().unwrap();
        let budget = &now.agents[0].budgets[0];
        assert_eq!(history.per_hour("coder", budget), Some(budget.amount(usd("60"))));
        // Nine dollars at one a minute.
        let gone = history.gone_in("coder", budget, at(60)).unwrap();
        assert_eq!(gone, SignedDuration::from_mins(9));
        let soon = BudgetStatus {
            resets_at: Some(at(300)),
            ..budget.clone()
        };
        assert_eq!(history.gone_in("coder", &soon, at(60)), None);
    }

    #[test]
    fn a_new_window_or_a_new_daemon_has_no_rate_of_the_old_one() {
        let mut history = History::default();
        history.take(picture(100, "10", None), at(0));
        history.take(picture(101, "0.5", None), at(60));
        let now = history.status.clone().unwrap();
        assert_eq!(history.per_hour("coder", &now.agents[0].budgets[0]), None);
        let mut restarted = picture(0, "0.5", None);
        restarted.started_at = at(61);
        history.take(restarted, at(62));
        assert_eq!(history.calls_per_minute("coder"), None);
    }

    #[test]
    fn each_refusal_is_shown_once_and_those_between_two_looks_are_counted() {
        let mut history = History::default();
        history.take(picture(0, "0", None), at(0));
        history.take(picture(1, "0", Some((1, "no"))), at(1));
        history.take(picture(1, "0", Some((1, "no"))), at(2));
        history.take(picture(4, "0", Some((4, "no again"))), at(3));
        let unseen: Vec<u64> = history.refused.iter().map(|refused| refused.unseen).collect();
        assert_eq!(unseen, [2, 0]);
        for count in 5..1000 {
            history.take(picture(count, "0", Some((count, "no"))), at(4));
        }
        assert_eq!(history.refused.len(), REFUSALS);
    }
}
