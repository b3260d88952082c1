//! Budget: reserves the worst case of a call in every budget of its agent, or says which one stands in the way.
//!
//! In: the agent's budgets, the price, what the request asks for. Out: a reservation. On failure: a refusal with scope,
//! limit, what is spent and reserved, when it resets, and what to do.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::call::Call;
use crate::clock::SharedClock;
use crate::config::{Agent, SharedBudget};
use crate::identity::Identity;
use crate::ledger::{
    Amount, Amounts, Caller, Exhausted, Ledger, Reservation, ReserveError, Scope, ScopeKind, Unit, Window,
};
use crate::llm::RequestFacts;
use crate::llm::prices::ModelPrice;
use crate::policy::budget::{self, NoBound, WorstCase};
use crate::policy::caps::OutputCap;
use crate::policy::covers::{Covered, Payer};
use crate::policy::grants::{Extra, Grants};
use crate::policy::{Snapshot, quoted};
use crate::refusal::{MoneyDetail, Reason, Refusal};

/// Seconds after which a call that found the budget full of reservations may be tried again: calls last seconds to
/// minutes, and clients give up on waits much longer than this.
const RESERVED_RETRY_SECONDS: u32 = 5;

/// Longest name of a model that the ledger keeps, in characters.
const NAME: usize = 128;

/// What a call is charged for, and to whom.
pub(super) struct Bill<'a> {
    pub(super) agent: &'a Agent,
    pub(super) who: &'a Identity,
    pub(super) facts: &'a RequestFacts,
    /// Tools that are removed before the call is forwarded: they can cost nothing.
    pub(super) stripped: &'a [String],
    pub(super) price: Option<&'a Arc<ModelPrice>>,
    pub(super) cap: Option<OutputCap>,
    /// Bytes that the body grows by before it is forwarded.
    pub(super) added: u64,
    /// The label that the client sent.
    pub(super) session: Option<&'a str>,
    /// The provider's key that pays, `PROVIDER/KEY`.
    pub(super) key: Option<String>,
    /// Budgets that agents share.
    pub(super) shared: &'a [SharedBudget],
    /// What was granted beyond the agent's budgets.
    pub(super) extra: Extra,
}

impl<'a> Bill<'a> {
    /// Reserves within the limits.
    pub(super) fn reserve(&self, ledger: &Ledger, call: &Call) -> Result<(Reservation, WorstCase), Refusal> {
        let charges = self.covered().charges(&self.extra);
        let worst = self.worst_case(call)?;
        ledger
            .reserve_for(call.id, &charges, amounts(&worst), Some(self.caller(call)))
            .map(|reservation| (reservation, worst))
            .map_err(|why| self.with_grant(refusal(&self.agent.name, why)))
    }

    /// Says that a limit holds only for a while, where one does.
    fn with_grant(&self, mut refusal: Refusal) -> Refusal {
        let own = |money: &MoneyDetail| {
            money.limit.unit == Unit::Usd && matches!(money.scope, "agent" | "run" | "session")
        };
        if let Some(until) = self
            .extra
            .until
            .filter(|_| refusal.money.as_deref().is_some_and(own))
        {
            let granted = self.extra.usd;
            refusal.message.push_str(&format!(
                " ({granted} of the budget was granted by the operator and ends at {until:.0}.)"
            ));
        }
        refusal
    }

    /// Who pays for more, when the reply turns out to be longer.
    pub(super) fn payer(
        &self,
        rules: &Arc<ArcSwap<Snapshot>>,
        grants: &Arc<Grants>,
        clock: SharedClock,
    ) -> Payer {
        Payer {
            rules: rules.clone(),
            grants: grants.clone(),
            clock,
            agent: self.agent.name.clone(),
            run: self.who.run.clone(),
            session: self.session.map(Into::into),
            key: self.key.as_deref().map(Into::into),
            model: self.facts.model.as_str().into(),
            label: self.model().into(),
        }
    }

    /// Counts without limiting, for observe mode. What has no bound counts as nothing reserved.
    pub(super) fn reserve_unlimited(&self, ledger: &Ledger, call: &Call) -> Option<Reservation> {
        let mut charges = self.covered().charges(&self.extra);
        for charge in &mut charges {
            charge.limit = charge.limit.with(u64::MAX);
        }
        let amount = self
            .worst_case(call)
            .map_or(Amounts::CALL, |worst| amounts(&worst));
        ledger
            .reserve_for(call.id, &charges, amount, Some(self.caller(call)))
            .map_err(|why| tracing::warn!(%why, "not counted"))
            .ok()
    }

    /// The call as budgets see it.
    pub(super) fn covered(&self) -> Covered<'a, '_> {
        Covered {
            agent: self.agent,
            run: &self.who.run,
            session: self.session,
            key: self.key.as_deref(),
            model: &self.facts.model,
            label: self.price.map(|price| price.label.as_str()),
            shared: self.shared,
        }
    }

    /// The model's name in the price table; without one, as it was asked for.
    fn model(&self) -> &str {
        self.price
            .map_or(self.facts.model.as_str(), |price| price.label.as_str())
    }

    /// What reports are to know of the call.
    fn caller(&self, call: &Call) -> Caller {
        Caller {
            agent: self.agent.name.clone(),
            owner: self.agent.owner.clone(),
            run: self.who.run.clone(),
            session: self.session.map(Into::into),
            provider: call.provider.name.as_str().into(),
            model: quotable(self.model()).into(),
            key: self.key.as_deref().map(Into::into),
        }
    }

