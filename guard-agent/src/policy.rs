//! Decides.
//!
//! In: who calls (`Identity`), where to (`Provider`) and what (`Call`). Out: a `Permit`, which only this module can make
//! and only `forward` consumes, or a `Refusal`, recorded already.
//! On failure: any internal error is a refusal. In observe mode nothing is refused and no byte is changed: the record
//! says what would have been.
//!
//! The checks run in a fixed order: frozen, access, key, caps, tools, multipliers, rate, budget. Money is reserved last,
//! so that a call that is refused for another reason never holds any.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::HeaderName;

use crate::call::Call;
use crate::config::{Agent, Config, Mode, SharedBudget, Unpriced};
use crate::identity::Identity;
use crate::keys::Secret;
use crate::keys::placeholder::Placeholders;
use crate::keys::vault::Vault;
use crate::ledger::Ledger;
use crate::llm::prices::{ModelPrice, PriceTable};
use crate::llm::provider::Provider;
use crate::llm::{BodyEdits, Bound, Gate};
use crate::record::Recorder;
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::{Metrics, Stage};

pub mod access;
pub mod budget;
pub mod caps;
mod covers;
pub mod frozen;
pub mod grants;
mod growth;
pub mod in_flight;
mod judge;
mod kept;
pub mod key;
mod loops;
mod money;
pub mod multipliers;
pub mod outcomes;
mod rate;
mod retries;
mod settle;
mod soft;
pub(crate) mod tool_gate;
pub mod tools;

use frozen::Frozen;
use grants::Grants;
use growth::Growth;
use in_flight::InFlight;
use judge::{Judging, Verdict};
use multipliers::{Multipliers, Watch};
pub use settle::{Deadline, Outcome, Settle};

/// Judges calls. Synchronous: a decision reads memory and appends to a journal, nothing else.
pub trait Decide: Send + Sync {
    /// Admits the call, with everything that follows from it reserved, or says why not.
    ///
    /// # Errors
    /// The refusal, recorded already.
    fn decide(&self, identity: &Identity, provider: &Provider, call: &Call) -> Result<Permit, Refusal>;

    /// Why the agent or its run may make no call at all, if it may not: for a socket that is open.
    fn standing(&self, _identity: &Identity) -> Option<Refusal> {
        None
    }
}

/// Leave to forward one call. Only this module makes one; only `forward` consumes one.
pub struct Permit {
    /// Changes to the body.
    edits: BodyEdits,
    /// What the provider gets to see as the credential.
    credential: Credential,
    /// Takes the outcome, once.
    settlement: Box<dyn Settle>,
    /// Judges the tool calls in the reply.
    gate: Option<Arc<dyn Gate>>,
}

/// A permit, taken apart.
pub(crate) struct Redeemed {
    pub(crate) edits: BodyEdits,
    pub(crate) credential: Credential,
    pub(crate) settlement: Box<dyn Settle>,
    pub(crate) gate: Option<Arc<dyn Gate>>,
}

impl Permit {
    /// Takes the permit apart, to use it.
    pub(crate) fn redeem(self) -> Redeemed {
        Redeemed {
            edits: self.edits,
            credential: self.credential,
            settlement: self.settlement,
            gate: self.gate,
        }
    }

    /// A permit for tests of the stages behind this one.
    #[cfg(test)]
    pub(crate) fn for_test(edits: BodyEdits, credential: Credential, settlement: Box<dyn Settle>) -> Self {
        Self {
            edits,
            credential,
            settlement,
            gate: None,
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
    /// Sign with Guard's key pair, after removing the caller's signature.
    Sign {
        /// The pair.
        secret: Secret,
    },
}

/// The rules in force; replaced as a whole on reload.
pub struct Snapshot {
    mode: Mode,
    agents: HashMap<Arc<str>, Arc<Agent>>,
    /// Budgets that agents share.
    budgets: Vec<SharedBudget>,
    vault: Vault,
    placeholders: Placeholders,
    prices: Arc<PriceTable>,
    unpriced: Unpriced,
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
            budgets: config.budgets.clone(),
            vault,
            placeholders,
            prices,
            unpriced: config.unpriced,
        }
    }
}

