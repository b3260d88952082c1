//! Rate: requests and tokens in any minute.
//!
//! In: the agent's caps and the estimate of a call. Out: a place in the minute, corrected when the call has ended. On
//! failure: a transient refusal that says when there is room.

use std::time::{Duration, Instant};

use crate::config::Agent;
use crate::llm::RequestFacts;
use crate::refusal::{Reason, Refusal};

/// A minute, in seconds.
const MINUTE: usize = 60;
/// Bytes of a body for one token of the estimate, as common tokenizers have it for English text.
const BYTES_PER_TOKEN: u64 = 4;

/// The last minute of an agent, second by second.
#[derive(Debug)]
pub(crate) struct Minute {
    since: Instant,
    seconds: [Second; MINUTE],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    requests: u64,
    tokens: u64,
}

/// Where the estimate of a call is booked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Booked {
    second: u64,
    tokens: u64,
}

impl Minute {
    /// A minute in which nothing happened.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            seconds: [Second::default(); MINUTE],
        }
    }

    /// Books a call, unless a cap is reached.
    ///
    /// # Errors
    /// `RateRequests`, `RateTokens`; both transient.
    pub(crate) fn enter(&mut self, agent: &Agent, tokens: u64, now: Instant) -> Result<Booked, Refusal> {
        let second = now.saturating_duration_since(self.since).as_secs();
        if let Some(limit) = agent.caps.requests_per_minute {
            self.room(second, u64::from(limit), 1, |second| second.requests)
                .map_err(|wait| refusal(agent, Reason::RateRequests, u64::from(limit), wait))?;
        }
        if let Some(limit) = agent.caps.tokens_per_minute {
            // A call that is larger than the whole cap passes when nothing else does.
            self.room(second, limit, tokens.min(limit), |second| second.tokens)
                .map_err(|wait| refusal(agent, Reason::RateTokens, limit, wait))?;
        }
        if let Some(place) = self.place(second) {
            if place.number != second {
                *place = Second {
                    number: second,
                    ..Second::default()
                };
            }
            place.requests = place.requests.saturating_add(1);
            place.tokens = place.tokens.saturating_add(tokens);
        }
        Ok(Booked { second, tokens })
    }

    /// Puts the truth in the place of an estimate.
    pub(crate) fn correct(&mut self, booked: Booked, tokens: u64) {
        if let Some(place) = self.place(booked.second)
            && place.number == booked.second
        {
            place.tokens = place.tokens.saturating_sub(booked.tokens).saturating_add(tokens);
        }
    }

    fn place(&mut self, second: u64) -> Option<&mut Second> {
        let at = usize::try_from(second % MINUTE as u64).ok()?;
        self.seconds.get_mut(at)
    }

    /// Whether `more` fits; if not, the seconds until it does.
    fn room(&self, now: u64, limit: u64, more: u64, of: fn(&Second) -> u64) -> Result<(), u64> {
        let mut live: Vec<&Second> = self
            .seconds
            .iter()
            .filter(|second| second.number + MINUTE as u64 > now && of(second) > 0)
            .collect();
        live.sort_unstable_by_key(|second| second.number);
        let mut used = live
            .iter()
            .fold(0_u64, |sum, second| sum.saturating_add(of(second)));
        let fits = |used: u64| used.saturating_add(more) <= limit;
        if fits(used) {
            return Ok(());
        }
        for second in live {
            used = used.saturating_sub(of(second));
            if fits(used) {
                return Err((second.number + MINUTE as u64).saturating_sub(now).max(1));
            }
        }
        Err(MINUTE as u64)
    }
}

/// Tokens of a call before it is made: an estimate of the input, and the whole output cap.
/// An upload is no text: what its kind bounds counts, and not its bytes.
pub(crate) fn estimate(facts: &RequestFacts, body_bytes: u64, output: u64) -> u64 {
    if let Some(bound) = facts.bound {
        return (bound.input / BYTES_PER_TOKEN).saturating_add(bound.output);
    }
    (body_bytes / BYTES_PER_TOKEN).saturating_add(output.saturating_mul(facts.choices.max(1)))
}

