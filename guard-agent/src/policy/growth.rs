//! A stream that takes more than was reserved for it: more is reserved, in every budget that it is in, or it ends.
//!
//! In: what the reply has taken so far. Out: how much the reservation holds now. On failure: the refusal with which the
//! stream is ended; the same one meets the client when it tries the same conversation again without streaming.
//!
//! The output cap is reserved in full, so a stream outgrows its reservation only where the provider does not keep to it,
//! where the price table's word on the model's longest reply is too low, or where the provider reads more than was sent
//! (pictures). What has passed when that shows is booked all the same.

use crate::ledger::{Amounts, Reservation, ReserveError};
use crate::llm::Seen;
use crate::money::Pico;
use crate::policy::budget::WorstCase;
use crate::policy::covers::Payer;
use crate::policy::money;
use crate::refusal::{Reason, Refusal};

/// Least that is added at a time, in tokens of output: some seconds of a stream.
const LEAST: u64 = 256;
/// Most that is added at a time.
const MOST: u64 = 8192;

/// How a reservation can grow.
pub(crate) struct Growth {
    payer: Payer,
    room: Seen,
    /// Tokens of output that are added at a time.
    step: u64,
    input_rate: Pico,
    output_rate: Pico,
    /// What the model reads at a time, at most.
    window: u64,
    /// What has passed and could not be reserved.
    pub(crate) beyond: Amounts,
    /// Why it could not.
    pub(crate) refused: Option<Refusal>,
}

impl Growth {
    pub(super) fn new(payer: Payer, worst: &WorstCase) -> Self {
        Self {
            payer,
            room: Seen {
                input: worst.input_bound,
                output: worst.output_bound,
            },
            step: (worst.output_bound / 4).clamp(LEAST, MOST),
            input_rate: worst.input_rate,
            output_rate: worst.output_rate,
            window: worst.window,
            beyond: Amounts::ZERO,
            refused: None,
        }
    }

    /// What the reservation holds.
    pub(crate) fn room(&self) -> Seen {
        self.room
    }

    /// What the model reads at a time, at most, in tokens.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Reserves for what has been seen, and for a while longer.
    ///
    /// # Errors
    /// A limit stands in the way, or nothing can be reserved at present.
    pub(crate) fn extend(&mut self, reservation: &mut Reservation, seen: Seen) -> Result<Seen, Refusal> {
        let beyond = Seen {
            input: seen.input.saturating_sub(self.room.input),
            output: seen.output.saturating_sub(self.room.output),
        };
        let wanted = Seen {
            input: beyond.input,
            output: match beyond.output {
                0 => 0,
                some => some.saturating_add(self.step),
            },
        };
        let extended = match self.payer.charges() {
            Some(charges) => reservation
                .extend(self.cost(wanted), &charges)
                .map_err(|why| self.refusal(why)),
            None => Err(Refusal::new(
                Reason::Unidentified,
                "This agent is no longer in the configuration, so nothing more is reserved for it.",
            )),
        };
        match extended {
            Ok(()) => {
                self.room.input = self.room.input.saturating_add(wanted.input);
                self.room.output = self.room.output.saturating_add(wanted.output);
                Ok(self.room)
            }
            Err(refusal) => {
                self.beyond = self.cost(beyond);
                self.refused = Some(refusal.clone());
                Err(refusal)
            }
        }
    }

    fn cost(&self, tokens: Seen) -> Amounts {
        let of = |rate: Pico, count| rate.checked_mul(count).unwrap_or(Pico(u64::MAX)).0;
        let usd = of(self.input_rate, tokens.input).saturating_add(of(self.output_rate, tokens.output));
        Amounts {
            usd: Pico(usd),
            tokens: tokens.input.saturating_add(tokens.output),
            calls: 0,
        }
    }

    fn refusal(&self, why: ReserveError) -> Refusal {
        let refusal = money::refusal(&self.payer.agent, why);
        Refusal {
            message: format!(
                "This reply grew beyond what was reserved for it, and was ended here. {}",
                refusal.message
            ),
            ..refusal
        }
    }
}
