//! The values that labels may take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Agent, Config};

/// What stands for every value that is not known.
pub(super) const OTHER: &str = "other";

/// The values that labels may take under one configuration and one price table.
#[derive(Debug, Default)]
pub struct Labels {
    agents: BTreeMap<Arc<str>, Arc<Agent>>,
    providers: BTreeSet<String>,
    models: BTreeSet<String>,
}

impl Labels {
    /// The names in the configuration, and the models (canonical names) in the price table.
    pub fn new(config: &Config, models: impl IntoIterator<Item = String>) -> Self {
        Self {
            agents: config
                .agents
                .iter()
                .map(|agent| (agent.name.clone(), agent.clone()))
                .collect(),
            providers: config
                .providers
                .iter()
                .map(|provider| provider.name.clone())
                .collect(),
            models: models.into_iter().collect(),
        }
    }

    pub(super) fn agent(&self, name: &str) -> &str {
        self.agents.get_key_value(name).map_or(OTHER, |(known, _)| known)
    }

    pub(super) fn owner(&self, agent: &str) -> &str {
        self.agents.get(agent).map_or(OTHER, |agent| &agent.owner)
    }

    pub(super) fn provider(&self, name: &str) -> &str {
        self.providers.get(name).map_or(OTHER, String::as_str)
    }

    pub(super) fn model(&self, name: &str) -> &str {
        self.models.get(name).map_or(OTHER, String::as_str)
    }

    /// The pattern of the agent's allow list that covers the tool: there are as many as the operator wrote.
    pub(super) fn tool(&self, agent: &str, tool: &str) -> &str {
        let rules = self.agents.get(agent).and_then(|agent| agent.tools.as_ref());
        let covering = rules.and_then(|rules| rules.allow.iter().find(|pattern| pattern.covers(tool)));
        covering.map_or(OTHER, |pattern| pattern.text.as_str())
    }
}
