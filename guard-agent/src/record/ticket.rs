//! What a permit holds, and the one place where it is given back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Draft, Recorder, micros};
use crate::audit::AuditSlot;
use crate::audit::record::{CallUsage, Decision};
use crate::ledger::{Amounts, Buckets, Cause, Ended, OnDisk, Settled};
use crate::llm::prices::ModelPrice;
use crate::llm::{Judgement, ReplyFacts, Seen};
use crate::money::Pico;
use crate::policy::multipliers;
use crate::policy::{Deadline, Hold, Outcome, Places, Settle};
use crate::refusal::{Class, Reason, Refusal};
use crate::telemetry::metrics;

mod end;

use end::failed;

/// Tools of one reply that the ledger keeps.
const TOOLS: usize = 64;
/// Longest name of a tool that the ledger keeps, in characters.
const TOOL_NAME: usize = 128;

/// Money, audit slot and place in flight of one admitted call.
pub(crate) struct Ticket {
    recorder: Arc<Recorder>,
    slot: AuditSlot,
    draft: Draft,
    hold: Option<Hold>,
    /// Given back when the ticket is settled.
    places: Places,
    admitted: Instant,
}

/// What settling came to.
struct Bill {
    cost: Option<Pico>,
    usage: Option<CallUsage>,
    overrun: bool,
}

/// What a reply costs.
struct Priced {
    cost: Option<Pico>,
    /// Whether the model has a price.
    known: bool,
    /// The model's metric label.
    label: String,
}

impl Ticket {
    pub(super) fn new(
        recorder: Arc<Recorder>,
        slot: AuditSlot,
        mut draft: Draft,
        hold: Option<Hold>,
        places: Places,
    ) -> Self {
        draft.body.reserved_pico_usd = hold
            .as_ref()
            .and_then(|hold| hold.reservation.as_ref())
            .map(|reservation| reservation.amount().usd);
        Self {
            recorder,
            slot,
            draft,
            hold,
            places,
            admitted: Instant::now(),
        }
    }

    /// Settles the reservation: what was never forwarded, and what the provider answered with an error, costs nothing;
    /// what is not known costs the reservation.
    fn bill(&mut self, outcome: &Outcome) -> Bill {
        let nothing = Bill {
            cost: None,
            usage: None,
            overrun: false,
        };
        // From here on the client may send its next call, even before the record is written.
        drop(self.places.place.take());
        let Some(Hold {
            price,
            reservation,
            growth,
            ..
        }) = self.hold.take()
        else {
            return nothing;
        };
        let refused_by_provider = outcome.status.is_some_and(|status| !status.is_success());
        let usage = outcome.facts.usage;
        if !outcome.forwarded || (refused_by_provider && usage.is_none()) {
            match reservation {
                // It reached the provider, so it counts as a call, and for nothing else.
                Some(reservation) if outcome.forwarded => {
                    let ended = self.ended(outcome);
                    reservation.settle_as(Amounts::CALL, Some(ended));
                }
                Some(reservation) => reservation.release(),
                None => {}
            }
            return Bill {
                cost: Some(Pico::ZERO),
                ..nothing
            };
        }
        let metrics = &self.recorder.metrics;
        let Priced { cost, known, label } = self.priced(outcome, price.as_ref());
        let (agent, provider) = (&self.draft.agent, &self.draft.provider);
        let Some(reservation) = reservation else {
            return Bill {
                cost,
                usage: usage.map(CallUsage::Known),
                overrun: false,
            };
        };
        // What passed before the stream was ended is paid for too.
        let beyond = growth.map_or(Amounts::ZERO, |growth| growth.beyond);
        let worst = reservation.amount().plus(&beyond);
        let reserved = worst.usd;
        let tokens = usage.and_then(|usage| usage.tokens_told()).map(|usage| {
            let others = outcome
                .facts
                .others
                .iter()
                .map(|other| other.usage.total_tokens());
            others.fold(usage.total_tokens(), u64::saturating_add)
        });
        // A cost above what integers hold, or a tier without a price: unknown, so the reservation is charged.
        let Settled {
            cost: booked,
            overrun,
            ..
        } = reservation.settle_as(
            Amounts {
                usd: cost.unwrap_or(reserved),
                tokens: tokens.unwrap_or(worst.tokens),
                calls: 1,
            },
            Some(self.ended(outcome)),
        );
        let booked = booked.usd;
        metrics.cost(agent, provider, &label, booked);
        if cost.is_some() {
            metrics.estimate(provider, reserved, booked);
        }
        Bill {
            // Without a price (observe mode) what was booked is no cost but a blank.
            cost: known.then_some(booked),
            usage: Some(usage.map_or(CallUsage::Unknown, CallUsage::Known)),
            overrun,
        }
    }