    fn worst_case(&self, call: &Call) -> Result<WorstCase, Refusal> {
        let (Some(price), Some(cap)) = (self.price, self.cap) else {
            return Err(Refusal::new(
                Reason::Internal,
                "This call has no price or no output bound.",
            ));
        };
        let mut facts = self.facts.clone();
        facts.tools.retain(|tool| !self.stripped.contains(&tool.name));
        let body = (call.body.len() as u64).saturating_add(self.added);
        budget::worst_case(price, &facts, body, cap.tokens).map_err(|why| unbounded(&why))
    }
}

/// A worst case in every unit.
fn amounts(worst: &WorstCase) -> Amounts {
    Amounts {
        usd: worst.amount,
        tokens: worst.input_bound.saturating_add(worst.output_bound),
        calls: 1,
    }
}

/// Why nothing could be reserved.
pub(super) fn refusal(agent: &str, why: ReserveError) -> Refusal {
    match why {
        ReserveError::Exhausted(state) => exhausted(agent, state),
        ReserveError::Stopped(reason) => {
            tracing::error!(%reason, "a call was refused: the ledger admits nothing");
            Refusal::new(
                Reason::NotRecordable,
                "Guard cannot write to its ledger at the moment, so it admits no call. The operator finds the cause \
                 with `guard-agent status`.",
            )
        }
    }
}

/// A name that a client may have chosen, at a bounded length.
fn quotable(name: &str) -> String {
    name.chars().take(NAME).collect()
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
    let left = limit.with(limit.count.saturating_sub(settled.count));
    let Words {
        spent: has_spent,
        may,
        are,
        least,
    } = words(limit.unit);
    let (per, spent) = spent(agent, &scope, window, has_spent, settled, limit);
    let reset = match (resets_at, window) {
        (Some(at), Window::Rolling(_)) => format!("Enough of it is free again at {at:.0}."),
        (Some(at), _) => format!("The budget resets at {at:.0}."),
        (None, _) => "A new run starts with a fresh budget.".to_owned(),
    };
    let (reason, message, retry_after) = if transient {
        let message = format!(
            "{spent}, and calls in flight hold {reserved}. This call may {may} {requested}, so it has to wait \
             for them. Try again in a few seconds."
        );
        (Reason::BudgetReserved, message, Some(RESERVED_RETRY_SECONDS))
    } else if requested.count > limit.count {
        let message = format!(
            "This call alone may {may} {requested}, more than the whole {limit} budget of agent {agent:?} for \
             {per}. Ask for fewer output tokens or send less; to allow it, the operator raises `budget` in guard.toml."
        );
        (Reason::CallTooLarge, message, None)
    } else {
        let message = format!(
            "{spent}; {left} {are} left and this call may {may} {requested}. {reset} Do not retry before then: stop and \
             tell the user. {least}To allow more, the operator raises `budget` in guard.toml."
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
        money: Some(Box::new(money)),
        retry_after,
    }
}

/// Over which time, and what is used up in it. Nothing of another agent, and no name that the caller does not know, is
/// said.
fn spent(
    agent: &str,
    scope: &Scope,
    window: Window,
    has_spent: &str,
    settled: Amount,
    limit: Amount,
) -> (String, String) {
    let per = match (scope.kind, window) {
        (ScopeKind::Session, Window::Run) => "this session".to_owned(),
        _ => window.per(),
    };
    let spent = match scope.kind {
        ScopeKind::Agent | ScopeKind::Run => {
            format!("Agent {agent:?} has {has_spent} {settled} of its {limit} budget for {per}")
        }
        ScopeKind::Session => format!(
            "This session of agent {agent:?} has {has_spent} {settled} of its {limit} budget for {per}"
        ),
        shared @ (ScopeKind::Owner | ScopeKind::Key | ScopeKind::Model | ScopeKind::Host) => format!(
            "The {limit} budget for {per} that agent {agent:?} shares with others (its {}'s) has {settled} {has_spent}",
            shared.label()
        ),
    };
    (per, spent)
}

/// How a message speaks of a unit.
struct Words {
    spent: &'static str,
    /// What this call may do with it.
    may: &'static str,
    are: &'static str,
    /// What may still be possible.
    least: &'static str,
}

fn words(unit: Unit) -> Words {
    const SMALLER: &str = "A smaller request (fewer output tokens, less input) may still fit. ";
    let (spent, may, are, least) = match unit {
        Unit::Usd => ("spent", "cost up to", "is", SMALLER),
        Unit::Tokens => ("used", "use up to", "are", SMALLER),
        Unit::Calls => ("made", "count as", "are", ""),
    };
    Words {
        spent,
        may,
        are,
        least,
    }
}

fn unbounded(why: &NoBound) -> Refusal {
    let advice = match why {
        NoBound::Unbilled { .. } => {
            "Use another model; to price this one, the operator adds its fee to the overlay of [prices]"
        }
        _ => "Send the request without that",
    };
    let message = format!("Guard cannot say what this call may cost at most: {why}. {advice}.");
    let reason = match why {
        NoBound::ServerSideTools => Reason::ToolDenied,
        NoBound::Tier { .. } | NoBound::Unbilled { .. } => Reason::Unpriced,
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
