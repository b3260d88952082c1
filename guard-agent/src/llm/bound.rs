//! What a call takes at most, where its body shows that in another way than by its length.
//!
//! A provider bills such a call by tokens or by something that it can count, as its price list says; which of the two is
//! not in the body. So both are stated, and the dearer one that has a price is reserved (`policy::budget`).

use serde::Serialize;

use crate::llm::prices::ModelPrice;
use crate::llm::{Unit, Units, Usage};

/// The most that one call can be billed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bound {
    /// Tokens that it reads.
    pub input: u64,
    /// Tokens that it writes.
    pub output: u64,
    /// Things that may be billed instead of tokens; where there are several, one of them is.
    pub units: Units,
    /// Of these, what the request itself shows and no reply counts: characters that are to be spoken, images that are sent.
    #[serde(skip_serializing_if = "Units::is_empty")]
    pub sent: Units,
}

impl Bound {
    /// What a call is billed for whose reply told this, at this price.
    pub fn counted(&self, told: Option<Usage>, price: Option<&ModelPrice>) -> Option<Usage> {
        match told {
            // What the reply counts comes beside what was sent.
            Some(mut usage) if usage.by_number => {
                let sent = self.sent.get(Unit::Image);
                let made = usage.units.get(Unit::Image);
                usage.units.set(Unit::Image, made.checked_add(sent)?);
                Some(usage)
            }
            Some(usage) => Some(usage),
            // A text that was spoken is billed by its characters, where that is its price.
            None => {
                let characters = self.sent.get(Unit::Character);
                let priced = price.is_some_and(|price| price.fee(Unit::Character).is_some());
                (characters > 0 && priced).then(|| Usage::of_units(Unit::Character, characters))
            }
        }
    }
}
