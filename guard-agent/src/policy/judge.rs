//! One call before the rules.
//!
//! In: the rules in force, the caller, the call. Out: what it may do and what it holds. On failure: the first refusal.
//! In observe mode a refusal becomes a note in the record, and the call goes on as it was sent.

use std::sync::Arc;
use std::time::Instant;

use crate::call::Call;
use crate::config::{Agent, Mode, Unpriced};
use crate::identity::Identity;
use crate::keys::sigv4;
use crate::llm::prices::ModelPrice;
use crate::llm::provider::{Auth, Provider};
use crate::llm::{BodyEdits, DialectKind, Gate, RequestFacts};
use crate::policy::access::{self, Passage};
use crate::policy::caps::OutputCap;
use crate::policy::frozen::Freeze;
use crate::policy::growth::Growth;
use crate::policy::in_flight::Slot;
use crate::policy::loops::Level;
use crate::policy::money::{self, Bill};
use crate::policy::multipliers::{Asked, Reached, Watch};
use crate::policy::tool_gate::ToolGate;
use crate::policy::{Credential, Deadline, Hold, Policy, Snapshot, caps, key, rate, tools};
use crate::record::Draft;
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::ToolVerdict;

mod life;
mod soften;

/// A call that is being judged.
pub(super) struct Judging<'a> {
    pub(super) policy: &'a Policy,
    pub(super) rules: &'a Snapshot,
    pub(super) who: &'a Identity,
    pub(super) provider: &'a Provider,
    pub(super) call: &'a Call,
    pub(super) draft: &'a mut Draft,
    /// What is said to the model with this call.
    pub(super) notes: Vec<String>,
}

/// What was found for a call that may happen.
pub(super) struct Verdict {
    pub(super) edits: BodyEdits,
    pub(super) credential: Credential,
    pub(super) hold: Option<Hold>,
    /// The place among the agent's calls in flight, free ones too: each holds a place in the audit log.
    pub(super) place: Option<Slot>,
    /// Judges the tool calls in the reply.
    pub(super) gate: Option<Arc<dyn Gate>>,
    /// The place in its run, for inference.
    pub(super) watch: Option<Watch>,
    /// When its stream is ended.
    pub(super) deadline: Option<Deadline>,
}

impl<'a> Judging<'a> {
    /// Every check, in order.
    pub(super) fn judge(mut self) -> Result<Verdict, Refusal> {
        let rules = self.rules;
        let Some(agent) = rules.agents.get(&self.who.agent) else {
            let gone =
                "This agent is no longer in the configuration. Ask the operator to add it to guard.toml.";
            return Err(Refusal::new(Reason::Unidentified, gone));
        };
        let call = self.call;
        // Also in observe mode: somebody said so, no rule did.
        self.policy.frozen.check(&agent.name, &self.who.run)?;
        let allowed = access::endpoint(agent, &self.provider.name, call.endpoint, call.path());
        let passage = self.weigh(allowed)?.unwrap_or(if call.facts.is_some() {
            Passage::Metered
        } else {
            Passage::Listed
        });
        let credential = self.credential(agent, passage)?;
        let place = self.weigh(self.policy.in_flight.enter(agent))?;
        let (edits, hold, watch) = match (passage, &call.facts) {
            (Passage::Metered, Some(facts)) => {
                let (edits, hold, watch) = self.inference(agent, facts)?;
                (edits, Some(hold), Some(watch))
            }
            // Nothing would bound it. The path reads every inference body, so this is a fault, in observe mode too.
            (Passage::Metered, None) => {
                return Err(Refusal::new(
                    Reason::Internal,
                    "The request was not read, because of a fault in Guard.",
                ));
            }
            (Passage::Free | Passage::Listed | Passage::Side, _) => (BodyEdits::default(), None, None),
        };
        let gate = self.gate(agent);
        Ok(Verdict {
            edits,
            credential,
            hold,
            place,
            gate,
            watch,
            deadline: self.deadline(agent),
        })
    }

    /// What judges the reply's tool calls. In observe mode nothing is held back, and the record says what would have been.
    fn gate(&mut self, agent: &Arc<Agent>) -> Option<Arc<dyn Gate>> {
        let facts = self.call.facts.as_ref()?;
        let gate = Arc::new(ToolGate::of(agent, facts, self.call.id.to_string())?);
        if self.rules.mode == Mode::Observe {
            self.draft.watch_tools(gate);
            return None;
        }
        Some(gate)
    }

