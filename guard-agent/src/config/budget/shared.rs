//! `[[budget]]`: limits that several agents share.

use std::sync::Arc;

use super::{Agent, Budget, Pattern, Per, Section, nearest, one};
use crate::ledger::{Scope, ScopeKind, Window};
use crate::llm::provider::Provider;

/// `[[budget]]`: a limit that several agents share.
#[derive(Debug, Clone)]
pub struct SharedBudget {
    /// Whose calls count.
    pub whose: Whose,
    /// Window and limit.
    pub budget: Budget,
}

/// Whose calls a shared budget counts.
#[derive(Debug, Clone)]
pub enum Whose {
    /// Those of every agent of an owner.
    Owner(Arc<str>),
    /// Those with one key, `PROVIDER/KEY`.
    Key(Arc<str>),
    /// Those to the models that a pattern covers.
    Model(Pattern),
    /// All.
    Host,
}

/// Reads every `[[budget]]`.
pub(in crate::config) fn read_shared(
    sections: &[Section<'_, '_>],
    providers: &[Arc<Provider>],
    agents: &[Arc<Agent>],
) -> Vec<SharedBudget> {
    let mut budgets: Vec<SharedBudget> = Vec::new();
    for section in sections {
        let whose = whose(section, providers, agents);
        let (Some(whose), Some(budget)) = (whose, one(section, Per::Agent)) else {
            continue;
        };
        let shared = SharedBudget { whose, budget };
        let report =
            |message: String, fix: &str| section.reader.error(&section.place("window"), message, fix);
        if shared.budget.window == Window::Run {
            report(
                "a shared budget has no runs".to_owned(),
                "write a calendar or rolling window here; budgets of runs stand in [[agent]]",
            );
        } else if budgets.iter().any(|other| {
            other.scope() == shared.scope()
                && other.budget.window == shared.budget.window
                && other.budget.limit.unit == shared.budget.limit.unit
        }) {
            let scope = shared.scope();
            let message = format!(
                "a second budget in {} of {} {:?} for this window",
                shared.budget.limit.unit.label(),
                scope.kind.label(),
                scope.name
            );
            report(message, "keep one budget per scope, window and unit");
        } else {
            budgets.push(shared);
        }
    }
    budgets
}

fn whose(section: &Section<'_, '_>, providers: &[Arc<Provider>], agents: &[Arc<Agent>]) -> Option<Whose> {
    let named: Vec<&str> = ["owner", "key", "model", "scope"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let [one] = named.as_slice() else {
        section.reader.error(
            &section.span,
            "[[budget]] says whose calls count in exactly one key",
            "write owner = \"team\", key = \"openai/prod-1\", model = \"gpt-5*\", or scope = \"host\" for all calls",
        );
        return None;
    };
    match *one {
        "owner" => {
            let owner = section.string("owner")?;
            let known = || agents.iter().map(|agent| &*agent.owner);
            unless_known(section, &owner, known(), "no agent has the owner")?;
            Some(Whose::Owner((*owner.get_ref()).into()))
        }
        "key" => {
            let key = section.string("key")?;
            let known: Vec<String> = providers
                .iter()
                .flat_map(|provider| {
                    provider
                        .keys
                        .iter()
                        .map(|key| format!("{}/{}", provider.name, key.name))
                })
                .collect();
            unless_known(
                section,
                &key,
                known.iter().map(String::as_str),
                "no provider has the key",
            )?;
            Some(Whose::Key((*key.get_ref()).into()))
        }
        "model" => {
            let text = section.string("model")?;
            section.reader.patterns(&[text]).pop().map(Whose::Model)
        }
        _ => section.choice("scope", &[("host", ())]).map(|()| Whose::Host),
    }
}

fn unless_known<'k>(
    section: &Section<'_, '_>,
    text: &toml::Spanned<&str>,
    known: impl Iterator<Item = &'k str> + Clone,
    what: &str,
) -> Option<()> {
    let written = *text.get_ref();
    if known.clone().any(|name| name == written) {
        return Some(());
    }
    let fix = match nearest(written, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "a budget that counts nothing would mislead: write a name that is in use".to_owned(),
    };
    section
        .reader
        .error(&text.span(), format!("{what} {written:?}"), fix);
    None
}

impl SharedBudget {
    /// The account that it limits.
    pub fn scope(&self) -> Scope {
        let (kind, name) = match &self.whose {
            Whose::Owner(owner) => (ScopeKind::Owner, owner.clone()),
            Whose::Key(key) => (ScopeKind::Key, key.clone()),
            Whose::Model(pattern) => (ScopeKind::Model, pattern.text.as_str().into()),
            Whose::Host => (ScopeKind::Host, "host".into()),
        };
        Scope { kind, name }
    }
}
