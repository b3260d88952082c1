//! Replies of one run that were ended because their budget was used up: the client's own second attempt, without
//! streaming, is refused as the first one was.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Asked, Fingerprint};
use crate::refusal::Refusal;

/// Cut replies of one run that are remembered.
const CUTS: usize = 16;
/// How long; a client's second attempt comes at once.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// Where a conversation stands: the same for a request that only asks to be answered in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The conversation, who spoke last in it, and how long it is.
    At(u64, u64, u32, usize),
    /// Of a request that does not show its conversation: its whole body.
    Body(Fingerprint),
}

impl Place {
    pub(super) fn of(asked: &Asked<'_>) -> Self {
        let shown = &asked.facts.conversation;
        match shown.thread.filter(|_| !shown.partial) {
            Some(thread) => Self::At(thread, shown.user, shown.turns, shown.steps.len()),
            None => Self::Body(asked.body),
        }
    }
}

/// The cut replies of a run.
#[derive(Debug, Default)]
pub(super) struct Cuts(VecDeque<(Place, Instant, Refusal)>);

impl Cuts {
    /// A reply was ended with this refusal, which holds at most until `until`.
    pub(super) fn remember(&mut self, place: Place, refusal: Refusal, now: Instant, until: Option<Duration>) {
        let kept = until.map_or(KEPT, |until| until.min(KEPT));
        self.0.retain(|(known, ..)| *known != place);
        if self.0.len() >= CUTS {
            self.0.pop_front();
        }
        self.0.push_back((place, now + kept, refusal));
    }

    /// Why a request at this place is refused, if it is.
    pub(super) fn refusal(&self, place: Place, now: Instant) -> Option<Refusal> {
        let found = self
            .0
            .iter()
            .find(|(known, until, _)| *known == place && now < *until);
        found.map(|(_, _, refusal)| Refusal {
            message: format!(
                "This request was answered already, as far as its budget went. {} A changed request is judged anew.",
                refusal.message
            ),
            ..refusal.clone()
        })
    }

    /// More is allowed now.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}
