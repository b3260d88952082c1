//! Baselines: says when an agent does much more than it used to.
//!
//! In: what every agent has counted so far, from time to time. Out: a sentence when the last ten minutes are far above the
//! day before (of what is known of it, an hour at least), once until they are not any more. On failure: advice; nothing
//! is said.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Agent;
use crate::money::{PICO_PER_USD, Pico};

/// How often agents are looked at.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// What is compared with the time before it.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// Less than this is known of an agent: no baseline.
const LEAST: Duration = Duration::from_secs(60 * 60);
/// Samples of one agent: a day of them.
const SAMPLES: usize = 288;
/// So many times its baseline is far above it.
const FAR: u64 = 5;
/// Money in ten minutes that is nothing to speak of.
const SMALL_SPEND: u64 = PICO_PER_USD;
/// Tool calls in ten minutes that are nothing to speak of.
const FEW_TOOLS: u64 = 100;
/// Retries in ten minutes that are nothing to speak of.
const FEW_RETRIES: u64 = 10;

/// What an agent has counted since the daemon started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) cost: Pico,
    pub(super) calls: u64,
    pub(super) retries: u64,
    pub(super) tools: u64,
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        Self {
            cost: self.cost.saturating_sub(before.cost),
            calls: self.calls.saturating_sub(before.calls),
            retries: self.retries.saturating_sub(before.retries),
            tools: self.tools.saturating_sub(before.tools),
        }
    }
}

/// What is known of agents.
#[derive(Debug, Default)]
pub(super) struct Baselines {
    looked: Option<Instant>,
    samples: HashMap<Arc<str>, VecDeque<(Instant, Counts)>>,
    told: HashSet<(Arc<str>, &'static str)>,
}

impl Baselines {
    /// Looks at the agents, when it is time. Gives the names of alerts with what there is to say.
    pub(super) fn look(
        &mut self,
        agents: &[Arc<Agent>],
        counts: impl Fn(&str) -> Counts,
        now: Instant,
    ) -> Vec<(Arc<Agent>, &'static str, String)> {
        let due = self
            .looked
            .is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if !due {
            return Vec::new();
        }
        self.looked = Some(now);
        let known = |name: &Arc<str>| agents.iter().any(|agent| agent.name == *name);
        self.samples.retain(|name, _| known(name));
        self.told.retain(|(name, _)| known(name));
        let mut said = Vec::new();
        for agent in agents {
            let samples = self.samples.entry(agent.name.clone()).or_default();
            if samples.len() == SAMPLES {
                samples.pop_front();
            }
            samples.push_back((now, counts(&agent.name)));
            for (alert, message) in readings(agent, samples, now) {
                let key = (agent.name.clone(), alert);
                match message {
                    Some(message) if self.told.insert(key.clone()) => {
                        said.push((agent.clone(), alert, message))
                    }
                    Some(_) => {}
                    None => drop(self.told.remove(&key)),
                }
            }
        }
        said
    }
}

/// Each alert, with what there is to say.
fn readings(
    agent: &Agent,
    samples: &VecDeque<(Instant, Counts)>,
    now: Instant,
) -> [(&'static str, Option<String>); 3] {
    let mut of = [
        ("spend.spike", None),
        ("tool.churn", None),
        ("retry.density", None),
    ];
    let before = samples
        .iter()
        .rev()
        .find(|(at, _)| now.saturating_duration_since(*at) >= RECENT);
    let (Some((then, before)), Some((_, last)), Some((begin, first))) =
        (before, samples.back(), samples.front())
    else {
        return of;
    };
    let [(_, spike), (_, churn), (_, density)] = &mut of;
    let (name, recent) = (&agent.name, last.since(before));
    if recent.retries > FEW_RETRIES && recent.retries.saturating_mul(2) > recent.calls {
        *density = Some(format!(
            "{} of the {} calls of agent {name:?} in the last ten minutes are retries: each is paid for again. Is a \
             provider failing, or a tool flaky?",
            recent.retries, recent.calls
        ));
    }
    let span = then.saturating_duration_since(*begin);
    if span < LEAST {
        return of;
    }
    // What the recent time would have at the rate before it.
    let usual = |count: u64| {
        let scaled = u128::from(count) * u128::from(RECENT.as_secs()) / u128::from(span.as_secs().max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    let baseline = before.since(first);
    let (cost, tools) = (usual(baseline.cost.0), usual(baseline.tools));
    if recent.cost.0 > SMALL_SPEND && recent.cost.0 > cost.saturating_mul(FAR) {
        *spike = Some(format!(
            "agent {name:?} has spent {} in the last ten minutes, and {} in ten minutes before",
            recent.cost,
            Pico(cost)
        ));
    }
    if recent.tools > FEW_TOOLS && recent.tools > tools.saturating_mul(FAR) {
        *churn = Some(format!(
            "agent {name:?} has called {} tools in the last ten minutes, and {tools} in ten minutes before; \
             `guard-agent usage --by tool --since 10m` says which",
            recent.tools
        ));
    }
    of
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::agent;

    const CENT: u64 = PICO_PER_USD / 100;

    /// Five minutes by five minutes, what is added; gives where something was said.
    fn said(steps: &[Counts]) -> Vec<(usize, &'static str)> {
        let agents = [agent("providers = [\"openai\"]")];
        let (mut baselines, start) = (Baselines::default(), Instant::now());
        let (mut sum, mut said) = (Counts::default(), Vec::new());
        for (step, more) in steps.iter().enumerate() {
            sum = Counts {
                cost: Pico(sum.cost.0 + more.cost.0),
                calls: sum.calls + more.calls,
                retries: sum.retries + more.retries,
                tools: sum.tools + more.tools,
            };
            let now = start + EVERY * u32::try_from(step).unwrap();
            let found = baselines.look(&agents, |_| sum, now);
            said.extend(found.into_iter().map(|(_, alert, _)| (step, alert)));
        }
        said
    }

    fn step(cents: u64, calls: u64, retries: u64, tools: u64) -> Counts {
        Counts {
            cost: Pico(cents * CENT),
            calls,
            retries,
            tools,
        }
    }

    #[test]
    fn five_times_the_usual_is_said_once_and_again_after_it_was_quiet() {
        // Twenty cents and twenty tools in five minutes, for two hours; then ten times as much; then quiet; then again.
        let usual = step(20, 10, 1, 20);
        let fire = step(200, 100, 10, 200);
        let steps = [vec![usual; 25], vec![fire; 3], vec![usual; 30], vec![fire; 3]].concat();
        let found = said(&steps);
        assert_eq!(
            found,
            [
                (25, "spend.spike"),
                (25, "tool.churn"),
                (59, "spend.spike"),
                (59, "tool.churn")
            ]
        );
    }

    #[test]
    fn a_steady_agent_however_busy_a_young_one_and_a_cheap_one_are_no_news() {
        assert_eq!(said(&vec![step(2000, 500, 10, 2000); 60]), []);
        assert_eq!(
            said(&[vec![step(0, 0, 0, 0); 3], vec![step(500, 100, 0, 500); 6]].concat()),
            []
        );
        assert_eq!(
            said(&[vec![step(0, 0, 0, 0); 30], vec![step(30, 9, 4, 9); 6]].concat()),
            []
        );
    }

    #[test]
    fn more_than_half_of_the_calls_being_retries_is_said_without_a_baseline() {
        let found = said(&[vec![step(1, 10, 6, 0); 4], vec![step(1, 10, 1, 0); 4]].concat());
        assert_eq!(found, [(2, "retry.density")]);
    }
}
