//! How long the conversation of a realtime socket may be by now.
//!
//! In: what both sides say. Out: tokens that the next response reads, at most. On failure: there is none.
//!
//! What a response that ran to its end says that it read and made takes the place of what was guessed. One that was cut off,
//! or that was given something else to read, says nothing of the rest.

use crate::llm::socket::context::Context;

#[derive(Debug, Default)]
pub(super) struct Length {
    context: Context,
    /// Tokens that the response under way has made, at most.
    making: u64,
    /// Tokens of the session's own instructions and tools, at most.
    instructed: u64,
    /// A response had instructions or tools of its own, so that it did not read the session's.
    overridden: bool,
    /// A response was given what it reads, so that the length of one says nothing of the conversation's.
    selective: bool,
}

impl Length {
    /// So many tokens were added, at most.
    pub(super) fn add(&mut self, tokens: u64) {
        self.context.add(tokens);
    }

    /// Something was added of which nobody knows how long it is.
    pub(super) fn add_unseen(&mut self) {
        self.context.add_unseen();
    }

    /// The session has got so many tokens of instructions, at most.
    pub(super) fn instruct(&mut self, tokens: u64) {
        self.context.add(tokens);
        self.instructed = self.instructed.saturating_add(tokens);
    }

    /// A response was asked for that reads what it is given, or has instructions of its own.
    pub(super) fn asked(&mut self, selects: bool, overrides: bool) {
        self.selective |= selects;
        self.overridden |= overrides;
    }

    /// The response under way has made so many tokens, at most.
    pub(super) fn made(&mut self, tokens: u64) {
        self.making = self.making.saturating_add(tokens);
    }

    /// A response of the conversation has ended; what it read and made, if it ran to its end.
    pub(super) fn ended(&mut self, total: Option<u64>) {
        let made = std::mem::take(&mut self.making);
        match total {
            Some(total) if !self.selective => {
                let unread = if self.overridden { self.instructed } else { 0 };
                self.context.ended(Some(total.saturating_add(unread)));
            }
            told => {
                self.context.at_least(told.unwrap_or(0));
                self.context.add(made);
            }
        }
    }

    /// What the next response reads, at most.
    pub(super) fn bound(&self) -> u64 {
        self.context.bound()
    }
}
