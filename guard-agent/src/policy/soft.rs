//! Soft limits: what a budget that is nearly used up does to a call, beside the warning.
//!
//! In: the budgets that cover the call, with what their owner wants done, and how they stand. Out: a cheaper model of the
//! same provider and format, a note for the model, both or neither. On failure: advice; the call goes on as it was sent.
//!
//! A body that carries a checksum over itself, one that does not name its model, and a model that the agent may not use
//! or that is not cheaper are left alone.

use std::sync::Arc;

use crate::call::Call;
use crate::config::{Agent, Budget};
use crate::ledger::{Amount, Ledger, Window};
use crate::llm::prices::{ModelPrice, PriceTable};
use crate::llm::provider::Provider;
use crate::llm::{EndpointKind, RequestFacts, detect};
use crate::policy::access;
use crate::policy::budget;
use crate::policy::money::Bill;

/// What is done to a call.
#[derive(Debug, Default)]
pub(super) struct Softened {
    /// Ask this model instead, at this price.
    pub(super) model: Option<(Arc<str>, Arc<ModelPrice>)>,
    /// Say this to the model.
    pub(super) note: Option<String>,
}

/// A budget that has passed its soft limit.
struct Passed<'a> {
    budget: &'a Budget,
    used: Amount,
}

/// What the soft limits of a call want.
pub(super) fn soften(
    bill: &Bill<'_>,
    ledger: &Ledger,
    prices: &PriceTable,
    provider: &Provider,
    call: &Call,
) -> Softened {
    let wanted = passed(bill, ledger);
    if wanted.is_empty() || bill.facts.untouchable || call.endpoint != EndpointKind::Inference {
        return Softened::default();
    }
    let takes = call.dialect.takes(&call.body);
    let in_path = detect::endpoint(provider, &call.method, call.path())
        .place
        .model
        .is_some();
    let models = wanted
        .iter()
        .filter_map(|passed| passed.budget.on_soft.model.as_ref())
        .filter(|_| takes.model && !in_path);
    let model = models
        .filter_map(|model| Some((model.clone(), cheaper(bill, prices, provider, call, model)?)))
        .next();
    let notes: Vec<String> = wanted
        .iter()
        .filter(|_| takes.note)
        .filter_map(|passed| Some(note(bill.agent, passed, passed.budget.on_soft.steer.as_ref()?)))
        .collect();
    Softened {
        model,
        note: (!notes.is_empty()).then(|| notes.join("\n")),
    }
}

/// The budgets beyond their soft limit whose owner wants something done about it.
fn passed<'a>(bill: &Bill<'a>, ledger: &Ledger) -> Vec<Passed<'a>> {
    let mut passed = Vec::new();
    for (scope, budget) in bill.covered().budgets() {
        let Some(ppm) = budget.soft_ppm.filter(|_| budget.on_soft.asks()) else {
            continue;
        };
        // The clock cannot be placed in a window: the reservation will say so.
        let Some(used) = ledger.settled(&scope, budget.window, budget.limit.unit) else {
            continue;
        };
        if used.count >= budget.limit.part(ppm).count {
            passed.push(Passed { budget, used });
        }
    }
    passed
}

/// The price of another model, if the call may go to it and can cost less there.
fn cheaper(
    bill: &Bill<'_>,
    prices: &PriceTable,
    provider: &Provider,
    call: &Call,
    model: &str,
) -> Option<Arc<ModelPrice>> {
    let now = bill.price?;
    let kin = provider.like.as_deref();
    let found = prices.find(&provider.name, model);
    let other = found.or_else(|| prices.find(kin?, model))?;
    access::model(bill.agent, model).ok()?;
    let worst = |price: &ModelPrice, facts: &RequestFacts| {
        let output = facts.output_cap.unwrap_or(price.max_output).min(price.max_output);
        let worst = budget::worst_case(price, facts, call.body.len() as u64, output);
        worst.ok().map(|worst| worst.amount)
    };
    // A thinking budget that does not fit below the other model's cap would only make the provider refuse.
    let fits = bill
        .facts
        .thinking_budget
        .is_none_or(|thinking| thinking < other.max_output);
    (fits && worst(other, bill.facts)? < worst(now, bill.facts)?).then(|| other.clone())
}

fn note(agent: &Agent, passed: &Passed<'_>, words: &str) -> String {
    let Passed { budget, used } = passed;
    let per = match budget.window {
        Window::Run => "this run".to_owned(),
        window => window.per(),
    };
    format!(
        "[Notice from the operator of this host: {used} of the {} budget of agent {:?} for {per} are used. {words}]",
        budget.limit, agent.name
    )
}
