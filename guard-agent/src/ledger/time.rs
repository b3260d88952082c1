//! The ledger's time: the wall clock, held back when it runs ahead of the time that has passed.
//!
//! In: the wall clock and the time since the machine was started. Out: a time that no step forwards of the wall clock
//! moves ahead by itself. On failure: a machine that does not say how long it has been running is believed.
//!
//! A clock that jumps ahead would end windows early, and with them open budgets that are used up. A jump is believed
//! when the kernel says that the clock is synchronised (an NTP client made it), or when the operator says so (`reload`).
//! Until then the ledger's time goes on at the pace of the boot clock. A clock that steps back is followed at once: no
//! window opens again by that (`book/periods.rs`), nor when it comes back to where it was. Between two boots of the machine nothing tells how much time passed;
//! there the wall clock is believed.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::clock::SharedClock;

/// How far the wall clock may run ahead of the boot clock before that is a jump (microseconds), from one look to
/// another a minute later. Clocks that are adjusted slowly stay far below.
const AHEAD: i64 = 2_000_000;
const LOOK: i64 = 60_000_000;

/// A time and the boot clock at that time, both in microseconds.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    time: i64,
    ticks: i64,
}

pub(super) struct Time {
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    anchor: Option<Anchor>,
    /// By how much the wall clock is held back, in microseconds.
    held: i64,
}

impl Time {
    /// `known`: the ledger's time at a moment of the boot clock, from an earlier process of this boot.
    pub(super) fn new(clock: SharedClock, known: Option<(i64, i64)>) -> Self {
        let anchor = known.map(|(time, ticks)| Anchor { time, ticks });
        Self {
            clock,
            state: Mutex::new(State { anchor, held: 0 }),
        }
    }

    /// The boot clock in microseconds; zero when it is not known.
    pub(super) fn ticks(&self) -> i64 {
        let since = self.clock.since_boot();
        since
            .and_then(|since| i64::try_from(since.as_micros()).ok())
            .unwrap_or(0)
    }

    pub(super) fn now(&self) -> Timestamp {
        let wall = self.clock.now();
        let (at, ticks) = (wall.as_microsecond(), self.ticks());
        if ticks == 0 {
            return wall;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let here = Anchor { time: at, ticks };
        let Some(anchor) = state.anchor else {
            state.anchor = Some(here);
            return wall;
        };
        let passed = ticks.saturating_sub(anchor.ticks);
        let expected = anchor.time.saturating_add(passed);
        let ahead = at.saturating_sub(expected);
        if ahead <= AHEAD {
            let close = ahead >= -AHEAD;
            // Not at every look: a clock that runs a little ahead each time would never be seen. One that stepped back
            // may come back, unless somebody vouches for the step.
            if (close && passed >= LOOK) || (!close && self.clock.is_synchronised()) {
                state.anchor = Some(here);
            }
            state.let_go("has come back to");
            return wall;
        }
        if self.clock.is_synchronised() {
            state.anchor = Some(here);
            state.let_go("is synchronised, and ahead of");
            return wall;
        }
        if state.held == 0 {
            tracing::warn!(
                seconds = ahead / 1_000_000,
                "the wall clock jumped ahead, and nothing vouches for it: budgets go by the time that passed; \
                 `guard-agent reload` makes them follow the clock"
            );
        }
        state.held = ahead;
        Timestamp::from_microsecond(expected).unwrap_or(wall)
    }

    /// By how much the wall clock is ahead of the ledger's time; none when it is followed.
    pub(super) fn held(&self) -> Option<SignedDuration> {
        self.now();
        let held = self.state.lock().unwrap_or_else(PoisonError::into_inner).held;
        (held != 0).then_some(SignedDuration::from_micros(held))
    }

    /// The operator says that the wall clock is right.
    pub(super) fn believe(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.anchor = None;
        state.let_go("is believed, and was ahead of");
    }
}

impl State {
    fn let_go(&mut self, how: &str) {
        if self.held != 0 {
            tracing::info!("the wall clock {how} the time that passed: budgets follow it");
            self.held = 0;
        }
    }
}
