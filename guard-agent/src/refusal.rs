//! A refusal: one object for every "no", from which each dialect makes its own error shape.
//!
//! What is said here is read by a model and by a person: it names what happened, which limit, and what to do
//! next. Nothing internal and no other agent's name appears in it.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::ledger::Amount;

/// Why a call was refused. The label is a metric label and part of the audit record; the code is what clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A hard budget limit is reached.
    BudgetExceeded,
    /// The budget is full only of calls in flight; a retry may pass.
    BudgetReserved,
    /// This one call's worst case is larger than the whole limit.
    CallTooLarge,
    /// The provider is not on the agent's list.
    ProviderDenied,
    /// The model is not on the agent's list.
    ModelDenied,
    /// The endpoint is neither inference nor a model list, and is not on the agent's list.
    EndpointDenied,
    /// A declared tool is not on the agent's list.
    ToolDenied,
    /// The caller presented a real provider key, or a placeholder that is not its own.
    KeyDenied,
    /// Guard holds no key for this provider.
    KeyMissing,
    /// The requested output cap is above the agent's.
    OutputCap,
    /// The price of this model is not known.
    Unpriced,
    /// The request could not be read as this endpoint's format.
    Malformed,
    /// The request body is larger than Guard reads.
    BodyTooLarge,
    /// The request body's encoding is not one Guard can read.
    UnsupportedEncoding,
    /// The request's authority is not the name of the TLS connection.
    AuthorityMismatch,
    /// An upgrade where Guard reads none, or the agent may have none: the client is told to use plain HTTPS.
    UpgradeRequired,
    /// Too many requests in flight for this agent.
    InFlight,
    /// The agent or the run is frozen.
    Frozen,
    /// The request's body is above the agent's cap.
    InputCap,
    /// The run has lasted longer than the agent's runs may.
    RunTimeout,
    /// The conversation goes in circles, grows, bursts or fails beyond the agent's levels.
    Loop,
    /// This same request has failed too often.
    RetryBody,
    /// Too many retries in a minute.
    RetryRate,
    /// Too many calls in a minute.
    RateRequests,
    /// Too many tokens in a minute.
    RateTokens,
    /// The caller could not be identified.
    Unidentified,
    /// The provider could not be reached or its certificate did not verify.
    Upstream,
    /// Guard could not record the call (journal or audit), so it may not happen.
    NotRecordable,
    /// Guard is being stopped or restarted, and the reply did not end in time.
    Stopping,
    /// A fault of Guard's own.
    Internal,
}

impl Reason {
    /// Metric label and audit value.
    pub fn label(self) -> &'static str {
        match self {
            Self::BudgetExceeded => "budget_exceeded",
            Self::BudgetReserved => "budget_reserved",
            Self::CallTooLarge => "call_too_large",
            Self::ProviderDenied => "provider_denied",
            Self::ModelDenied => "model_denied",
            Self::EndpointDenied => "endpoint_denied",
            Self::ToolDenied => "tool_denied",
            Self::KeyDenied => "key_denied",
            Self::KeyMissing => "key_missing",
            Self::OutputCap => "output_cap",
            Self::Unpriced => "unpriced",
            Self::Malformed => "malformed",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::UpgradeRequired => "upgrade_required",
            Self::InFlight => "in_flight",
            Self::Frozen => "frozen",
            Self::InputCap => "input_cap",
            Self::RunTimeout => "run_timeout",
            Self::Loop => "loop",
            Self::RetryBody => "retry_body",
            Self::RetryRate => "retry_rate",
            Self::RateRequests => "rate_requests",
            Self::RateTokens => "rate_tokens",
            Self::Unidentified => "unidentified",
            Self::Upstream => "upstream",
            Self::NotRecordable => "not_recordable",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
        }
    }

    /// The stable `code` that clients see: the label with a `guard_` prefix.
    pub fn code(self) -> String {
        format!("guard_{}", self.label())
    }

    /// What kind of answer the client should get.
    pub fn class(self) -> Class {
        match self {
            Self::BudgetExceeded | Self::CallTooLarge => Class::Money,
            Self::BudgetReserved
            | Self::InFlight
            | Self::RetryRate
            | Self::RateRequests
            | Self::RateTokens
            | Self::Stopping => Class::Transient,
            Self::Malformed => Class::Malformed,
            Self::BodyTooLarge => Class::TooLarge,
            Self::AuthorityMismatch => Class::Misdirected,
            Self::UpgradeRequired => Class::Upgrade,
            Self::Upstream => Class::Upstream,
            Self::ProviderDenied
            | Self::ModelDenied
            | Self::EndpointDenied
            | Self::ToolDenied
            | Self::KeyDenied
            | Self::KeyMissing
            | Self::OutputCap
            | Self::Unpriced
            | Self::Frozen
            | Self::InputCap
            | Self::RunTimeout
            | Self::Loop
            | Self::RetryBody
            | Self::UnsupportedEncoding
            | Self::Unidentified
            | Self::NotRecordable
            | Self::Internal => Class::Policy,
        }
    }
}

/// The family of a refusal; with the dialect it decides the HTTP status (`DESIGN`: what real clients do decides).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Money: final. Anthropic 402 `billing_error`, OpenAI 400 `invalid_request_error`.
    Money,
    /// Policy: final. 400 `invalid_request_error` in both.
    Policy,
    /// Passes by itself within seconds: 429 with a short Retry-After.
    Transient,
    /// The client's request is broken: 400.
    Malformed,
    /// 413.
    TooLarge,
    /// 421 (RFC 9110 §15.5.20).
    Misdirected,
    /// 426 (RFC 9110 §15.5.22).
    Upgrade,
    /// The provider's fault, not a decision of ours: 502.
    Upstream,
}

/// One refusal, complete.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// One or two sentences for the model and the human, ending with what to do next.
    pub message: String,
    /// The numbers behind a money refusal.
    pub money: Option<Box<MoneyDetail>>,
    /// Seconds after which a transient refusal may be tried again; at most 20.
    pub retry_after: Option<u32>,
}

/// Scope, limit and state of the budget that refused.
#[derive(Debug, Clone)]
pub struct MoneyDetail {
    /// `agent`, `owner`, `run`, …
    pub scope: &'static str,
    /// Name of the scope, e.g. the agent's.
    pub name: Arc<str>,
    /// `day`, `run`, …
    pub window: Cow<'static, str>,
    /// The limit in force; the other amounts are in its unit.
    pub limit: Amount,
    /// Settled so far in this window.
    pub spent: Amount,
    /// Reserved by calls in flight.
    pub reserved: Amount,
    /// The worst case of the refused call.
    pub requested: Amount,
    /// When the window ends; none for a run.
    pub resets_at: Option<Timestamp>,
}

impl Refusal {
    /// A refusal without numbers.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            money: None,
            retry_after: None,
        }
    }
}
