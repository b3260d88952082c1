//! Decides.
//!
//! In: who calls (`Identity`), where to (`Provider`) and what (`Call`). Out: a `Permit`, which only this module can make
//! and only `forward` consumes, or a `Refusal`, recorded already.
//! On failure: any internal error is a refusal. In observe mode nothing is refused and no byte is changed: the record
//! says what would have been.
//!
//! The checks run in a fixed order: access, key, caps, tools, price, budget. Money is reserved last, so that a call
//! that is refused for another reason never holds any.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderName, StatusCode};

use crate::call::Call;
use crate::config::{Agent, Config, Mode};
use crate::identity::Identity;
use crate::keys::Secret;
use crate::keys::placeholder::Placeholders;
use crate::keys::vault::Vault;
use crate::ledger::Ledger;
use crate::llm::prices::{ModelPrice, PriceTable};
use crate::llm::provider::Provider;
use crate::llm::{BodyEdits, DialectKind, ReplyFacts, RequestFacts};
use crate::record::{Draft, Recorder};
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::{Metrics, Stage, ToolVerdict};

pub mod access;
pub mod budget;
pub mod caps;
pub mod in_flight;
pub mod key;
mod money;
pub mod tools;

use access::Passage;
use in_flight::InFlight;

/// Judges calls. Synchronous: a decision reads memory and appends to a journal, nothing else.
pub trait Decide: Send + Sync {
    /// Admits the call, with everything that follows from it reserved, or says why not.
    ///
    /// # Errors
    /// The refusal, recorded already.
    fn decide(&self, identity: &Identity, provider: &Provider, call: &Call) -> Result<Permit, Refusal>;
}

/// Leave to forward one call. Only this module makes one; only `forward` consumes one.
pub struct Permit {
    /// Changes to the body.
    edits: BodyEdits,
    /// What the provider gets to see as the credential.
    credential: Credential,
    /// Takes the outcome, once.
    settlement: Box<dyn Settle>,
}

impl Permit {
    /// Takes the permit apart, to use it.
    pub(crate) fn redeem(self) -> (BodyEdits, Credential, Box<dyn Settle>) {
        (self.edits, self.credential, self.settlement)
    }

    /// A permit for tests of the stages behind this one.
    #[cfg(test)]
    pub(crate) fn for_test(edits: BodyEdits, credential: Credential, settlement: Box<dyn Settle>) -> Self {
        Self {
            edits,
            credential,
            settlement,
        }
    }
}

/// The credential of a forwarded call.
pub(crate) enum Credential {
    /// Guard's key; whatever the caller presented is taken out.
    Inject {
        /// Which header.
        header: HeaderName,
        /// The key.
        secret: Secret,
    },
    /// The caller's own login, as it came.
    Pass,
}

/// What a permit has reserved. Consumed with the call's outcome, on every path.
pub trait Settle: Send {
    /// Books the outcome.
    fn settle(self: Box<Self>, outcome: Outcome);
}

/// How a forwarded call ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The request (or part of it) may have reached the provider. If not, nothing can have been billed.
    pub forwarded: bool,
    /// Status of the provider's answer, if one came.
    pub status: Option<StatusCode>,
    /// What the reply held; usage `None` is unknown, never zero.
    pub facts: ReplyFacts,
    /// The client left before the reply ended.
    pub client_gone: bool,
    /// From forwarding to the first byte of the reply's body.
    pub first_token: Option<Duration>,
    /// From forwarding to the end.
    pub duration: Duration,
    /// Bytes of the request's body as forwarded.
    pub request_bytes: u64,
    /// Bytes of the reply's body as the provider sent them.
    pub reply_bytes: u64,
    /// Why there was no answer, or not all of it.
    pub upstream_error: Option<String>,
}

/// The rules in force; replaced as a whole on reload.
pub struct Snapshot {
    mode: Mode,
    agents: HashMap<Arc<str>, Arc<Agent>>,
    vault: Vault,
    placeholders: Placeholders,
    prices: Arc<PriceTable>,
}

impl Snapshot {
    /// The rules of a configuration.
    pub fn new(config: &Config, vault: Vault, placeholders: Placeholders, prices: Arc<PriceTable>) -> Self {
        let agents = config
            .agents
            .iter()
            .map(|agent| (agent.name.clone(), agent.clone()))
            .collect();
        Self {
            mode: config.host.mode,
            agents,
            vault,
            placeholders,
            prices,
        }
    }
}