    /// What the provider charges for the reply, as far as it can be told; counts its tokens.
    fn priced(&self, outcome: &Outcome, price: Option<&Arc<ModelPrice>>) -> Priced {
        let metrics = &self.recorder.metrics;
        let Draft {
            agent,
            provider,
            model,
            ..
        } = &self.draft;
        let label = self.recorder.label(provider, model);
        let facts = &outcome.facts;
        // The provider may have served another model than the one asked for: its price counts if it is known.
        let prices = self.recorder.prices.load();
        let served = facts
            .model
            .as_deref()
            .and_then(|served| prices.find(provider, served));
        let tier = facts.service_tier.as_deref();
        // Not every provider says in its reply where it served the call.
        let region = facts.region.as_deref().or(self.draft.region.as_deref());
        let price = served.or(price);
        // Of several models in one reply each has its own price; one without makes the whole unknown.
        let of_others = facts.others.iter().try_fold(Pico::ZERO, |sum, other| {
            let price = prices.find(provider, &other.model)?;
            sum.checked_add(price.cost_in(&other.usage, tier, region)?)
        });
        let counted = facts
            .usage
            .and_then(|usage| price?.cost_in(&usage, tier, region))
            .and_then(|own| own.checked_add(of_others?));
        match &facts.usage {
            Some(usage) => metrics.tokens(agent, provider, &label, usage),
            None => metrics.usage_unknown(agent, provider, &label),
        }
        for other in &facts.others {
            let label = &self.recorder.label(provider, &other.model);
            metrics.tokens(agent, provider, label, &other.usage);
        }
        Priced {
            // A provider that states what it charges is believed: its price may depend on where it sent the call.
            cost: facts.reported_cost.or(counted),
            known: price.is_some(),
            label,
        }
    }

    /// The reply outgrew its budget: the client's own second attempt is to be refused too.
    fn remember_cut(&self) {
        let growth = self.hold.as_ref().and_then(|hold| hold.growth.as_ref());
        let refusal = growth.and_then(|growth| growth.refused.as_ref());
        let (Some(refusal), Some(watch)) = (refusal, &self.places.watch) else {
            return;
        };
        if refusal.reason.class() != Class::Money {
            return;
        }
        let resets = refusal.money.as_ref().and_then(|money| money.resets_at);
        let until = resets.map(|at| at.duration_since(self.recorder.now()));
        let until = until.map(|until| Duration::try_from(until).unwrap_or_default());
        watch.was_cut(refusal, until, Instant::now());
    }

    /// What the ledger keeps of the call's end, for reports.
    fn ended(&self, outcome: &Outcome) -> Ended {
        let watch = self.places.watch.as_ref();
        Ended {
            cause: watch.map_or(Cause::Useful, |watch| watch.cause(failed(outcome))),
            status: outcome.status.map(|status| status.as_u16()),
            tokens: outcome
                .facts
                .usage
                .and_then(|usage| usage.tokens_told())
                .map(|usage| Buckets {
                    input: usage.total_uncached(),
                    cache_read: usage.total_cache_read(),
                    cache_write: usage.cache_write_5m.saturating_add(usage.cache_write_1h),
                    output: usage.total_output(),
                    reasoning: usage.reasoning,
                }),
            tools: outcome
                .facts
                .tools_called
                .iter()
                .take(TOOLS)
                .map(|tool| tool.chars().take(TOOL_NAME).collect::<String>().into())
                .collect(),
        }
    }

    /// What the money did; counts what was wasted.
    fn cause(&mut self, outcome: &Outcome, cost: Pico) -> Option<Cause> {
        let watch = self.places.watch.take()?;
        let failed = failed(outcome);
        let cause = watch.settle(&multipliers::Outcome {
            cost,
            usage: outcome.facts.usage.and_then(|usage| usage.tokens_told()),
            failed,
            client_gone: outcome.client_gone,
            now: Instant::now(),
        });
        self.recorder.metrics.wasted(&self.draft.agent, cause, cost);
        Some(cause)
    }

