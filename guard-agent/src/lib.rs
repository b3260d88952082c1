//! Guard.
pub mod kernel;
