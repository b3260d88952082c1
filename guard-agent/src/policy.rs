//! Decides: `&Call` to `Permit` or `Refusal`.

pub mod budget;