/// The policy of this host.
pub struct Policy {
    snapshot: ArcSwap<Snapshot>,
    in_flight: InFlight,
    ledger: Arc<Ledger>,
    recorder: Arc<Recorder>,
    metrics: Arc<Metrics>,
}

impl Policy {
    /// A policy that follows these rules.
    pub fn new(
        snapshot: Snapshot,
        ledger: Arc<Ledger>,
        recorder: Arc<Recorder>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            in_flight: InFlight::default(),
            ledger,
            recorder,
            metrics,
        }
    }

    /// Calls of an agent that are in flight.
    pub fn in_flight(&self, agent: &str) -> u32 {
        self.in_flight.count(agent)
    }

    /// Puts other rules in force for the calls that follow.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    fn judge(
        &self,
        rules: &Snapshot,
        who: &Identity,
        provider: &Provider,
        call: &Call,
        draft: &mut Draft,
    ) -> Result<Verdict, Refusal> {
        let Some(agent) = rules.agents.get(&who.agent) else {
            let gone =
                "This agent is no longer in the configuration. Ask the operator to add it to guard.toml.";
            return Err(Refusal::new(Reason::Unidentified, gone));
        };
        let mut judging = Judging {
            mode: rules.mode,
            draft,
        };
        let passage = judging
            .weigh(access::endpoint(
                agent,
                &provider.name,
                call.endpoint,
                call.path(),
            ))?
            .unwrap_or(if call.facts.is_some() {
                Passage::Metered
            } else {
                Passage::Listed
            });
        let credential = self.credential(rules, agent, provider, call, &mut judging)?;
        let mut verdict = Verdict {
            edits: BodyEdits::default(),
            credential,
            hold: None,
        };
        let (Passage::Metered, Some(facts)) = (passage, &call.facts) else {
            return Ok(verdict);
        };
        judging.weigh(access::model(agent, &facts.model))?;
        let slot = judging.weigh(self.in_flight.enter(agent))?;

        let price = judging.weigh(self.price(rules, provider, facts, who))?;
        let max_output = price.map(|price| price.max_output);
        let cap = judging.weigh(caps::output(agent, facts, max_output, facts.untouchable))?;
        let stripped = judging.weigh(tools::declared(agent, &facts.tools, facts.untouchable))?;
        if rules.mode == Mode::Enforce {
            verdict.edits = BodyEdits {
                output_cap: cap.and_then(|cap| cap.rewrite),
                include_usage: asks_for_usage(provider, facts),
                strip_tools: stripped.unwrap_or_default(),
            };
        }
        for tool in &verdict.edits.strip_tools {
            self.metrics.tool(&agent.name, tool, ToolVerdict::Stripped);
        }
        let bill = money::Bill {
            agent,
            who,
            facts,
            stripped: &verdict.edits.strip_tools,
            price,
            cap,
        };
        let reservation = match bill.reserve(&self.ledger, call) {
            Err(refusal) if rules.mode == Mode::Observe => {
                judging.weigh::<()>(Err(refusal))?;
                bill.reserve_unlimited(&self.ledger, call)
            }
            reserved => Some(reserved?),
        };
        verdict.hold = Some(Hold {
            price: price.cloned(),
            reservation,
            slot,
        });
        Ok(verdict)
    }

    fn credential(
        &self,
        rules: &Snapshot,
        agent: &Agent,
        provider: &Provider,
        call: &Call,
        judging: &mut Judging<'_>,
    ) -> Result<Credential, Refusal> {
        let real = rules.vault.key(&provider.name);
        let judged = key::decide(
            agent,
            &provider.name,
            &call.said.credentials,
            &rules.placeholders,
            real.is_some(),
        );
        let chosen = match judged {
            Ok(chosen) => chosen,
            Err(denied) => {
                if let Some(finding) = denied.finding {
                    judging.draft.finding(finding.label());
                    self.metrics.finding(&agent.name, finding.label());
                }
                judging.weigh::<()>(Err(denied.refusal))?;
                key::Credential::Caller
            }
        };
        match (chosen, real) {
            (key::Credential::Guard, Some((name, secret))) => {
                judging.draft.key(name);
                Ok(Credential::Inject {
                    header: provider.auth.header(&call.said),
                    secret: secret.clone(),
                })
            }
            (key::Credential::Guard | key::Credential::Caller, _) => Ok(Credential::Pass),
        }
    }

    fn price<'p>(
        &self,
        rules: &'p Snapshot,
        provider: &Provider,
        facts: &RequestFacts,
        who: &Identity,
    ) -> Result<&'p Arc<ModelPrice>, Refusal> {
        rules.prices.find(&provider.name, &facts.model).ok_or_else(|| {
            self.metrics.unpriced(&who.agent, &provider.name);
            money::unpriced(&provider.name, &facts.model)
        })
    }
}

