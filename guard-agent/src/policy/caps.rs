//! Caps: how many tokens may this call bring forth, and how many calls may be in flight?
//!
//! In: the agent's caps, what the request asks for, what the model can do. Out: the number of output tokens to reserve
//! for, and the edit that makes it true. On failure: a refusal that says which cap to send.

use std::time::Duration;

use crate::config::Agent;
use crate::llm::RequestFacts;
use crate::refusal::{Reason, Refusal};

/// Seconds after which a call that found the agent busy may be tried again: calls last seconds to minutes, and clients
/// give up on longer waits (`DESIGN` §4 allows at most 20).
const BUSY_RETRY_SECONDS: u32 = 5;

/// Calls in flight of one agent, whatever its own cap: a quarter of the places in the audit log, so that one agent's slow
/// streams can't keep the others' calls from being recorded, and so from being made.
const IN_FLIGHT: u32 = 1024;

/// The output cap in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputCap {
    /// Output tokens that the call can produce at most, for each choice (`n`).
    pub tokens: u64,
    /// Set the body's cap to this value; `None` leaves the body alone.
    pub rewrite: Option<u64>,
}

/// Finds the output cap. `model_max` is the most that the model can produce, where that is known; `untouchable` bodies
/// are admitted or refused as they are.
///
/// # Errors
/// `OutputCap`: the cap cannot be brought down without breaking the request, or nothing bounds the output.
pub fn output(
    agent: &Agent,
    facts: &RequestFacts,
    model_max: Option<u64>,
    untouchable: bool,
) -> Result<OutputCap, Refusal> {
    let unchanged = |tokens| OutputCap {
        tokens,
        rewrite: None,
    };
    let Some(agent_cap) = agent.caps.output_tokens else {
        // What the client names is reserved in full, even above what the model is said to do: that table may be old.
        return facts
            .output_cap
            .or(model_max)
            .map(unchanged)
            .ok_or_else(|| unbounded(agent, facts));
    };
    let bound = model_max.map_or(agent_cap, |most| most.min(agent_cap));
    match (facts.output_cap, model_max) {
        (Some(sent), _) if sent <= agent_cap => return Ok(unchanged(sent)),
        (None, Some(most)) if most <= agent_cap => return Ok(unchanged(most)),
        (Some(_) | None, _) => {}
    }
    if untouchable {
        return Err(refused(
            agent,
            agent_cap,
            "the body carries a checksum, so Guard may not lower it",
        ));
    }
    // Anthropic wants max_tokens above thinking.budget_tokens; at or below it, the lowered request would only fail there.
    if facts.thinking_budget.is_some_and(|thinking| bound <= thinking) {
        return Err(refused(
            agent,
            agent_cap,
            "the request's thinking budget does not fit below it",
        ));
    }
    Ok(OutputCap {
        tokens: bound,
        rewrite: Some(bound),
    })
}

/// What a request can bring forth when nothing is changed in it.
pub(super) fn as_sent(facts: &RequestFacts, model_max: u64) -> OutputCap {
    OutputCap {
        tokens: facts.output_cap.unwrap_or(model_max),
        rewrite: None,
    }
}

