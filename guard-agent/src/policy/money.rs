//! Budget: reserves the worst case of a call in every budget of its agent, or says which one stands in the way.
//!
//! In: the agent's budgets, the price, what the request asks for. Out: a reservation. On failure: a refusal with scope,
//! limit, what is spent and reserved, when it resets, and what to do.

use std::sync::Arc;

use crate::call::Call;
use crate::config::Agent;
use crate::identity::Identity;
use crate::ledger::{Charge, Exhausted, Ledger, Reservation, ReserveError, Scope, ScopeKind, Window};
use crate::llm::RequestFacts;
use crate::llm::prices::ModelPrice;
use crate::money::Pico;
use crate::policy::budget::{self, NoBound};
use crate::policy::caps::OutputCap;
use crate::policy::quoted;
use crate::refusal::{MoneyDetail, Reason, Refusal};

/// Seconds after which a call that found the budget full of reservations may be tried again: calls last seconds to
/// minutes, and clients give up on waits much longer than this.
const RESERVED_RETRY_SECONDS: u32 = 5;

/// What a call is charged for, and to whom.
pub(super) struct Bill<'a> {
    pub(super) agent: &'a Agent,
    pub(super) who: &'a Identity,
    pub(super) facts: &'a RequestFacts,
    /// Tools that are removed before the call is forwarded: they can cost nothing.
    pub(super) stripped: &'a [String],
    pub(super) price: Option<&'a Arc<ModelPrice>>,
    pub(super) cap: Option<OutputCap>,
}

impl Bill<'_> {
    /// Reserves within the limits.
    pub(super) fn reserve(&self, ledger: &Ledger, call: &Call) -> Result<Reservation, Refusal> {
        let charges = self.charges(|limit| limit);
        ledger
            .reserve(call.id, &charges, self.worst_case(call)?)
            .map_err(|why| self.refusal(why))
    }

    /// Counts without limiting, for observe mode. What has no bound counts as nothing reserved.
    pub(super) fn reserve_unlimited(&self, ledger: &Ledger, call: &Call) -> Option<Reservation> {
        let charges = self.charges(|_limit| Pico(u64::MAX));
        let amount = self.worst_case(call).unwrap_or(Pico::ZERO);
        ledger
            .reserve(call.id, &charges, amount)
            .map_err(|why| tracing::warn!(%why, "not counted"))
            .ok()
    }

    fn charges(&self, limit: impl Fn(Pico) -> Pico) -> Vec<Charge> {
        let scope = |window| match window {
            Window::Run => Scope {
                kind: ScopeKind::Run,
                name: self.who.run.clone(),
            },
            Window::Hour | Window::Day | Window::Week | Window::Month => Scope {
                kind: ScopeKind::Agent,
                name: self.agent.name.clone(),
            },
        };
        let charge = |budget: &crate::config::Budget| Charge {
            scope: scope(budget.window),
            window: budget.window,
            limit: limit(budget.limit),
        };
        self.agent.budgets.iter().map(charge).collect()
    }

    fn worst_case(&self, call: &Call) -> Result<Pico, Refusal> {
        let (Some(price), Some(cap)) = (self.price, self.cap) else {
            return Err(Refusal::new(
                Reason::Internal,
                "This call has no price or no output bound.",
            ));
        };
        let mut facts = self.facts.clone();
        facts.tools.retain(|tool| !self.stripped.contains(&tool.name));
        budget::worst_case(price, &facts, call.body.len() as u64, cap.tokens)
            .map(|worst| worst.amount)
            .map_err(|why| unbounded(&why))
    }

    fn refusal(&self, why: ReserveError) -> Refusal {
        match why {
            ReserveError::Exhausted(state) => exhausted(&self.agent.name, state),
            ReserveError::Stopped(reason) => {
                tracing::error!(%reason, "a call was refused: the ledger admits nothing");
                Refusal::new(
                    Reason::NotRecordable,
                    "Guard cannot write to its ledger at the moment, so it admits no call. The operator finds the \
                     cause with `guard-agent status`.",
                )
            }
        }
    }
}

fn exhausted(agent: &str, state: Exhausted) -> Refusal {
    let Exhausted {
        scope,
        window,
        limit,
        settled,
        reserved,
        requested,
        resets_at,
        transient,
    } = state;
    let left = limit.saturating_sub(settled);
    let per = match window {
        Window::Run => "this run".to_owned(),
        other => format!("this {}", other.label()),
    };
    let spent = format!("Agent {agent:?} has spent {settled} of its {limit} budget for {per}");
    let reset = resets_at.map_or_else(
        || "A new run starts with a fresh budget.".to_owned(),
        |at| format!("The budget resets at {at:.0}."),
    );
    let (reason, message, retry_after) = if transient {
        let message = format!(
            "{spent}, and calls in flight hold {reserved}. This call may cost up to {requested}, so it has to wait \
             for them. Try again in a few seconds."
        );
        (Reason::BudgetReserved, message, Some(RESERVED_RETRY_SECONDS))
    } else if requested > limit {
        let message = format!(
            "This call alone may cost up to {requested}, more than the whole {limit} budget of agent {agent:?} for \
             {per}. Ask for fewer output tokens or send less; to allow it, the operator raises `budget` in guard.toml."
        );
        (Reason::CallTooLarge, message, None)
    } else {
        let message = format!(
            "{spent}; {left} is left and this call may cost up to {requested}. {reset} Do not retry before then: stop \
             and tell the user. A smaller request (fewer output tokens, less input) may still fit; to allow more, the \
             operator raises `budget` in guard.toml."
        );
        (Reason::BudgetExceeded, message, None)
    };
    let money = MoneyDetail {
        scope: scope.kind.label(),
        name: scope.name,
        window: window.label(),
        limit,
        spent: settled,
        reserved,
        requested,
        resets_at,
    };
    Refusal {
        reason,
        message,
        money: Some(money),
        retry_after,
    }
}

fn unbounded(why: &NoBound) -> Refusal {
    let message =
        format!("Guard cannot say what this call may cost at most: {why}. Send the request without that.");
    let reason = match why {
        NoBound::ServerSideTools => Reason::ToolDenied,
        NoBound::Tier { .. } => Reason::Unpriced,
        NoBound::Overflow => Reason::CallTooLarge,
    };
    Refusal::new(reason, message)
}

/// A model without a price could cost anything.
pub(super) fn unpriced(provider: &str, model: &str) -> Refusal {
    Refusal::new(
        Reason::Unpriced,
        format!(
            "Guard knows no price for the model {} of {provider:?}, so it cannot hold a budget to it. Use a model of \
             the price table by its exact name.",
            quoted(model)
        ),
    )
}
