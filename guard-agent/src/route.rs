//! In: the first bytes' meaning, and for what passes the original destination. Out: what to do with the connection. On
//! failure: there is none; what is not a provider's passes through, what would get around Guard is denied.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Agent, Mode};
use crate::dns::names::Names;
use crate::llm::provider::{Provider, covers, is_subtree};
use crate::peek::First;

pub mod addresses;
pub mod egress;
pub mod resolvers;

use addresses::ProviderAddresses;
use egress::{Cause, Egress, Passage, Refused};

/// What to do with a connection.
#[derive(Debug, Clone)]
pub enum Route {
    /// A provider over TLS: terminate it.
    Terminate {
        /// Whose.
        provider: Arc<Provider>,
        /// The name asked for.
        sni: String,
    },
    /// A provider over plain HTTP: answer that this is refused.
    PlainProvider {
        /// Whose.
        provider: Arc<Provider>,
    },
    /// Not a provider's: relay it to the original destination.
    Passthrough {
        /// The name in its first bytes, for the record.
        name: Option<String>,
        /// The client has said nothing yet: what it says later is inspected again.
        undecided: bool,
        /// It sent encrypted_client_hello, real or GREASE.
        ech: bool,
    },
}

/// Knows which names are providers'.
#[derive(Debug, Clone, Default)]
pub struct Router {
    hosts: HashMap<String, Arc<Provider>>,
    /// Names below which everything is a provider's.
    subtrees: Vec<(String, Arc<Provider>)>,
    addresses: Arc<ProviderAddresses>,
    names: Arc<Names>,
    egress: HashMap<Arc<str>, Egress>,
    without_rules: Egress,
    observe: bool,
}

impl Router {
    /// A router for these providers.
    pub fn new(providers: &[Arc<Provider>]) -> Self {
        let all = providers.iter().flat_map(|provider| {
            provider
                .hosts
                .iter()
                .map(|host| (host.to_ascii_lowercase(), provider.clone()))
        });
        let (subtrees, hosts): (Vec<_>, Vec<_>) = all.partition(|(host, _)| is_subtree(host));
        Self {
            hosts: hosts.into_iter().collect(),
            subtrees,
            addresses: Arc::default(),
            names: Arc::default(),
            egress: HashMap::new(),
            without_rules: Egress::default(),
            observe: false,
        }
    }

    /// The same, knowing addresses of providers too.
    #[must_use]
    pub fn with_addresses(mut self, addresses: Arc<ProviderAddresses>) -> Self {
        self.addresses = addresses;
        self
    }

    /// The same, knowing what DNS told whom.
    #[must_use]
    pub fn with_names(mut self, names: Arc<Names>) -> Self {
        self.names = names;
        self
    }

    /// Whether a connection may pass that hides its name behind this one by encrypted_client_hello: only where Guard's
    /// own answer led the agent to this address by this name, and the name does not stand for others.
    ///
    /// # Errors
    /// Why not, for the record.
    pub fn judge_ech(&self, agent: &str, destination: SocketAddr, name: Option<&str>) -> Result<(), String> {
        match name {
            Some(name) if resolvers::is_ech_front(name) => {
                Err("encrypted_client_hello for a name that stands for any other".to_owned())
            }
            Some(name) if self.names.gave(agent, destination.ip(), name) => Ok(()),
            _ => Err("encrypted_client_hello to an address that was not looked up by this name".to_owned()),
        }
    }

    /// The same, knowing where these agents may connect to.
    #[must_use]
    pub fn with_egress(mut self, agents: &[Arc<Agent>], mode: Mode) -> Self {
        let rules = agents
            .iter()
            .map(|agent| (agent.name.clone(), agent.egress.clone()));
        self.egress = rules.collect();
        self.observe = mode == Mode::Observe;
        self
    }

