//! Retries: is this the same request once more, and has it been tried often enough?
//!
//! In: the body's fingerprint, what the client says of itself, how earlier attempts ended. Out: whether it is a retry.
//! On failure: a transient refusal for too many in a minute, a final one for too many of one body.
//!
//! The same body after a success is no retry: scripts ask the same thing again, and are answered.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::call::Fingerprint;
use crate::config::Agent;
use crate::refusal::{Reason, Refusal};

/// How long an attempt is remembered.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// Bodies of one run that are remembered.
const BODIES: usize = 256;
/// A minute.
const MINUTE: Duration = Duration::from_secs(60);

/// How the last attempt at a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is still under way, or went well.
    Well,
    /// The provider failed, or the client left.
    Failed,
    /// Guard refused it.
    Refused,
}

/// The attempts at one body.
#[derive(Debug, Clone, Copy)]
struct Attempts {
    failed: u32,
    paid: bool,
    last: Ended,
    seen: Instant,
}

/// The bodies of one run.
#[derive(Debug, Default)]
pub(crate) struct Bodies(HashMap<Fingerprint, Attempts>);

/// What an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// It repeats one that failed, by its body or by the client's word.
    pub(crate) retry: bool,
    /// An attempt at this body was paid for already.
    pub(crate) paid: bool,
    /// Failed attempts at this body.
    pub(crate) failed: u32,
}

impl Bodies {
    /// Looks an attempt up, and remembers that it was made.
    pub(crate) fn attempt(&mut self, body: Fingerprint, claimed: u32, now: Instant) -> Attempt {
        self.0
            .retain(|_, attempts| now.saturating_duration_since(attempts.seen) < REMEMBERED);
        if self.0.len() >= BODIES
            && !self.0.contains_key(&body)
            && let Some(oldest) = self.0.iter().min_by_key(|(_, attempts)| attempts.seen)
        {
            let oldest = *oldest.0;
            self.0.remove(&oldest);
        }
        let attempts = self.0.entry(body).or_insert(Attempts {
            failed: 0,
            paid: false,
            last: Ended::Well,
            seen: now,
        });
        attempts.seen = now;
        Attempt {
            retry: claimed > 0 || attempts.last != Ended::Well,
            paid: attempts.paid,
            failed: attempts.failed,
        }
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, body: Fingerprint, how: Ended, paid: bool) {
        if let Some(attempts) = self.0.get_mut(&body) {
            attempts.last = how;
            attempts.paid |= paid;
            match how {
                Ended::Well => {
                    attempts.failed = 0;
                    attempts.paid = false;
                }
                Ended::Failed => attempts.failed = attempts.failed.saturating_add(1),
                Ended::Refused => {}
            }
        }
    }
}

/// Retries of an agent in the last minute.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<Instant>);

impl Recent {
    /// Lets a retry through, or not. A refused one does not count, so that waiting helps.
    ///
    /// # Errors
    /// `RetryBody`, final; `RetryRate`, transient.
    pub(crate) fn enter(&mut self, agent: &Agent, attempt: Attempt, now: Instant) -> Result<(), Refusal> {
        if !attempt.retry {
            return Ok(());
        }
        if attempt.failed > agent.retries.per_body {
            return Err(too_often(agent, attempt.failed));
        }
        while self
            .0
            .front()
            .is_some_and(|first| now.saturating_duration_since(*first) >= MINUTE)
        {
            self.0.pop_front();
        }
        let limit = usize::try_from(agent.retries.per_minute).unwrap_or(usize::MAX);
        match self.0.front() {
            Some(first) if self.0.len() >= limit => {
                let wait = MINUTE.saturating_sub(now.saturating_duration_since(*first));
                Err(too_fast(agent, wait.as_secs().max(1)))
            }
            Some(_) | None => {
                self.0.push_back(now);
                Ok(())
            }
        }
    }
}

