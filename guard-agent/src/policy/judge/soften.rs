//! What soft limits and warnings change in a call, and the bill that it runs up.

use std::sync::Arc;

use super::Judging;
use crate::config::{Agent, Mode};
use crate::llm::RequestFacts;
use crate::llm::prices::ModelPrice;
use crate::policy::caps::OutputCap;
use crate::policy::money::Bill;
use crate::policy::soft;

/// A call that goes to another model than the one that it asks for.
pub(super) struct Softened {
    pub(super) facts: RequestFacts,
    pub(super) price: Arc<ModelPrice>,
}

impl Softened {
    /// The other model may be able to do less than was asked for, and would refuse.
    pub(super) fn capped(&self, cap: OutputCap) -> OutputCap {
        let most = self.price.max_output;
        if cap.tokens <= most {
            return cap;
        }
        OutputCap {
            tokens: most,
            rewrite: Some(most),
        }
    }
}

impl<'a> Judging<'a> {
    /// What the soft limits want: another model, which is given; and notes for the model, which are kept.
    pub(super) fn soften(
        &mut self,
        agent: &Agent,
        facts: &RequestFacts,
        price: Option<&Arc<ModelPrice>>,
    ) -> Option<Softened> {
        if self.rules.mode == Mode::Observe {
            return None;
        }
        let wanted = soft::soften(
            &self.bill(agent, facts, price),
            &self.policy.ledger,
            &self.rules.prices,
            self.provider,
            self.call,
        );
        self.notes.extend(wanted.note);
        let (model, price) = wanted.model?;
        self.draft.goes_to(&model);
        let facts = RequestFacts {
            model: model.to_string(),
            ..facts.clone()
        };
        Some(Softened { facts, price })
    }

    /// Everything that is to be said to the model, where the body has a place for it.
    pub(super) fn note(&self, facts: &RequestFacts) -> Option<String> {
        let said = !self.notes.is_empty() && !facts.untouchable;
        (said && self.call.dialect.takes(&self.call.body).note).then(|| self.notes.join("\n"))
    }

    /// Whom the call is charged to, before it is known how much.
    pub(super) fn bill<'b>(
        &self,
        agent: &'b Agent,
        facts: &'b RequestFacts,
        price: Option<&'b Arc<ModelPrice>>,
    ) -> Bill<'b>
    where
        'a: 'b,
    {
        Bill {
            agent,
            who: self.who,
            facts,
            stripped: &[],
            price,
            cap: None,
            added: 0,
            session: self.call.said.session.as_deref(),
            key: self
                .draft
                .key_name()
                .map(|key| format!("{}/{key}", self.provider.name)),
            shared: &self.rules.budgets,
            extra: self.policy.grants.extra(&agent.name, self.policy.recorder.now()),
        }
    }
}