impl Decide for Policy {
    fn decide(&self, who: &Identity, provider: &Provider, call: &Call) -> Result<Permit, Refusal> {
        let started = Instant::now();
        let rules = self.snapshot.load();
        let mut draft = self.recorder.draft(who, provider, call);
        // The audit slot comes first: what can't be recorded may not happen.
        let (slot, judged) = match self.recorder.slot() {
            Ok(slot) => (Some(slot), self.judge(&rules, who, provider, call, &mut draft)),
            Err(refusal) => (None, Err(refusal)),
        };
        let decided = match (slot, judged) {
            (
                Some(slot),
                Ok(Verdict {
                    edits,
                    credential,
                    hold,
                }),
            ) => {
                draft.rewrites(&edits, matches!(credential, Credential::Inject { .. }));
                let settlement = Box::new(self.recorder.ticket(slot, draft, hold));
                Ok(Permit {
                    edits,
                    credential,
                    settlement,
                })
            }
            (slot, Err(refusal)) => {
                self.recorder.refused_call(slot, draft, &refusal);
                Err(refusal)
            }
            (None, Ok(_)) => Err(Refusal::new(
                Reason::Internal,
                "A call without a place in the record.",
            )),
        };
        self.metrics.added(Stage::Decide, started.elapsed());
        decided
    }
}

/// What `judge` found for a call that may happen.
struct Verdict {
    edits: BodyEdits,
    credential: Credential,
    hold: Option<Hold>,
}

/// What a metered call holds until it is settled.
pub(crate) struct Hold {
    /// The price at which it is settled.
    pub(crate) price: Option<Arc<ModelPrice>>,
    /// The money; none only in observe mode, when not even an unlimited reservation could be written.
    pub(crate) reservation: Option<crate::ledger::Reservation>,
    /// The place among the agent's calls in flight.
    pub(crate) slot: Option<in_flight::Slot>,
}

/// Turns refusals into notes in observe mode.
struct Judging<'a> {
    mode: Mode,
    draft: &'a mut Draft,
}

impl Judging<'_> {
    fn weigh<T>(&mut self, result: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
        match (result, self.mode) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(refusal), Mode::Enforce) => Err(refusal),
            (Err(refusal), Mode::Observe) => {
                self.draft.would_refuse(refusal.reason);
                Ok(None)
            }
        }
    }
}

/// Whether usage has to be asked for: a stream of this format has none otherwise.
fn asks_for_usage(provider: &Provider, facts: &RequestFacts) -> bool {
    provider.dialect == DialectKind::OpenaiChat && facts.stream && !facts.include_usage && !facts.untouchable
}

/// Longest piece of a caller's own text in a message, in characters.
const QUOTED: usize = 64;

/// A caller's own text for a message: in quotes, on one line, of bounded length.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().take(QUOTED).map(plain).collect();
    if text.chars().nth(QUOTED).is_some() {
        short.push('…');
    }
    format!("\"{short}\"")
}

#[cfg(test)]
pub(crate) mod tests_support {
    use std::sync::Arc;

    use crate::config::{Agent, Config, check_text};
    use crate::llm::DialectKind;
    use crate::llm::provider::{Auth, Provider};

    /// The agent `coder` with these further lines of configuration; `openai` and `anthropic` are known.
    pub(crate) fn agent(lines: &str) -> Arc<Agent> {
        config(lines).agents[0].clone()
    }

    /// A configuration with that agent only.
    pub(crate) fn config(lines: &str) -> Config {
        let provider = |name: &str, dialect| Provider {
            name: name.to_owned(),
            hosts: vec![format!("api.{name}.com")],
            dialect,
            auth: Auth::Bearer,
            base_path: String::new(),
            keys: Vec::new(),
            connect_to: None,
            trust: Vec::new(),
        };
        let table = vec![
            provider("openai", DialectKind::OpenaiChat),
            provider("anthropic", DialectKind::AnthropicMessages),
        ];
        let text = format!("[[agent]]\nname = \"coder\"\nowner = \"team\"\n{lines}\n");
        let checked = check_text(&text, "guard.toml", table);
        checked
            .config
            .unwrap_or_else(|| panic!("{:#?}", checked.problems))
    }
}