/// The policy of this host.
pub struct Policy {
    snapshot: Arc<ArcSwap<Snapshot>>,
    frozen: Arc<Frozen>,
    grants: Arc<Grants>,
    in_flight: InFlight,
    multipliers: Arc<Multipliers>,
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
            snapshot: Arc::new(ArcSwap::from_pointee(snapshot)),
            frozen: Arc::default(),
            grants: Arc::default(),
            in_flight: InFlight::default(),
            multipliers: Arc::default(),
            ledger,
            recorder,
            metrics,
        }
    }

    /// Takes over what was frozen before.
    #[must_use]
    pub fn with_frozen(mut self, frozen: Frozen) -> Self {
        self.frozen = Arc::new(frozen);
        self
    }

    /// Takes over what was granted before.
    #[must_use]
    pub fn with_grants(mut self, grants: Grants) -> Self {
        self.grants = Arc::new(grants);
        self
    }

    /// What is granted beyond budgets.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// What is frozen.
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    /// What is known of runs beyond one call.
    pub fn multipliers(&self) -> &Multipliers {
        &self.multipliers
    }

    /// Calls of an agent that are in flight.
    pub fn in_flight(&self, agent: &str) -> u32 {
        self.in_flight.count(agent)
    }

    /// Puts other rules in force for the calls that follow.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }
}

impl Decide for Policy {
    fn decide(&self, who: &Identity, provider: &Provider, call: &Call) -> Result<Permit, Refusal> {
        let started = Instant::now();
        let rules = self.snapshot.load();
        let mut draft = self.recorder.draft(who, provider, call);
        // The audit slot comes first: what can't be recorded may not happen.
        let (slot, judged) = match self.recorder.slot() {
            Ok(slot) => {
                let judging = Judging {
                    policy: self,
                    rules: &rules,
                    who,
                    provider,
                    call,
                    draft: &mut draft,
                    notes: Vec::new(),
                };
                (Some(slot), judging.judge())
            }
            Err(refusal) => (None, Err(refusal)),
        };
        let decided = match (slot, judged) {
            (
                Some(slot),
                Ok(Verdict {
                    edits,
                    credential,
                    hold,
                    place,
                    gate,
                    watch,
                    deadline,
                }),
            ) => {
                draft.rewrites(&edits, !matches!(credential, Credential::Pass));
                let settlement = Box::new(self.recorder.ticket(
                    slot,
                    draft,
                    hold,
                    Places {
                        place,
                        watch,
                        deadline,
                    },
                ));
                Ok(Permit {
                    edits,
                    credential,
                    settlement,
                    gate,
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

    fn standing(&self, who: &Identity) -> Option<Refusal> {
        self.frozen.check(&who.agent, &who.run).err()
    }
}

/// What a metered call holds until it is settled.
pub(crate) struct Hold {
    /// The price at which it is settled.
    pub(crate) price: Option<Arc<ModelPrice>>,
    /// The money; none only in observe mode, when not even an unlimited reservation could be written.
    pub(crate) reservation: Option<crate::ledger::Reservation>,
    /// How it grows with a stream; none where nothing is refused.
    pub(crate) growth: Option<Growth>,
    /// The most that it can be billed for, where its kind says so, and what it sent that is billed.
    pub(crate) bound: Option<Bound>,
}

/// What an admitted call occupies beside money, until it has ended.
pub(crate) struct Places {
    /// Among the agent's calls in flight.
    pub(crate) place: Option<in_flight::Slot>,
    /// In its run.
    pub(crate) watch: Option<Watch>,
    /// When its stream is ended.
    pub(crate) deadline: Option<Deadline>,
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
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

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
        let provider =
            |name: &str, dialect| Provider::plain(name, &[&format!("api.{name}.com")], dialect, Auth::Bearer);
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