    /// Counts and records what the model called.
    fn tools(metrics: &metrics::Metrics, draft: &mut Draft, facts: &ReplyFacts) {
        for tool in &facts.tools_called {
            let verdict = if facts.tools_denied.contains(tool) {
                metrics::ToolVerdict::Denied
            } else {
                metrics::ToolVerdict::Called
            };
            metrics.tool(&draft.agent, tool, verdict);
        }
        if !facts.tools_denied.is_empty() {
            draft.finding("tool_call_denied");
            metrics.finding(&draft.agent, "tool_call_denied");
        }
        if let Some(watch) = draft.tool_watch.take()
            && facts
                .tools_called
                .iter()
                .any(|tool| matches!(watch.by_name(tool), Judgement::Deny(_)))
        {
            metrics.would_refuse(&draft.agent, Reason::ToolDenied);
            draft.would_refuse(Reason::ToolDenied);
        }
    }
}

impl Settle for Ticket {
    fn on_disk(&self) -> Option<OnDisk> {
        self.hold.as_ref()?.reservation.as_ref()?.on_disk()
    }

    fn deadline(&self) -> Option<Deadline> {
        self.places.deadline.clone()
    }

    fn room(&self) -> Option<Seen> {
        let growth = self.hold.as_ref()?.growth.as_ref()?;
        Some(growth.room())
    }

    fn window(&self) -> Option<u64> {
        Some(self.hold.as_ref()?.growth.as_ref()?.window())
    }

    fn extend(&mut self, seen: Seen) -> Result<Seen, Refusal> {
        let Some(Hold {
            reservation: Some(reservation),
            growth: Some(growth),
            ..
        }) = &mut self.hold
        else {
            return Ok(seen);
        };
        let extended = growth.extend(reservation, seen);
        self.draft.body.reserved_pico_usd = Some(reservation.amount().usd);
        extended
    }

    fn withdraw(mut self: Box<Self>) {
        drop(self.places.place.take());
        if let Some(reservation) = self.hold.take().and_then(|hold| hold.reservation) {
            reservation.release();
        }
        self.slot.release();
    }

    fn settle(mut self: Box<Self>, mut outcome: Outcome) {
        outcome.count_sent(self.hold.as_ref());
        self.remember_cut();
        let bill = self.bill(&outcome);
        let cause = self.cause(&outcome, bill.cost.unwrap_or(Pico::ZERO));
        let Self {
            recorder,
            slot,
            mut draft,
            admitted,
            ..
        } = *self;
        let metrics = &recorder.metrics;
        let label = &recorder.label(&draft.provider, &draft.model);
        if draft.body.side {
            metrics.side(&draft.agent, &draft.provider, metrics::SideVerdict::Passed);
        } else {
            metrics.call(&draft.agent, &draft.provider, label, end::label(&outcome));
            metrics.call_duration(&draft.provider, outcome.duration);
            if let Some(first) = outcome.first_token {
                metrics.first_token(&draft.provider, first);
            }
        }
        let tools = outcome.facts.tools_called.len() as u64;
        let cost = bill.cost.unwrap_or(Pico::ZERO);
        recorder.tally.settled(&draft.agent, cost, tools);
        Self::tools(metrics, &mut draft, &outcome.facts);
        if outcome.facts.inconsistent {
            metrics.usage_inconsistent(&draft.provider);
            draft.finding("usage_inconsistent");
        }
        if bill.overrun {
            metrics.finding(&draft.agent, "cost_above_reservation");
            draft.finding("cost_above_reservation");
        }
        let body = &mut draft.body;
        if let Some(cut) = outcome.cut {
            body.reason = Some(cut);
        }
        if outcome.status.is_none() {
            body.decision = Decision::Failed;
            body.reason = Some(Reason::Upstream);
        }
        body.model = outcome.facts.model;
        body.usage = bill.usage;
        body.cost_pico_usd = bill.cost;
        body.cause = bill.cost.filter(|cost| *cost > Pico::ZERO).and(cause);
        body.finish = outcome.facts.finish;
        body.tools_called = outcome.facts.tools_called;
        body.tools_denied = outcome.facts.tools_denied;
        body.other_usage = outcome.facts.others;
        body.status = Some(outcome.status.map_or(502, |status| status.as_u16()));
        body.reply_bytes = Some(outcome.reply_bytes);
        body.first_token_ms = outcome.first_token.map(Into::into);
        body.duration_ms = Some(outcome.duration.into());
        body.added_us = Some(micros(
            admitted
                .elapsed()
                .saturating_sub(outcome.duration)
                .saturating_sub(outcome.waited),
        ));
        recorder.raise_findings(&draft);
        slot.record(draft.into_record());
    }
}
