//! Decides: `&Call` to `Permit` or `Refusal`.