    /// Where an agent's connection may pass to, by the agent's rules and what DNS told it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn judge_egress(
        &self,
        agent: &str,
        destination: SocketAddr,
        name: Option<&str>,
    ) -> Result<Passage, Refused> {
        let looked_up = self.names.of(agent, destination.ip());
        self.egress(agent).judge(destination, name, &looked_up)
    }

    /// The rules of an agent; one that is not configured any more has those of an agent without rules.
    fn egress(&self, agent: &str) -> &Egress {
        self.egress.get(agent).unwrap_or(&self.without_rules)
    }

    /// Whether rules only say what they would refuse.
    pub fn observes(&self) -> bool {
        self.observe
    }

    /// The addresses that may be dialled for a name that is the reason to pass, the client's own choice first.
    ///
    /// # Errors
    /// The name leads nowhere, or only to where the agent may not go.
    pub async fn resolve(
        &self,
        agent: &str,
        destination: SocketAddr,
        name: &str,
    ) -> Result<Vec<SocketAddr>, Refused> {
        let egress = self.egress(agent);
        let found = self.addresses.find(name).await.map_err(|why| Refused {
            cause: Cause::Unresolved,
            rule: format!("it may pass only as {name:?}, but {why}"),
        })?;
        let wanted = destination.ip().to_canonical();
        let mut addresses: Vec<IpAddr> = found.iter().map(IpAddr::to_canonical).collect();
        addresses.sort_by_key(|address| *address != wanted);
        addresses.dedup();
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            let address = SocketAddr::new(address, destination.port());
            match egress.judge_resolved(name, address) {
                Ok(()) => allowed.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if allowed.is_empty() => Err(Refused {
                rule: format!("{name:?} leads to an address of which {}", why.rule),
                ..why
            }),
            _ => Ok(allowed),
        }
    }

    /// Whether a connection that is not a provider's by name may pass to where it is going.
    ///
    /// # Errors
    /// Why not, for the record: the address is a provider's.
    pub async fn judge_passage(&self, destination: SocketAddr, name: Option<&str>) -> Result<(), String> {
        self.addresses.judge(destination, name).await
    }

    /// The provider to whom a host belongs: by its exact name, or by a name that it is below.
    pub fn provider(&self, host: &str) -> Option<&Arc<Provider>> {
        self.hosts.get(host).or_else(|| {
            let below = self.subtrees.iter().find(|(own, _)| covers(own, host));
            below.map(|(_, provider)| provider)
        })
    }

    /// Decides what to do, by name. A provider's outer name is terminated whatever encrypted_client_hello says. What
    /// passes is judged by its address too, in [`Router::judge_passage`].
    pub fn route(&self, first: &First) -> Route {
        match first {
            First::Tls(hello) => match hello.sni.as_deref().map(|sni| (sni, self.provider(sni))) {
                Some((sni, Some(provider))) => Route::Terminate {
                    provider: provider.clone(),
                    sni: sni.to_owned(),
                },
                _ => Route::Passthrough {
                    name: hello.sni.clone(),
                    undecided: false,
                    ech: hello.ech,
                },
            },
            First::Http(head) => match head.hosts.iter().find_map(|host| self.provider(host)) {
                Some(provider) => Route::PlainProvider {
                    provider: provider.clone(),
                },
                None => Route::Passthrough {
                    name: head.hosts.first().cloned(),
                    undecided: false,
                    ech: false,
                },
            },
            First::Other => Route::Passthrough {
                name: None,
                undecided: false,
                ech: false,
            },
            First::Silent => Route::Passthrough {
                name: None,
                undecided: true,
                ech: false,
            },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::llm::DialectKind;
    use crate::llm::provider::Auth;
    use crate::peek::{ClientHello, PlainHead};

    pub(crate) fn provider(name: &str, host: &str) -> Provider {
        Provider::plain(name, &[host], DialectKind::OpenaiChat, Auth::Bearer)
    }

    fn route(first: First) -> Route {
        let router = Router::new(&[Arc::new(provider("openai", "API.openai.com"))]);
        router.route(&first)
    }

    fn hello(sni: &str, ech: bool) -> First {
        First::Tls(ClientHello {
            sni: Some(sni.to_owned()),
            ech,
            ..ClientHello::default()
        })
    }

    #[test]
    fn a_provider_name_is_terminated_with_or_without_ech() {
        for ech in [false, true] {
            assert!(matches!(
                route(hello("api.openai.com", ech)),
                Route::Terminate { .. }
            ));
        }
        assert!(matches!(
            route(hello("example.com", false)),
            Route::Passthrough {
                name: Some(_),
                undecided: false,
                ech: false,
            }
        ));
    }

    #[test]
    fn a_provider_name_over_plain_http_is_found_in_any_place() {
        let hosts = vec!["a.example".to_owned(), "api.openai.com".to_owned()];
        assert!(matches!(
            route(First::Http(PlainHead { hosts })),
            Route::PlainProvider { .. }
        ));
    }

    #[test]
    fn ech_passes_only_where_guards_own_answer_led() {
        let names = Arc::new(Names::default());
        let here: SocketAddr = "203.0.113.7:443".parse().unwrap();
        for name in ["a.example", "cloudflare-ech.com"] {
            names.learn("coder", here.ip(), name, std::time::Duration::ZERO);
        }
        let router = Router::new(&[]).with_names(names);
        let judge = |agent, name| router.judge_ech(agent, here, name).is_ok();
        assert!(judge("coder", Some("a.example")));
        for (agent, name) in [
            ("coder", Some("b.example")),
            ("coder", None),
            ("other", Some("a.example")),
            ("coder", Some("cloudflare-ech.com")),
        ] {
            assert!(!judge(agent, name), "{agent} {name:?}");
        }
    }

    #[test]
    fn a_silent_client_stays_undecided() {
        assert!(matches!(
            route(First::Silent),
            Route::Passthrough { undecided: true, .. }
        ));
    }
}