fn too_often(agent: &Agent, failed: u32) -> Refusal {
    let (name, limit) = (&agent.name, agent.retries.per_body);
    Refusal::new(
        Reason::RetryBody,
        format!(
            "This same request has failed {failed} times, and agent {name:?} may repeat a request {limit} times. Do \
             not send it again: change the request, or tell the user that the provider does not answer it. It is let \
             through again when none came for ten minutes; to allow more, the operator raises retries.per_body of \
             [[agent]] {name:?} in guard.toml."
        ),
    )
}

fn too_fast(agent: &Agent, wait: u64) -> Refusal {
    let (name, limit) = (&agent.name, agent.retries.per_minute);
    let mut refusal = Refusal::new(
        Reason::RetryRate,
        format!(
            "Agent {name:?} may retry {limit} times a minute and has done so. Wait {wait} s before the next retry; to \
             allow more, the operator raises retries.per_minute of [[agent]] {name:?} in guard.toml."
        ),
    );
    refusal.retry_after = u32::try_from(wait).ok();
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::agent;

    fn body(n: u32) -> Fingerprint {
        Fingerprint::of(&n.to_be_bytes())
    }

    #[test]
    fn the_same_body_is_a_retry_only_after_a_failure() {
        let (mut bodies, now) = (Bodies::default(), Instant::now());
        assert!(!bodies.attempt(body(1), 0, now).retry);
        bodies.ended(body(1), Ended::Well, true);
        let again = bodies.attempt(body(1), 0, now);
        assert!(!again.retry && !again.paid);
        bodies.ended(body(1), Ended::Failed, true);
        let again = bodies.attempt(body(1), 0, now);
        assert_eq!((again.retry, again.paid, again.failed), (true, true, 1));
        assert!(!bodies.attempt(body(2), 0, now).retry);
        assert!(bodies.attempt(body(3), 1, now).retry, "the client says so");
        assert!(!bodies.attempt(body(1), 0, now + REMEMBERED).retry, "forgotten");
    }

    #[test]
    fn a_body_is_tried_as_often_as_allowed_and_then_refused_for_good() {
        let agent = agent("providers = [\"openai\"]\nretries = { per_body = 3 }");
        let (mut bodies, mut recent, now) = (Bodies::default(), Recent::default(), Instant::now());
        let mut passed = 0;
        let refusal = loop {
            let attempt = bodies.attempt(body(1), 0, now);
            match recent.enter(&agent, attempt, now) {
                Ok(()) => passed += 1,
                Err(refusal) => break refusal,
            }
            bodies.ended(body(1), Ended::Failed, false);
        };
        assert_eq!((passed, refusal.reason), (4, Reason::RetryBody));
        assert!(refusal.message.contains("failed 4 times"), "{}", refusal.message);
    }

    #[test]
    fn retries_of_a_minute_are_bounded_and_waiting_helps() {
        let agent = agent("providers = [\"openai\"]\nretries = { per_minute = 2 }");
        let (mut recent, now) = (Recent::default(), Instant::now());
        let attempt = Attempt {
            retry: true,
            paid: false,
            failed: 1,
        };
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(
            recent.enter(&agent, attempt, at(0)).is_ok() && recent.enter(&agent, attempt, at(10)).is_ok()
        );
        let no = recent.enter(&agent, attempt, at(50)).unwrap_err();
        assert_eq!((no.reason, no.retry_after), (Reason::RetryRate, Some(10)));
        let first = Attempt {
            retry: false,
            ..attempt
        };
        assert!(
            recent.enter(&agent, first, at(50)).is_ok(),
            "what is no retry passes"
        );
        assert!(recent.enter(&agent, attempt, at(60)).is_ok());
    }

    #[test]
    fn a_flood_of_bodies_is_bounded() {
        let (mut bodies, now) = (Bodies::default(), Instant::now());
        for n in 0..10_000 {
            bodies.attempt(body(n), 0, now + Duration::from_millis(n.into()));
        }
        assert_eq!(bodies.0.len(), BODIES);
    }
}
