//! What a call takes at most, where its body shows that in another way than by its length.
//!
//! A provider bills such a call by tokens or by something that it can count, as its price list says; which of the two is
//! not in the body. So both are stated, and the dearer one that has a price is reserved (`policy::budget`).

use serde::Serialize;

use crate::llm::Units;

/// The most that one call can be billed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bound {
    /// Tokens that it reads.
    pub input: u64,
    /// Tokens that it writes.
    pub output: u64,
    /// Things that may be billed instead of tokens; where there are several, one of them is.
    pub units: Units,
}
