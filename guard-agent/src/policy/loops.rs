//! Multipliers: does this call go on with something that goes in circles, grows, bursts or fails?
//!
//! In: the last part of the conversation, what is known of its run, the agent's levels. Out: [`Reading`]s, and how far
//! each has come. On failure: none; what is not known is not counted.
//!
//! A reading is a count; the agent's levels say what follows: a note in the record, an alert, or a refusal that speaks to
//! the model and to the human. Counting begins anew when the user speaks, so that a person is heard after a trip.

use crate::config::{Agent, Levels, LoopRule};
use crate::policy::quoted;
use crate::refusal::{Reason, Refusal};

mod turns;

pub(crate) use turns::readings;

/// What a rule counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The rule.
    pub(crate) rule: LoopRule,
    /// How many.
    pub(crate) count: u32,
    /// Of these, certain enough to refuse a call for.
    pub(crate) firm: u32,
    /// The tool that it is about.
    pub(crate) tool: Option<Box<str>>,
}

/// How far a reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// Noted.
    Observe,
    /// Worth an alert.
    Warn,
    /// To be refused.
    Trip,
}

impl Reading {
    /// A reading without doubt, about no tool.
    pub(crate) fn of(rule: LoopRule, count: u32) -> Self {
        Self {
            rule,
            count,
            firm: count,
            tool: None,
        }
    }

    /// How far it has come by these levels.
    pub(crate) fn level(&self, levels: Levels) -> Option<Level> {
        let reached = |level: Option<u32>, count: u32| level.is_some_and(|level| count >= level);
        if reached(levels.trip, self.firm) {
            Some(Level::Trip)
        } else if reached(levels.warn, self.count) || reached(levels.trip, self.count) {
            Some(Level::Warn)
        } else if reached(levels.observe, self.count) {
            Some(Level::Observe)
        } else {
            None
        }
    }

    /// Percent of the way to the trip (or, without one, to the warning).
    pub(crate) fn score(&self, levels: Levels) -> u32 {
        let end = levels.trip.or(levels.warn).or(levels.observe);
        end.map_or(0, |end| self.count.saturating_mul(100) / end.max(1))
    }

    /// What happened, in a clause.
    fn what(&self, agent: &Agent) -> String {
        let count = self.count;
        let tool = quoted(self.tool.as_deref().unwrap_or_default());
        match self.rule {
            LoopRule::Repeat => format!(
                "the tool {tool} was called {count} times with the same arguments and gave the same result each time"
            ),
            LoopRule::Similar => format!(
                "the tool {tool} was called {count} times with nearly the same arguments and gave the same result each \
                 time"
            ),
            LoopRule::Poll => format!("the tool {tool} was called {count} times with the same arguments"),
            LoopRule::Alternate => format!(
                "the same few tool calls ({tool} among them) went round {count} times with the same results"
            ),
            LoopRule::Errors => format!("every tool call failed in {count} replies in a row ({tool} last)"),
            LoopRule::Growth => format!(
                "the conversation grew by about {count} tokens with each of the last {} calls",
                agent.loops.growth_turns
            ),
            LoopRule::CacheMisses => {
                format!("{count} large calls in a row read nothing from the prompt cache")
            }
            LoopRule::Parallel => format!("{count} calls of this run are made at the same time"),
            LoopRule::Failures => format!("the provider failed {count} calls of this run in a row"),
        }
    }

    /// What the model should do instead.
    fn advice(&self) -> &'static str {
        match self.rule {
            LoopRule::Repeat | LoopRule::Similar | LoopRule::Alternate => {
                "Do not make this call again: use what it gave, try another way, or tell the user what is missing and \
                 stop."
            }
            LoopRule::Poll => {
                "Do not ask again: tell the user what you are waiting for and stop, or wait outside of the \
                 conversation."
            }
            LoopRule::Errors => {
                "Do not try again in the same way: read what the errors say, or tell the user what does not work and \
                 stop."
            }
            LoopRule::Growth => {
                "Begin a new conversation with a summary of this one, and put less into each turn (parts of files, \
                 shorter outputs)."
            }
            LoopRule::CacheMisses => {
                "The beginning of the conversation changes from call to call, so all of it is paid for anew: keep it \
                 the same."
            }
            LoopRule::Parallel => "Wait until other calls have ended; start fewer sub-agents at once.",
            LoopRule::Failures => {
                "Do not try again now: tell the user that the provider fails. One call a minute is let through to \
                 see whether it is back."
            }
        }
    }

    /// For the agent's owner.
    pub(crate) fn alert(&self, agent: &Agent, run: &str, level: Level) -> String {
        let done = match level {
            Level::Trip => "; its calls are refused",
            Level::Warn | Level::Observe => "",
        };
        format!(
            "loops.{}: in run {run} of agent {:?}, {}{done}",
            self.rule.key(),
            agent.name,
            self.what(agent)
        )
    }

    /// For the model, before it is refused.
    pub(crate) fn note(&self, agent: &Agent) -> String {
        format!(
            "[Notice from the operator of this host: {}. {}]",
            self.what(agent),
            self.advice()
        )
    }

    /// For the model and the human behind it.
    pub(crate) fn refusal(&self, agent: &Agent) -> Refusal {
        let (name, key) = (&agent.name, self.rule.key());
        let again = match self.rule {
            LoopRule::Parallel | LoopRule::Failures => "",
            _ => " A new message of the user is let through.",
        };
        let limit = agent.loops.of(self.rule).trip.unwrap_or_default();
        Refusal::new(
            Reason::Loop,
            format!(
                "Guard stopped this call: {}. {}{again} To allow more, the operator raises loops.{key} (now {limit}) \
                 of [[agent]] {name:?} in guard.toml.",
                self.what(agent),
                self.advice(),
            ),
        )
    }
}

#[cfg(test)]
mod tests;