    /// What is checked for inference only. Money comes last.
    fn inference(
        &mut self,
        agent: &Arc<Agent>,
        facts: &RequestFacts,
    ) -> Result<(BodyEdits, Hold, Watch), Refusal> {
        self.weigh(access::model(agent, &facts.model))?;
        let price = self.price(facts);
        let price = self.weigh(price)?;
        let softened = self.soften(agent, facts, price);
        let (facts, price) = match &softened {
            Some(other) => (&other.facts, Some(&other.price)),
            None => (facts, price),
        };
        let cap = match price {
            Some(price) => {
                let judged = caps::output(agent, facts, Some(price.max_output), facts.untouchable);
                self.weigh(judged)?
                    .or(Some(caps::as_sent(facts, price.max_output)))
                    .map(|cap| softened.as_ref().map_or(cap, |other| other.capped(cap)))
            }
            None => None,
        };
        self.limits(agent)?;
        let strip = self.weigh(tools::declared(agent, &facts.tools, facts.untouchable))?;
        let watch = self.multipliers(agent, facts, cap)?;
        let edits = match self.rules.mode {
            Mode::Enforce => BodyEdits {
                model: softened.as_ref().map(|other| other.facts.model.clone()),
                note: self.note(facts),
                ..self.edits(facts, cap, strip.unwrap_or_default())
            },
            Mode::Observe => BodyEdits::default(),
        };
        for tool in &edits.strip_tools {
            self.policy.metrics.tool(&agent.name, tool, ToolVerdict::Stripped);
        }
        let bill = Bill {
            stripped: &edits.strip_tools,
            cap,
            added: edits.note.as_ref().map_or(0, |note| note.len() as u64),
            ..self.bill(agent, facts, price)
        };
        let ledger = &self.policy.ledger;
        let (reservation, growth) = match (bill.reserve(ledger, self.call), self.rules.mode) {
            (Err(refusal), Mode::Observe) => {
                // That there is no price was said above.
                if price.is_some() {
                    self.weigh::<()>(Err(refusal))?;
                }
                (bill.reserve_unlimited(ledger, self.call), None)
            }
            (reserved, mode) => {
                let (reservation, worst) = reserved?;
                let growth = (mode == Mode::Enforce && facts.stream).then(|| {
                    let policy = self.policy;
                    let payer = bill.payer(&policy.snapshot, &policy.grants, policy.recorder.clock());
                    Growth::new(payer, &worst)
                });
                (Some(reservation), growth)
            }
        };
        let hold = Hold {
            price: price.cloned(),
            reservation,
            growth,
            bound: facts.bound,
        };
        Ok((edits, hold, watch))
    }

    /// Retries, loops and rate, in this order.
    fn multipliers(
        &mut self,
        agent: &Arc<Agent>,
        facts: &RequestFacts,
        cap: Option<OutputCap>,
    ) -> Result<Watch, Refusal> {
        let now = Instant::now();
        let body_bytes = self.call.body.len() as u64;
        let judged = self.policy.multipliers.judge(&Asked {
            agent,
            run: &self.who.run,
            provider: &self.provider.name,
            facts,
            body: self.call.body_fingerprint,
            body_bytes,
            claimed: self.call.said.retry_count,
            now,
        });
        if judged.retry {
            self.policy.metrics.client_retry(&agent.name);
            self.policy.recorder.tally().retried(&agent.name);
        }
        if let Err(refusal) = &judged.retries {
            self.tried_too_often(agent, refusal, judged.first_retry_refusal);
        }
        self.weigh(judged.retries)?;
        if let Some(refusal) = judged.cut {
            self.weigh::<()>(Err(refusal))?;
        }
        let mut watch = judged.watch;
        for reached in &judged.reached {
            self.reached(agent, reached)?;
            if agent.loops.steer && reached.level >= Level::Warn {
                self.notes.push(reached.reading.note(agent));
            }
        }
        let output = cap.map_or(facts.output_cap.unwrap_or(0), |cap| cap.tokens);
        let tokens = rate::estimate(facts, body_bytes, output);
        let booked = watch.book(agent, tokens, now);
        self.weigh(booked)?;
        Ok(watch)
    }

    fn tried_too_often(&mut self, agent: &Agent, refusal: &Refusal, first: bool) {
        self.draft.finding("retries");
        self.policy.metrics.finding(&agent.name, "retries");
        if first {
            let message = format!("retries: in run {}: {}", self.who.run, refusal.message);
            tracing::warn!("{message}");
            self.policy
                .recorder
                .alert(agent, "retries", &self.who.run, message);
        }
    }

