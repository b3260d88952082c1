//! What the engine said of its containers, and whose each one is by the configuration.
//!
//! In: labels, names and images. Out: a container's standing. On failure: a container that the engine never named has
//! no standing, and whoever asks holds it back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::config::{Agent, ContainerLabel};
use crate::identify::number;
use crate::identity::Container;

/// The label that claims an agent by name. A claim that the configuration does not know is refused, never ignored.
const CLAIM: &str = "guard.agent";
/// Containers that are remembered; an engine with more has another problem.
const MOST: usize = 16_384;

/// Whose a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// An agent's, by its number.
    Agent(u32),
    /// It claims what it may not have; the text says what.
    Denied(Arc<str>),
    /// Nobody's.
    Bystander,
}

/// One container, as its engine describes it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Id, name, image.
    pub about: Container,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Whether it has no network namespace of its own; none while the engine has not said.
    pub host_network: Option<bool>,
}

/// Which label is whose.
#[derive(Debug, Default)]
struct Rules(HashMap<ContainerLabel, u32>);

/// Everything that was said so far.
#[derive(Debug, Default)]
pub(super) struct Registry {
    rules: Rules,
    known: HashMap<String, Described>,
    /// Whether the engine has named all its containers once.
    complete: bool,
}

impl Registry {
    pub(super) fn set_rules(&mut self, agents: &[Arc<Agent>]) {
        let rules = agents.iter().flat_map(|agent| {
            let number = number(&agent.name);
            agent
                .container_labels
                .iter()
                .map(move |label| (label.clone(), number))
        });
        self.rules = Rules(rules.collect());
    }

    /// Takes a description; what an earlier one said beyond it stays.
    pub(super) fn describe(&mut self, mut container: Described) {
        if let Some(before) = self.known.get(&container.about.id) {
            container.host_network = container.host_network.or(before.host_network);
        } else if self.known.len() >= MOST {
            tracing::error!(
                container = container.about.id,
                "too many containers to remember: this one is held back"
            );
            return;
        }
        self.known.insert(container.about.id.clone(), container);
    }

    /// Takes the whole list: what is not on it is gone.
    pub(super) fn replace(&mut self, all: Vec<Described>) {
        let ids: BTreeSet<&str> = all.iter().map(|one| one.about.id.as_str()).collect();
        self.known.retain(|id, _| ids.contains(id.as_str()));
        all.into_iter().for_each(|one| self.describe(one));
        self.complete = true;
    }

    pub(super) fn rename(&mut self, id: &str, name: &str) {
        if let Some(container) = self.known.get_mut(id) {
            name.clone_into(&mut container.about.name);
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.known.remove(id);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn get(&self, id: &str) -> Option<&Described> {
        self.known.get(id)
    }

    /// Whose it is; none if the engine has not named it.
    pub(super) fn standing(&self, id: &str) -> Option<Standing> {
        self.known.get(id).map(|container| self.rules.judge(container))
    }
}

impl Rules {
    fn judge(&self, container: &Described) -> Standing {
        let agents: BTreeSet<u32> = container
            .labels
            .iter()
            .filter_map(|(key, value)| self.owner(key, value))
            .collect();
        let claim = container.labels.get(CLAIM);
        let unmet = claim.filter(|name| self.owner(CLAIM, name).is_none());
        match (unmet, agents.len(), agents.first()) {
            (Some(name), ..) => denied(
                container,
                &format!("has the label {CLAIM}={name}, which no agent matches"),
            ),
            (None, 0, _) | (None, _, None) => Standing::Bystander,
            (None, 1, Some(agent)) => Standing::Agent(*agent),
            (None, ..) => denied(container, "has labels of more than one agent"),
        }
    }

    fn owner(&self, key: &str, value: &str) -> Option<u32> {
        let label = ContainerLabel {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        self.0.get(&label).copied()
    }
}

fn denied(container: &Described, what: &str) -> Standing {
    let short: String = container.about.id.chars().take(12).collect();
    Standing::Denied(format!("container {:?} ({short}) {what}", container.about.name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(labels: &[(&str, &str)]) -> Vec<Arc<Agent>> {
        let text: String = labels
            .iter()
            .map(|(name, label)| {
                format!(
                    "[[agent]]\nname = \"{name}\"\nowner = \"o\"\nproviders = [\"openai\"]\n\
                     match = [{{ container_label = \"{label}\" }}]\n"
                )
            })
            .collect();
        crate::config::parse(&text, "guard.toml").unwrap().agents
    }

    fn container(id: &str, labels: &[(&str, &str)]) -> Described {
        Described {
            about: Container {
                id: id.to_owned(),
                name: "web".to_owned(),
                image: "busybox".to_owned(),
            },
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            host_network: None,
        }
    }

    fn registry() -> Registry {
        let mut registry = Registry::default();
        registry.set_rules(&agents(&[
            ("coder", "guard.agent=coder"),
            ("second", "team=blue"),
        ]));
        registry
    }

    #[track_caller]
    fn standing(labels: &[(&str, &str)]) -> Standing {
        let mut registry = registry();
        registry.describe(container("c", labels));
        registry.standing("c").unwrap()
    }

    #[test]
    fn a_label_decides_byte_for_byte() {
        assert_eq!(
            standing(&[("guard.agent", "coder")]),
            Standing::Agent(number("coder"))
        );
        assert_eq!(
            standing(&[("team", "blue"), ("x", "y")]),
            Standing::Agent(number("second"))
        );
        assert_eq!(standing(&[("team", "Blue")]), Standing::Bystander);
        assert_eq!(standing(&[]), Standing::Bystander);
    }

    #[test]
    fn a_claim_that_nobody_configured_is_denied_and_says_so() {
        for labels in [
            &[("guard.agent", "nobody")][..],
            &[("guard.agent", "")],
            // Exists, but does not take this label.
            &[("guard.agent", "second")],
            &[("guard.agent", "nobody"), ("team", "blue")],
        ] {
            let Standing::Denied(why) = standing(labels) else {
                panic!("{labels:?} is not denied")
            };
            assert!(why.contains("\"web\"") && why.contains("guard.agent="), "{why}");
        }
        assert!(matches!(
            standing(&[("guard.agent", "coder"), ("team", "blue")]),
            Standing::Denied(_)
        ));
    }

    #[test]
    fn what_the_engine_never_named_has_no_standing() {
        let mut registry = registry();
        assert_eq!(registry.standing("c"), None);
        registry.replace(vec![container("c", &[])]);
        assert_eq!(registry.standing("c"), Some(Standing::Bystander));
        registry.replace(vec![container("d", &[])]);
        assert_eq!(registry.standing("c"), None);
        registry.forget("d");
        assert_eq!(registry.standing("d"), None);
    }

    #[test]
    fn a_reload_judges_anew() {
        let mut registry = registry();
        registry.describe(container("c", &[("guard.agent", "coder")]));
        registry.set_rules(&[]);
        assert!(matches!(registry.standing("c"), Some(Standing::Denied(_))));
    }

    #[test]
    fn a_later_description_keeps_what_is_known_of_the_network() {
        let mut registry = registry();
        registry.describe(Described {
            host_network: Some(true),
            ..container("c", &[])
        });
        registry.describe(container("c", &[]));
        assert_eq!(registry.get("c").unwrap().host_network, Some(true));
    }
}
