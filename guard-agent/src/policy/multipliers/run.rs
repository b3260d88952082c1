//! One run: its conversations, its calls at this moment, the failures of its providers, its money.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cuts::Cuts;
use super::thread::Thread;
use super::{Asked, Gauges, Outcome, Reached, thread_of};
use crate::config::{Agent, LoopRule};
use crate::ledger::Cause;
use crate::money::Pico;
use crate::policy::loops::{Level, Reading};
use crate::policy::retries::Bodies;

/// Conversations of one run that are remembered.
const THREADS: usize = 64;
/// Providers of one run whose failures are remembered.
const PROVIDERS: usize = 64;
/// How often a call is let through to see whether a provider is back.
const PROBE: Duration = Duration::from_secs(60);

/// After this time without a refused retry, the next one is worth an alert again.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// What a run has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunTotals {
    /// Whose run it is.
    pub agent: Arc<str>,
    /// Settled since the daemon started.
    pub cost: Pico,
    /// Of this, wasted.
    pub wasted: Pico,
}

/// The state of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) agent: Arc<str>,
    pub(super) since: Instant,
    used: Instant,
    in_flight: u32,
    threads: HashMap<u64, Thread>,
    pub(super) bodies: Bodies,
    failures: HashMap<String, Streak>,
    pub(super) cuts: Cuts,
    /// When a retry was refused last.
    refused_retry: Option<Instant>,
    /// What was said of the run as a whole.
    told: Vec<(LoopRule, Level)>,
    cost: Pico,
    wasted: Pico,
}

/// Failures of one provider in a row.
#[derive(Debug, Default)]
struct Streak {
    count: u32,
    probed: Option<Instant>,
}

impl Run {
    pub(super) fn new(agent: Arc<str>, now: Instant) -> Self {
        Self {
            agent,
            since: now,
            used: now,
            in_flight: 0,
            threads: HashMap::new(),
            bodies: Bodies::default(),
            failures: HashMap::new(),
            cuts: Cuts::default(),
            refused_retry: None,
            told: Vec::new(),
            cost: Pico::ZERO,
            wasted: Pico::ZERO,
        }
    }

    pub(super) fn used(&self) -> Instant {
        self.used
    }

    pub(super) fn is_idle(&self, now: Instant, after: Duration) -> bool {
        self.in_flight == 0 && now.saturating_duration_since(self.used) >= after
    }

    pub(super) fn totals(&self) -> RunTotals {
        RunTotals {
            agent: self.agent.clone(),
            cost: self.cost,
            wasted: self.wasted,
        }
    }

    pub(super) fn gauges(&self, now: Instant, current: Duration) -> Gauges {
        let live = self
            .threads
            .values()
            .filter(|thread| now.saturating_duration_since(thread.used) < current);
        live.fold(Gauges::default(), |most, thread| Gauges {
            loop_score: most.loop_score.max(thread.score),
            growth: most.growth.max(thread.growth),
        })
    }

    /// Counts a call in. Gives its conversation and the rules that have come somewhere.
    pub(super) fn enter(&mut self, asked: &Asked<'_>) -> (u64, Vec<Reached>) {
        self.used = asked.now;
        self.in_flight = self.in_flight.saturating_add(1);
        let (agent, name) = (asked.agent, thread_of(&asked.facts.conversation));
        self.make_room(name);
        let thread = self.threads.entry(name).or_insert_with(|| Thread::new(asked.now));
        let (found, spoke) = thread.enter(agent, &asked.facts.conversation, asked.now);
        let mut reached = Vec::new();
        let mut score = 0;
        for reading in found {
            score = score.max(reading.score(agent.loops.of(reading.rule)));
            reached.extend(reach(agent, reading, &mut thread.told));
        }
        let failures = self.failing(asked.provider, agent, spoke, asked.now);
        let parallel = Reading::of(LoopRule::Parallel, self.in_flight);
        for reading in [parallel, failures] {
            score = score.max(reading.score(agent.loops.of(reading.rule)));
            reached.extend(reach(agent, reading, &mut self.told));
        }
        if let Some(thread) = self.threads.get_mut(&name) {
            thread.score = score;
        }
        (name, reached)
    }

    /// Failures in a row; none for the one call a minute that sees whether the provider is back, and for one that the
    /// user asks for.
    fn failing(&mut self, provider: &str, agent: &Agent, spoke: bool, now: Instant) -> Reading {
        let count = match self.failures.get_mut(provider) {
            None => 0,
            Some(streak) => {
                let tripped = agent.loops.of(LoopRule::Failures).trip;
                let tripped = tripped.is_some_and(|trip| streak.count >= trip);
                let due = streak
                    .probed
                    .is_none_or(|last| now.saturating_duration_since(last) >= PROBE);
                if tripped && (due || spoke) {
                    streak.probed = Some(now);
                    0
                } else {
                    streak.count
                }
            }
        };
        Reading::of(LoopRule::Failures, count)
    }

    /// A retry is refused; whether it is the first for a while.
    pub(super) fn retries_refused(&mut self, now: Instant) -> bool {
        let last = self.refused_retry.replace(now);
        last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET)
    }

    fn make_room(&mut self, name: u64) {
        if self.threads.len() >= THREADS && !self.threads.contains_key(&name) {
            let oldest = self.threads.iter().min_by_key(|(_, thread)| thread.used);
            if let Some(oldest) = oldest.map(|(name, _)| *name) {
                self.threads.remove(&oldest);
            }
        }
    }

    /// A call that was counted in was refused.
    pub(super) fn refused(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call has ended.
    pub(super) fn left(
        &mut self,
        thread: u64,
        provider: &str,
        body_bytes: u64,
        outcome: &Outcome,
        cause: Cause,
    ) {
        self.used = outcome.now;
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 {
            self.told.retain(|(rule, _)| *rule != LoopRule::Parallel);
        }
        self.cost = add(self.cost, outcome.cost);
        if cause != Cause::Useful {
            self.wasted = add(self.wasted, outcome.cost);
        }
        if outcome.failed {
            self.failed(provider, outcome.cost > Pico::ZERO, outcome.now);
            return;
        }
        if !outcome.client_gone {
            self.failures.remove(provider);
            self.told.retain(|(rule, _)| *rule != LoopRule::Failures);
        }
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.left(outcome.usage.as_ref(), body_bytes, outcome.now);
        }
    }

    fn failed(&mut self, provider: &str, paid: bool, now: Instant) {
        if self.failures.len() >= PROVIDERS && !self.failures.contains_key(provider) {
            return;
        }
        let streak = self.failures.entry(provider.to_owned()).or_default();
        streak.count = streak.count.saturating_add(if paid { 2 } else { 1 });
        // The next one to see whether it is back comes a minute after a failure, not with the next call.
        streak.probed = Some(now);
    }
}

/// What a reading means by the agent's levels; `told` is what was said before.
fn reach(agent: &Agent, reading: Reading, told: &mut Vec<(LoopRule, Level)>) -> Option<Reached> {
    let level = reading.level(agent.loops.of(reading.rule))?;
    let first = !told.contains(&(reading.rule, level));
    if first {
        told.push((reading.rule, level));
    }
    Some(Reached {
        reading,
        level,
        first,
    })
}

fn add(a: Pico, b: Pico) -> Pico {
    a.checked_add(b).unwrap_or(Pico(u64::MAX))
}
