//! What is known of each run beyond one call: its conversations, its retries, its failures, what it has cost.
//!
//! In: a call that passed the checks before, and how it ended. Out: readings for the loop rules, the verdict of retry and
//! rate limits, and for a settled call whether its money did something. On failure: none; a run that is forgotten begins
//! anew.
//!
//! One short lock a call, none a byte. Runs, conversations and bodies are bounded in number and age, whatever clients
//! send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::call::Fingerprint;
use crate::config::{Agent, LoopRule};
use crate::ledger::Cause;
use crate::llm::conversation::Conversation;
use crate::llm::{RequestFacts, Usage};
use crate::money::Pico;
use crate::policy::loops::{Level, Reading};
use crate::policy::rate::{Booked, Minute};
use crate::policy::retries::{Attempt, Ended, Recent};
use crate::refusal::Refusal;

mod cuts;
mod run;
mod thread;

use cuts::Place;
use run::Run;
pub use run::RunTotals;

/// Runs that are remembered.
const RUNS: usize = 4096;
/// How long a run is remembered after its last call.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// How old a call may be to count for the gauges.
const CURRENT: Duration = Duration::from_secs(10 * 60);

/// The memory of the loop, retry and rate rules; outlives a reload.
#[derive(Debug, Default)]
pub struct Multipliers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    runs: HashMap<Arc<str>, Run>,
    agents: HashMap<Arc<str>, Host>,
    swept: Option<Instant>,
}

/// What is counted for an agent over all its runs.
#[derive(Debug, Default)]
struct Host {
    retries: Recent,
    minute: Option<Minute>,
}

/// A call that is judged.
pub(crate) struct Asked<'a> {
    pub(crate) agent: &'a Arc<Agent>,
    pub(crate) run: &'a Arc<str>,
    pub(crate) provider: &'a str,
    pub(crate) facts: &'a RequestFacts,
    pub(crate) body: Fingerprint,
    pub(crate) body_bytes: u64,
    /// Retries that the client says it has made.
    pub(crate) claimed: u32,
    pub(crate) now: Instant,
}

/// What the rules say of a call.
pub(crate) struct Judged {
    /// It tries again what failed.
    pub(crate) retry: bool,
    /// The retry rules' refusal.
    pub(crate) retries: Result<(), Refusal>,
    /// The refusal with which the reply to this same request was ended a moment ago.
    pub(crate) cut: Option<Refusal>,
    /// It is the run's first one for a while.
    pub(crate) first_retry_refusal: bool,
    /// Rules that have come somewhere.
    pub(crate) reached: Vec<Reached>,
    /// Holds the call's place in its run until it has ended.
    pub(crate) watch: Watch,
}

/// A rule that has come somewhere.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    pub(crate) reading: Reading,
    pub(crate) level: Level,
    /// For the first time since the user spoke.
    pub(crate) first: bool,
}

/// One call in its run. Dropped without an outcome, the call was refused.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Multipliers>,
    agent: Arc<str>,
    run: Arc<str>,
    thread: u64,
    provider: String,
    body: Fingerprint,
    body_bytes: u64,
    place: Place,
    attempt: Attempt,
    looping: bool,
    booked: Option<Booked>,
    open: bool,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) cost: Pico,
    pub(crate) usage: Option<Usage>,
    /// The provider failed.
    pub(crate) failed: bool,
    /// The client left before the end.
    pub(crate) client_gone: bool,
    pub(crate) now: Instant,
}

/// What the gauges of an agent show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauges {
    /// Percent of the way to a trip, of the conversation that is nearest to one.
    pub loop_score: u32,
    /// Tokens that each call adds to the one before, in the conversation that grows fastest.
    pub growth: u32,
}

impl Multipliers {
    /// Reads a call against the rules, and counts it in.
    pub(crate) fn judge(self: &Arc<Self>, asked: &Asked<'_>) -> Judged {
        let mut state = self.lock();
        state.sweep(asked.now);
        let State { runs, agents, .. } = &mut *state;
        let run = runs
            .entry(asked.run.clone())
            .or_insert_with(|| Run::new(asked.agent.name.clone(), asked.now));
        let attempt = run.bodies.attempt(asked.body, asked.claimed, asked.now);
        let host = agents.entry(asked.agent.name.clone()).or_default();
        let retries = host.retries.enter(asked.agent, attempt, asked.now);
        let first_retry_refusal = retries.is_err() && run.retries_refused(asked.now);
        let place = Place::of(asked);
        let cut = run.cuts.refusal(place, asked.now);
        let (thread, reached) = run.enter(asked);
        let looping = reached
            .iter()
            .any(|reached| reached.level >= Level::Warn && is_circle(reached.reading.rule));
        Judged {
            retry: attempt.retry,
            retries,
            cut,
            first_retry_refusal,
            reached,
            watch: Watch {
                shared: Arc::clone(self),
                agent: asked.agent.name.clone(),
                run: asked.run.clone(),
                thread,
                provider: asked.provider.to_owned(),
                body: asked.body,
                body_bytes: asked.body_bytes,
                place,
                attempt,
                looping,
                booked: None,
                open: true,
            },
        }
    }

