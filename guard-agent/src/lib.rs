//! Guard: a host network firewall for LLM agents.
//!
//! The modules below stand in the order in which one call meets them; `proxy` is the whole path in two
//! functions. `ARCHITECTURE.md` has the picture.

// --- shared vocabulary -------------------------------------------------------
pub mod clock;
pub mod identity;
pub mod money;
pub mod refusal;
pub mod report;

// --- the path ----------------------------------------------------------------
pub mod proxy;

pub mod kernel;

pub mod accept;

pub mod identify;

pub mod share;

pub mod peek;

pub mod route;

pub mod passthrough;

pub mod dns;

pub mod tls;

pub mod http;

pub mod call;

pub mod llm;

pub mod policy;

pub mod keys;

pub mod forward;

pub mod meter;

pub mod socket;

pub mod ledger;

pub mod record;

pub mod audit;

// --- around the path ---------------------------------------------------------
pub mod keeper;

pub mod seam;

pub mod sandbox;

pub mod app;

pub mod admin;

pub mod alert;

pub mod cli;

pub mod config;

pub mod drain;

pub mod telemetry;
