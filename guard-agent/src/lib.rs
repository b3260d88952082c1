//! Guard: a host network firewall for LLM agents.
//!
//! The modules below stand in the order in which one call meets them; `proxy` is the whole path in two
//! functions. `ARCHITECTURE.md` has the picture.

// --- shared vocabulary -------------------------------------------------------
pub mod clock;
pub mod identity;
pub mod money;
pub mod refusal;

// --- the path ----------------------------------------------------------------
pub mod kernel;

pub mod llm;

pub mod policy;

pub mod keys;

pub mod ledger;

pub mod audit;

// --- around the path ---------------------------------------------------------
pub mod config;

pub mod telemetry;

pub mod admin;