    /// When the run made its first call; now, if this is it.
    pub(crate) fn first_call(&self, agent: &Arc<str>, run: &Arc<str>, now: Instant) -> Instant {
        let mut state = self.lock();
        state.sweep(now);
        let known = state.runs.entry(run.clone());
        known.or_insert_with(|| Run::new(agent.clone(), now)).since
    }

    /// More is allowed to an agent: replies that were ended before are no reason to refuse any more.
    pub fn forget_cuts(&self, agent: &str) {
        let mut state = self.lock();
        let runs = state.runs.values_mut().filter(|run| &*run.agent == agent);
        runs.for_each(|run| run.cuts.forget());
    }

    /// What a run has come to, if it is remembered.
    pub fn totals(&self, run: &str) -> Option<RunTotals> {
        self.lock().runs.get(run).map(Run::totals)
    }

    /// What the gauges of each agent show.
    pub fn gauges(&self, now: Instant) -> HashMap<Arc<str>, Gauges> {
        let mut all: HashMap<Arc<str>, Gauges> = HashMap::new();
        for run in self.lock().runs.values() {
            let shown = all.entry(run.agent.clone()).or_default();
            let current = run.gauges(now, CURRENT);
            shown.loop_score = shown.loop_score.max(current.loop_score);
            shown.growth = shown.growth.max(current.growth);
        }
        all
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets what is old, and makes room for one more run.
    fn sweep(&mut self, now: Instant) {
        let due = self
            .swept
            .is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(60));
        if due {
            self.swept = Some(now);
            self.runs.retain(|_, run| !run.is_idle(now, IDLE));
        }
        if self.runs.len() >= RUNS {
            let oldest = self
                .runs
                .iter()
                .filter(|(_, run)| run.is_idle(now, Duration::ZERO))
                .min_by_key(|(_, run)| run.used());
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.runs.remove(&name);
            }
        }
    }
}

/// Whether a call that a rule warns of repeats what was done, so that its money is lost.
fn is_circle(rule: LoopRule) -> bool {
    match rule {
        LoopRule::Repeat | LoopRule::Similar | LoopRule::Poll | LoopRule::Alternate | LoopRule::Errors => {
            true
        }
        LoopRule::Growth | LoopRule::CacheMisses | LoopRule::Parallel | LoopRule::Failures => false,
    }
}

impl Watch {
    /// Books the call in the agent's minute.
    ///
    /// # Errors
    /// `RateRequests`, `RateTokens`; both transient.
    pub(crate) fn book(&mut self, agent: &Agent, tokens: u64, now: Instant) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let host = state.agents.entry(self.agent.clone()).or_default();
        let minute = host.minute.get_or_insert_with(|| Minute::new(now));
        self.booked = Some(minute.enter(agent, tokens, now)?);
        Ok(())
    }

    /// Its reply was ended with this refusal, which holds at most for so long.
    pub(crate) fn was_cut(&self, refusal: &Refusal, until: Option<Duration>, now: Instant) {
        let mut state = self.shared.lock();
        if let Some(run) = state.runs.get_mut(&self.run) {
            run.cuts.remember(self.place, refusal.clone(), now, until);
        }
    }

    /// What the money of the call does, if it ends so; `settle` says the same.
    pub(crate) fn cause(&self, failed: bool) -> Cause {
        if self.looping {
            Cause::Looping
        } else if self.attempt.retry && (failed || self.attempt.paid) {
            Cause::Retried
        } else if failed {
            Cause::Failed
        } else {
            Cause::Useful
        }
    }

    /// The call has ended: what did its money do?
    pub(crate) fn settle(mut self, outcome: &Outcome) -> Cause {
        self.open = false;
        let paid = outcome.cost > Pico::ZERO;
        let cause = self.cause(outcome.failed);
        let how = match outcome.failed || outcome.client_gone {
            true => Ended::Failed,
            false => Ended::Well,
        };
        let truth = outcome.usage.map_or(0, |usage| total(&usage));
        let mut state = self.shared.lock();
        if let Some(run) = state.runs.get_mut(&self.run) {
            run.bodies.ended(self.body, how, paid);
            run.left(self.thread, &self.provider, self.body_bytes, outcome, cause);
        }
        self.correct(&mut state, outcome.usage.map(|_| truth).or((!paid).then_some(0)));
        cause
    }

    /// Without a known truth the estimate stays.
    fn correct(&self, state: &mut State, tokens: Option<u64>) {
        if let (Some(booked), Some(tokens)) = (self.booked, tokens)
            && let Some(host) = state.agents.get_mut(&self.agent)
            && let Some(minute) = &mut host.minute
        {
            minute.correct(booked, tokens);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if let Some(run) = state.runs.get_mut(&self.run) {
            run.bodies.ended(self.body, Ended::Refused, false);
            run.refused();
        }
        self.correct(&mut state, Some(0));
    }
}

/// Tokens of a call, each once.
fn total(usage: &Usage) -> u64 {
    input(usage).saturating_add(usage.output)
}

/// Tokens of a call's input.
fn input(usage: &Usage) -> u64 {
    [
        usage.input,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
    ]
    .iter()
    .fold(0, |sum, part| sum.saturating_add(*part))
}

/// Which conversation of its run a request goes on with.
fn thread_of(conversation: &Conversation) -> u64 {
    conversation.thread.unwrap_or_default()
}

#[cfg(test)]
mod tests;