fn refusal(agent: &Agent, reason: Reason, limit: u64, wait: u64) -> Refusal {
    let name = &agent.name;
    let (what, key) = match reason {
        Reason::RateTokens => ("tokens", "caps.tokens_per_minute"),
        _ => ("calls", "caps.requests_per_minute"),
    };
    let mut refusal = Refusal::new(
        reason,
        format!(
            "Agent {name:?} may use {limit} {what} a minute, and there is no room for this call for about {} s. Wait \
             that long and send it again; to allow more, the operator raises {key} of [[agent]] {name:?} in \
             guard.toml.",
            Duration::from_secs(wait).as_secs()
        ),
    );
    refusal.retry_after = u32::try_from(wait).ok();
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::agent;
    use proptest::prelude::*;

    fn capped(lines: &str) -> std::sync::Arc<Agent> {
        agent(&format!("providers = [\"openai\"]\ncaps = {{ {lines} }}"))
    }

    #[test]
    fn one_call_too_many_waits_until_the_first_is_a_minute_old() {
        let (agent, start) = (capped("requests_per_minute = 2"), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut minute = Minute::new(start);
        minute.enter(&agent, 0, at(0)).unwrap();
        minute.enter(&agent, 0, at(50)).unwrap();
        let no = minute.enter(&agent, 0, at(55)).unwrap_err();
        assert_eq!((no.reason, no.retry_after), (Reason::RateRequests, Some(5)));
        minute.enter(&agent, 0, at(60)).unwrap();
        assert_eq!(minute.enter(&agent, 0, at(61)).unwrap_err().retry_after, Some(49));
    }

    #[test]
    fn an_upload_is_estimated_by_what_it_can_take_and_not_by_its_bytes() {
        let upload = RequestFacts {
            bound: Some(crate::llm::Bound {
                input: 4_000,
                output: 500,
                ..crate::llm::Bound::default()
            }),
            choices: 1,
            ..RequestFacts::default()
        };
        assert_eq!(estimate(&upload, 25_000_000, 8_000), 1_500);
        let text = RequestFacts {
            bound: None,
            ..upload
        };
        assert_eq!(estimate(&text, 4_000, 500), 1_500);
    }

    #[test]
    fn an_estimate_is_held_until_the_truth_takes_its_place() {
        let (agent, start) = (capped("tokens_per_minute = 1000"), Instant::now());
        let mut minute = Minute::new(start);
        let booked = minute.enter(&agent, 900, start).unwrap();
        assert_eq!(
            minute.enter(&agent, 200, start).unwrap_err().reason,
            Reason::RateTokens
        );
        minute.correct(booked, 100);
        minute.enter(&agent, 900, start).unwrap();
        // More than was thought counts too; what is a minute old does not.
        let mut minute = Minute::new(start);
        let booked = minute.enter(&agent, 10, start).unwrap();
        minute.correct(booked, 5_000);
        assert!(minute.enter(&agent, 10, start + Duration::from_secs(59)).is_err());
        assert!(
            minute
                .enter(&agent, 5_000, start + Duration::from_secs(60))
                .is_ok()
        );
        minute.correct(booked, 0);
    }

    proptest! {
        /// Whatever the times, no sixty seconds hold more calls than the cap.
        #[test]
        fn no_minute_holds_more_than_the_cap(limit in 1..20_u64, gaps in prop::collection::vec(0..9_u64, 1..200)) {
            let agent = capped(&format!("requests_per_minute = {limit}"));
            let start = Instant::now();
            let (mut minute, mut now, mut passed) = (Minute::new(start), 0, Vec::new());
            for gap in gaps {
                now += gap;
                if minute.enter(&agent, 1, start + Duration::from_secs(now)).is_ok() {
                    passed.push(now);
                }
                let held = passed.iter().filter(|at| **at + 60 > now).count() as u64;
                prop_assert!(held <= limit);
            }
        }
    }
}