/// Whether a body of this many bytes may be sent.
///
/// # Errors
/// `InputCap`.
pub fn input(agent: &Agent, body_bytes: u64) -> Result<(), Refusal> {
    let name = &agent.name;
    match agent.caps.input_bytes {
        Some(limit) if body_bytes > limit => Err(Refusal::new(
            Reason::InputCap,
            format!(
                "This request has {body_bytes} bytes, and agent {name:?} may send {limit}. Send less (begin a new \
                 conversation with a summary of this one); to allow more, the operator raises caps.input_bytes of \
                 [[agent]] {name:?} in guard.toml."
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Whether a run that has lasted so long may go on.
///
/// # Errors
/// `RunTimeout`.
pub fn run_timeout(agent: &Agent, run: &str, lasted: Duration) -> Result<(), Refusal> {
    let name = &agent.name;
    match agent.caps.run_timeout {
        Some(limit) if lasted >= limit => Err(Refusal::new(
            Reason::RunTimeout,
            format!(
                "Run {run} of agent {name:?} began {} s ago, and its runs may last {} s. Nothing more is let through \
                 in this run: tell the user what is done and what is not; a new run begins anew. To allow more, the \
                 operator raises caps.run_timeout of [[agent]] {name:?} in guard.toml.",
                lasted.as_secs(),
                limit.as_secs()
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

fn refused(agent: &Agent, cap: u64, why: &str) -> Refusal {
    let name = &agent.name;
    Refusal::new(
        Reason::OutputCap,
        format!(
            "Agent {name:?} may ask for at most {cap} output tokens a call, and {why}. Send max_tokens (and any \
             thinking budget) of at most {cap}; to allow more, the operator raises caps.output_tokens of [[agent]] \
             {name:?} in guard.toml."
        ),
    )
}

fn unbounded(agent: &Agent, facts: &RequestFacts) -> Refusal {
    let name = &agent.name;
    Refusal::new(
        Reason::OutputCap,
        format!(
            "Nothing bounds the output of this call to {}, so its cost cannot be reserved. Send max_tokens, or the \
             operator sets caps.output_tokens of [[agent]] {name:?} in guard.toml.",
            super::quoted(&facts.model),
        ),
    )
}

/// Whether one more call may start while `running` calls of the agent are in flight.
///
/// # Errors
/// `InFlight`, with the seconds to wait.
pub fn in_flight(agent: &Agent, running: u32) -> Result<(), Refusal> {
    let limit = agent.caps.in_flight.unwrap_or(IN_FLIGHT).min(IN_FLIGHT);
    if running < limit {
        return Ok(());
    }
    let name = &agent.name;
    let message = format!(
        "Agent {name:?} has {limit} calls in flight, which is its limit. Retry when one has ended; to allow more, the \
         operator raises caps.in_flight of [[agent]] {name:?} in guard.toml."
    );
    Err(Refusal {
        retry_after: Some(BUSY_RETRY_SECONDS),
        ..Refusal::new(Reason::InFlight, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::agent;

    fn facts(output_cap: Option<u64>, thinking_budget: Option<u64>) -> RequestFacts {
        RequestFacts {
            output_cap,
            thinking_budget,
            choices: 1,
            ..RequestFacts::default()
        }
    }

    /// Client's cap, thinking budget, model's maximum, untouchable → tokens and rewrite, or refused.
    type Row = (
        Option<u64>,
        Option<u64>,
        Option<u64>,
        bool,
        Option<(u64, Option<u64>)>,
    );

    fn check(config: &str, rows: &[Row]) {
        let agent = agent(&format!("providers = [\"openai\"]\n{config}"));
        for row in rows {
            let (sent, thinking, most, untouchable, wanted) = *row;
            let said = output(&agent, &facts(sent, thinking), most, untouchable);
            let said = said.map(|cap| (cap.tokens, cap.rewrite)).map_err(|no| no.reason);
            assert_eq!(said, wanted.ok_or(Reason::OutputCap), "{row:?}");
        }
    }

    #[test]
    fn without_a_cap_of_the_agent_the_client_s_or_the_model_s_is_reserved_as_sent() {
        check(
            "",
            &[
                (Some(100), None, Some(4096), false, Some((100, None))),
                (Some(9999), None, Some(4096), false, Some((9999, None))),
                (None, None, Some(4096), false, Some((4096, None))),
                (None, None, Some(4096), true, Some((4096, None))),
                (None, None, None, false, None),
            ],
        );
    }

    #[test]
    fn the_agent_s_cap_clamps() {
        check(
            "caps = { output_tokens = 1000 }",
            &[
                (Some(100), None, Some(4096), false, Some((100, None))),
                (Some(1000), None, Some(4096), true, Some((1000, None))),
                (Some(1001), None, Some(4096), false, Some((1000, Some(1000)))),
                (None, None, Some(4096), false, Some((1000, Some(1000)))),
                (None, None, None, false, Some((1000, Some(1000)))),
                // The model cannot pass the agent's cap anyway: nothing to rewrite.
                (None, None, Some(500), true, Some((500, None))),
                (Some(2000), None, Some(500), false, Some((500, Some(500)))),
            ],
        );
    }

    #[test]
    fn a_body_that_may_not_be_touched_is_refused_rather_than_rewritten() {
        check(
            "caps = { output_tokens = 1000 }",
            &[
                (Some(1001), None, Some(4096), true, None),
                (None, None, Some(4096), true, None),
                (None, None, None, true, None),
            ],
        );
    }

    #[test]
    fn the_cap_is_never_set_at_or_below_the_thinking_budget() {
        check(
            "caps = { output_tokens = 1000 }",
            &[
                (Some(5000), Some(999), Some(4096), false, Some((1000, Some(1000)))),
                (Some(5000), Some(1000), Some(4096), false, None),
                (Some(5000), Some(4000), Some(4096), false, None),
                (Some(900), Some(800), Some(4096), false, Some((900, None))),
            ],
        );
    }

    #[test]
    fn calls_in_flight_stop_at_the_limit() {
        let limited = agent("providers = [\"openai\"]\ncaps = { in_flight = 2 }");
        assert!(in_flight(&limited, 1).is_ok());
        let no = in_flight(&limited, 2).unwrap_err();
        assert_eq!((no.reason, no.retry_after), (Reason::InFlight, Some(5)));
        let free = agent("providers = [\"openai\"]");
        assert!(in_flight(&free, IN_FLIGHT - 1).is_ok() && in_flight(&free, IN_FLIGHT).is_err());
    }
}
