//! How much a conversation that lives at the provider may hold by now.
//!
//! In: what the client has said, and what the provider says that a response read and made. Out: tokens that the next
//! response reads at most. On failure: what is not known counts as more than any model reads.

/// The conversation on one socket.
#[derive(Debug, Default)]
pub(crate) struct Context {
    /// What it held when the last response ended, at most.
    known: u64,
    /// What was added since.
    added: u64,
}

impl Context {
    /// So many tokens were added, at most.
    pub(crate) fn add(&mut self, tokens: u64) {
        self.added = self.added.saturating_add(tokens);
    }

    /// Something was added of which nobody knows how long it is.
    pub(crate) fn add_unseen(&mut self) {
        self.known = u64::MAX;
    }

    /// A response has ended, which read all of it, and read and made so much. What was said since the one before may or may
    /// not be in it.
    pub(crate) fn ended(&mut self, total: Option<u64>) {
        self.known = total.map_or(u64::MAX, |total| total.saturating_add(self.added));
        self.added = 0;
    }

    /// A response has ended, which read some of it, and read and made so much.
    pub(crate) fn at_least(&mut self, total: u64) {
        self.known = self.known.max(total);
    }

    /// What the next response reads, at most.
    pub(crate) fn bound(&self) -> u64 {
        self.known.saturating_add(self.added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_response_read_and_made_takes_the_place_of_what_was_guessed_before() {
        let mut context = Context::default();
        context.add(1_000);
        assert_eq!(context.bound(), 1_000);
        context.ended(Some(300));
        assert_eq!(context.bound(), 1_300, "what was said last may not be in it yet");
        context.add(50);
        context.ended(Some(500));
        assert_eq!(context.bound(), 550);
        context.at_least(20);
        assert_eq!(
            context.bound(),
            550,
            "one that read less says nothing of the rest"
        );
        context.at_least(600);
        assert_eq!(context.bound(), 600);
        context.ended(None);
        assert_eq!(context.bound(), u64::MAX);
        context.ended(Some(7));
        context.add_unseen();
        assert_eq!(context.bound(), u64::MAX);
    }
}