    /// A loop rule has come somewhere: a note, an alert, a refusal.
    fn reached(&mut self, agent: &Agent, reached: &Reached) -> Result<(), Refusal> {
        let Reached {
            reading,
            level,
            first,
        } = reached;
        let kind = reading.rule.finding();
        self.draft.finding(kind);
        self.policy.metrics.finding(&agent.name, kind);
        if *first && *level >= Level::Warn {
            let message = reading.alert(agent, &self.who.run, *level);
            tracing::warn!("{message}");
            let about = format!("{} {level:?} {}", self.who.run, reading.rule.key());
            self.policy.recorder.alert(agent, "loop", &about, message);
        }
        if *level < Level::Trip {
            return Ok(());
        }
        if agent.loops.freeze && self.rules.mode == Mode::Enforce {
            let freeze = Freeze {
                why: reading.alert(agent, &self.who.run, Level::Warn),
                at: self.policy.recorder.now(),
                by_uid: None,
            };
            self.policy.frozen.freeze_soon(&agent.name, &self.who.run, freeze);
        }
        self.weigh(Err(reading.refusal(agent)))
            .map(|_observed: Option<()>| ())
    }

    fn edits(&self, facts: &RequestFacts, cap: Option<OutputCap>, strip_tools: Vec<String>) -> BodyEdits {
        // A stream of this format has no usage otherwise.
        let include_usage = matches!(
            self.call.dialect.kind(),
            DialectKind::OpenaiChat | DialectKind::OpenaiCompletions
        ) && facts.stream
            && !facts.include_usage
            && !facts.untouchable;
        BodyEdits {
            output_cap: cap.and_then(|cap| cap.rewrite),
            include_usage,
            strip_tools,
            ..BodyEdits::default()
        }
    }

    fn credential(&mut self, agent: &Agent, passage: Passage) -> Result<Credential, Refusal> {
        let (rules, provider) = (self.rules, self.provider);
        let real = rules.vault.key(provider.key_name());
        let shown = &self.call.said.credentials;
        if passage == Passage::Side && shown.iter().all(|shown| shown.secret.expose().is_empty()) {
            // Settings that anybody may ask for: no key goes where the client sent none.
            return Ok(Credential::Pass);
        }
        let holder = provider.key_name();
        let judged = key::decide(agent, holder, shown, &rules.placeholders, real.is_some());
        let chosen = match judged {
            Ok(chosen) => chosen,
            Err(denied) => {
                if let Some(finding) = denied.finding {
                    self.draft.finding(finding.label());
                    self.policy.metrics.finding(&agent.name, finding.label());
                }
                self.weigh::<()>(Err(denied.refusal))?;
                key::Credential::Caller
            }
        };
        match (chosen, real) {
            (key::Credential::Guard, Some((name, secret))) => {
                self.draft.key(name);
                if provider.auth == Auth::Aws && sigv4::is_key_pair(secret.expose()) {
                    return Ok(Credential::Sign {
                        secret: secret.clone(),
                    });
                }
                Ok(Credential::Inject {
                    header: provider.auth.header(&self.call.said),
                    secret: secret.clone(),
                })
            }
            (key::Credential::Guard | key::Credential::Caller, _) => Ok(Credential::Pass),
        }
    }

    fn price(&mut self, facts: &RequestFacts) -> Result<&'a Arc<ModelPrice>, Refusal> {
        let (rules, provider) = (self.rules, &self.provider.name);
        let kin = self.provider.like.as_deref();
        let found = rules.prices.find(provider, &facts.model);
        let found = found.or_else(|| rules.prices.find(kin?, &facts.model));
        if let Some(price) = found.filter(|price| price.hears(facts.audio)) {
            return Ok(price);
        }
        self.policy.metrics.unpriced(&self.who.agent, provider);
        let ceiling = rules.prices.ceiling(provider);
        let ceiling = ceiling.or_else(|| rules.prices.ceiling(kin?));
        let known =
            |price: &&Arc<ModelPrice>| rules.unpriced == Unpriced::Ceiling && price.hears(facts.audio);
        match ceiling.filter(known) {
            Some(ceiling) => {
                self.draft.finding("priced_by_ceiling");
                Ok(ceiling)
            }
            None => Err(money::unpriced(provider, &facts.model)),
        }
    }

    fn weigh<T>(&mut self, result: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
        match (result, self.rules.mode) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(refusal), Mode::Enforce) => Err(refusal),
            (Err(refusal), Mode::Observe) => {
                self.policy.metrics.would_refuse(&self.who.agent, refusal.reason);
                self.draft.would_refuse(refusal.reason);
                Ok(None)
            }
        }
    }
}
