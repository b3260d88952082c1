//! Which budgets cover a call.
//!
//! In: who calls, with which key, which model. Out: every budget that counts the call, with its scope. There is no
//! failure: what no budget covers is not limited.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::clock::SharedClock;
use crate::config::{Agent, Budget, Per, SharedBudget, Whose};
use crate::ledger::{Charge, NO_SESSION, Scope, ScopeKind, Window};
use crate::policy::Snapshot;
use crate::policy::grants::{Extra, Grants};

/// A call, as far as budgets tell calls apart.
#[derive(Clone, Copy)]
pub(super) struct Covered<'a, 's> {
    pub(super) agent: &'a Agent,
    pub(super) run: &'s Arc<str>,
    /// The label that the client sent.
    pub(super) session: Option<&'s str>,
    /// The provider's key that pays, `PROVIDER/KEY`.
    pub(super) key: Option<&'s str>,
    /// The model that was asked for.
    pub(super) model: &'s str,
    /// Its name in the price table.
    pub(super) label: Option<&'s str>,
    /// Budgets that agents share.
    pub(super) shared: &'a [SharedBudget],
}

impl<'a> Covered<'a, '_> {
    /// Every budget that counts the call: the agent's, its run's and session's, and the shared ones.
    pub(super) fn budgets(self) -> impl Iterator<Item = (Scope, &'a Budget)> {
        let own = self
            .agent
            .budgets
            .iter()
            .map(move |budget| (self.own(budget.per, budget.window), budget));
        let shared = self
            .shared
            .iter()
            .filter(move |shared| self.counts(&shared.whose))
            .map(|shared| (shared.scope(), &shared.budget));
        own.chain(shared)
    }

    /// The same as limits, raised by what is granted.
    pub(super) fn charges(self, extra: &Extra) -> Vec<Charge> {
        self.budgets()
            .map(|(scope, budget)| Charge {
                limit: extra.raise(&scope, budget.limit),
                scope,
                window: budget.window,
            })
            .collect()
    }

    fn own(&self, per: Per, window: Window) -> Scope {
        match (per, window) {
            (Per::Session, _) => Scope {
                kind: ScopeKind::Session,
                name: format!("{}/{}", self.run, self.session.unwrap_or(NO_SESSION)).into(),
            },
            (Per::Agent, Window::Run) => Scope {
                kind: ScopeKind::Run,
                name: self.run.clone(),
            },
            (Per::Agent, _) => Scope {
                kind: ScopeKind::Agent,
                name: self.agent.name.clone(),
            },
        }
    }

    /// Whether a shared budget counts this call. A model counts by the name that was asked for and by the one in the
    /// price table: an alias is no way around.
    fn counts(&self, whose: &Whose) -> bool {
        match whose {
            Whose::Owner(owner) => *owner == self.agent.owner,
            Whose::Key(key) => self.key == Some(&**key),
            Whose::Model(pattern) => {
                pattern.covers(self.model) || self.label.is_some_and(|label| pattern.covers(label))
            }
            Whose::Host => true,
        }
    }
}

/// Who pays for a call that is under way, by the rules in force at any later moment.
pub(super) struct Payer {
    pub(super) rules: Arc<ArcSwap<Snapshot>>,
    pub(super) grants: Arc<Grants>,
    pub(super) clock: SharedClock,
    pub(super) agent: Arc<str>,
    pub(super) run: Arc<str>,
    pub(super) session: Option<Box<str>>,
    pub(super) key: Option<Box<str>>,
    pub(super) model: Box<str>,
    pub(super) label: Box<str>,
}

impl Payer {
    /// The limits in force now; none when the agent is not in the configuration any more.
    pub(super) fn charges(&self) -> Option<Vec<Charge>> {
        let rules = self.rules.load();
        let covered = Covered {
            agent: rules.agents.get(&self.agent)?,
            run: &self.run,
            session: self.session.as_deref(),
            key: self.key.as_deref(),
            model: &self.model,
            label: Some(&self.label),
            shared: &rules.budgets,
        };
        let extra = self.grants.extra(&self.agent, self.clock.now());
        Some(covered.charges(&extra))
    }
}
