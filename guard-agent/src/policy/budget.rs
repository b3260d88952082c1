//! The worst case of one call, in pico-dollars and in tokens: what is reserved before it is forwarded.
//!
//! In: the model's price, what the request asks for, the size of its body. Out: an amount that the provider's bill
//! does not exceed, with the token bounds behind it. On failure: `NoBound`, and the policy refuses.
//!
//! **Input.** A token stands for at least one byte of the text that the client sent, so a body has at most as many
//! tokens as bytes (JSON quoting only adds bytes). Providers add text of their own: the system prompt that explains
//! tools and formats, for which 1,024 tokens are allowed (Anthropic documents 159 to 530 for tool use, by model:
//! docs.anthropic.com/en/docs/tool-use-pricing-and-tokens). Where the body does not show the input (a stored
//! conversation, a file id, a URL) the model's whole context window counts, when that is more. A file or PDF inside
//! the body holds more tokens than bytes when it compresses well, so it counts as not shown. An image counts as
//! its bytes, or as the most tokens that its pixels take where those are more (`llm::pictures`).
//!
//! Where the format can tell more from the body than its length (`llm::Bound`: reranking, audio, images), that counts, in
//! tokens and in what else the provider may bill: the dearer one of those that have a price.
//!
//! The bound is not cut to the context window: a provider that truncates instead of refusing, or whose window
//! grew since the table's date, must not make it too low.
//!
//! **Rates.** Every input token at the dearest rate that may apply to it: plain, or the cache write that was asked for
//! (or that the provider makes unasked); the long-context rate when the bound passes the mark; the tier asked for.

use crate::llm::prices::{ModelPrice, Rates};
use crate::llm::{CacheWrite, RequestFacts, Unit};
use crate::money::Pico;

/// Input tokens that a provider may add to what the client sent.
const ADDED_BY_PROVIDER: u64 = 1_024;

/// Tokens of a picture of any size for gpt-4o-mini, which counts 2,833 and 5,667 for each of at most eight tiles.
const TILED: u64 = 48_169;

/// Most actions of the provider's own that are taken into account; more are refused as having no bound.
const MOST_PASSES: u64 = 64;

/// What a call may cost at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorstCase {
    /// To reserve.
    pub amount: Pico,
    /// Input tokens, at most.
    pub input_bound: u64,
    /// Output tokens of all choices together, at most.
    pub output_bound: u64,
    /// What one more token of input may cost.
    pub input_rate: Pico,
    /// What one more token of output may cost.
    pub output_rate: Pico,
    /// What the model reads at a time, at most.
    pub window: u64,
}

/// Why no worst case can be stated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBound {
    /// The provider acts by itself, as often as the model likes, at a fee per action.
    #[error("the request lets the provider run tools by itself, and nothing bounds what that costs")]
    ServerSideTools,
    /// The price table has no such tier for this model (or not for an input of this size).
    #[error("the price of service tier {tier:?} is not known for {model} at this input size")]
    Tier {
        /// The model.
        model: String,
        /// The tier asked for.
        tier: String,
    },
    /// The price table has no price in any unit in which this call can be billed.
    #[error("{model} has no price in a unit in which such a call can be billed ({units})")]
    Unbilled {
        /// The model.
        model: String,
        /// The units, tokens first.
        units: String,
    },
    /// The amount is beyond 18.4 million dollars.
    #[error("the worst case of this request is beyond what can be counted")]
    Overflow,
}

/// The worst case of a call. `effective_output_cap`: output tokens of one choice, as they will be enforced (the
/// request's own cap or the agent's, whichever is lower; without either, the model's `max_output`).
pub fn worst_case(
    price: &ModelPrice,
    facts: &RequestFacts,
    body_bytes: u64,
    effective_output_cap: u64,
) -> Result<WorstCase, NoBound> {
    let actions = match actions(price, facts) {
        // Whatever it does costs nothing; its tokens count as those of a context that is not shown.
        Err(NoBound::ServerSideTools) if price.free => Actions {
            fees: Pico::ZERO,
            passes: 1,
        },
        known => known?,
    };
    let seen = facts
        .bound
        .map_or(body_bytes, |bound| bound.input)
        .checked_add(ADDED_BY_PROVIDER)
        .and_then(|seen| seen.checked_add(pictures(price, facts)))
        // A conversation that lives at the provider is cut to what the model can read.
        .and_then(|seen| seen.checked_add(facts.carried.min(price.context_window)))
        .ok_or(NoBound::Overflow)?;
    let window = if facts.unseen_input || actions.passes > 0 {
        seen.max(price.context_window)
    } else {
        seen
    };
    let input_bound = window.checked_mul(actions.passes + 1).ok_or(NoBound::Overflow)?;
    let output_bound = match facts.bound {
        Some(bound) => Some(bound.output),
        None => effective_output_cap.checked_mul(facts.choices.max(1)),
    };
    let output_bound = output_bound.ok_or(NoBound::Overflow)?;
    if price.free {
        return Ok(WorstCase {
            amount: Pico::ZERO,
            input_bound,
            output_bound,
            input_rate: Pico::ZERO,
            output_rate: Pico::ZERO,
            window: price.context_window,
        });
    }
    let unknown = || NoBound::Tier {
        model: price.label.clone(),
        tier: facts.service_tier.clone().unwrap_or_else(|| "default".into()),
    };
    let tier = price.tier(facts.service_tier.as_deref()).ok_or_else(unknown)?;
    // The real input may stay below a mark: the dearest of all rates that can be reached.
    let (mut dearest, mut input_rate, mut output_rate) = (Pico::ZERO, Pico::ZERO, Pico::ZERO);
    let in_region = |amount| {
        price
            .in_region(amount, facts.region.as_deref())
            .ok_or(NoBound::Overflow)
    };
    for rates in tier.up_to(input_bound) {
        let rates = rates.ok_or_else(unknown)?;
        let media = if facts.text_only {
            Pico::ZERO
        } else {
            rates.dearest_media()
        };
        let input = dearest_input(price, rates, facts.cache_write).max(media);
        let output = rates.dearest_output(facts.text_only);
        let amount = input
            .checked_mul(input_bound)
            .and_then(|input| input.checked_add(output.checked_mul(output_bound)?))
            .ok_or(NoBound::Overflow)?;
        dearest = dearest.max(in_region(amount)?);
        input_rate = input_rate.max(in_region(input)?);
        output_rate = output_rate.max(in_region(output)?);
    }
    let by_number = by_number(price, facts)?;
    // What is bounded by its kind has to have a price for what it brings forth; an embedding's output is none.
    let wrote = facts.bound.is_some_and(|bound| bound.output > 0);
    if by_number.is_none() && (input_rate == Pico::ZERO || wrote && output_rate == Pico::ZERO) {
        return Err(unbilled(price, facts));
    }
    let dearest = dearest.max(by_number.unwrap_or(Pico::ZERO));
    Ok(WorstCase {
        amount: dearest.checked_add(actions.fees).ok_or(NoBound::Overflow)?,
        input_bound,
        output_bound,
        input_rate,
        output_rate,
        window: price.context_window,
    })
}

/// Tokens of pictures beyond their bytes.
fn pictures(price: &ModelPrice, facts: &RequestFacts) -> u64 {
    let tiles = match price.label.strip_prefix("gpt-4o-mini") {
        Some(_) => TILED.saturating_mul(facts.pictures.count),
        None => 0,
    };
    facts.pictures.beyond.saturating_add(tiles)
}

/// What the call costs where it is billed by number: by the dearest of the things that have a price.
fn by_number(price: &ModelPrice, facts: &RequestFacts) -> Result<Option<Pico>, NoBound> {
    let units = facts.bound.map(|bound| bound.units).unwrap_or_default();
    let mut dearest = None;
    for (unit, count) in units.iter() {
        let Some(fee) = price.fee(unit).filter(|fee| *fee > Pico::ZERO) else {
            continue;
        };
        let amount = fee.checked_mul(count).ok_or(NoBound::Overflow)?;
        let amount = price
            .in_region(amount, facts.region.as_deref())
            .ok_or(NoBound::Overflow)?;
        dearest = dearest.max(Some(amount));
    }
    Ok(dearest)
}

fn unbilled(price: &ModelPrice, facts: &RequestFacts) -> NoBound {
    let units = facts.bound.map(|bound| bound.units).unwrap_or_default();
    let units = units.iter().map(|(unit, _)| unit.label());
    NoBound::Unbilled {
        model: price.label.clone(),
        units: std::iter::once("token")
            .chain(units)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// What the provider may do by itself.
struct Actions {
    /// Fees for all of it.
    fees: Pico,
    /// How often it may read the whole context again.
    passes: u64,
}

/// The provider's own actions, where the request bounds their number and their fee is known: each is paid for, and each
/// may have the provider read the whole context again. Everything else has no bound.
fn actions(price: &ModelPrice, facts: &RequestFacts) -> Result<Actions, NoBound> {
    let mut actions = Actions {
        fees: Pico::ZERO,
        passes: 0,
    };
    if facts.server_side {
        return Err(NoBound::ServerSideTools);
    }
    for tool in facts.tools.iter().filter(|tool| tool.server_side) {
        let uses = tool.max_uses.ok_or(NoBound::ServerSideTools)?;
        let fee = match tool.name.as_str() {
            name if name.starts_with("web_search_") => price.fee(Unit::WebSearch),
            // What it brings in is billed as input, and nothing else.
            name if name.starts_with("web_fetch_") => Some(Pico::ZERO),
            _ => None,
        };
        let fees = fee.ok_or(NoBound::ServerSideTools)?.checked_mul(uses);
        let sum = fees.and_then(|fees| actions.fees.checked_add(fees));
        actions.fees = sum.ok_or(NoBound::Overflow)?;
        actions.passes = actions.passes.checked_add(uses).ok_or(NoBound::Overflow)?;
    }
    if actions.passes >= MOST_PASSES {
        return Err(NoBound::ServerSideTools);
    }
    Ok(actions)
}

/// The dearest rate that an input token of this request can be billed at.
fn dearest_input(price: &ModelPrice, rates: &Rates, asked: CacheWrite) -> Pico {
    let plain = rates.input.max(rates.cache_read);
    let short = plain.max(rates.cache_write_5m);
    match asked {
        CacheWrite::None if price.automatic_cache_writes => short,
        CacheWrite::None => plain,
        CacheWrite::FiveMinutes => short,
        CacheWrite::OneHour => short.max(rates.cache_write_1h),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::prices::PriceTable;
    use crate::llm::{Audio, Bound, DeclaredTool, Units, Usage};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    fn facts() -> RequestFacts {
        RequestFacts {
            choices: 1,
            ..RequestFacts::default()
        }
    }

    fn worst(
        provider: &str,
        model: &str,
        facts: &RequestFacts,
        body: u64,
        cap: u64,
    ) -> Result<WorstCase, NoBound> {
        let table = PriceTable::embedded().unwrap();
        worst_case(table.find(provider, model).unwrap(), facts, body, cap)
    }

    #[test]
    fn one_token_a_byte_and_the_whole_output_cap() {
        // 976 + 1,024 tokens at $5 and 100 at $25 a million.
        let found = worst("anthropic", "claude-opus-4-5", &facts(), 976, 100).unwrap();
        let amount = Pico::from_usd_text("0.0125").unwrap();
        assert_eq!(
            found,
            WorstCase {
                amount,
                input_bound: 2_000,
                output_bound: 100,
                input_rate: Pico::from_usd_text("0.000005").unwrap(),
                output_rate: Pico::from_usd_text("0.000025").unwrap(),
                window: 200_000,
            }
        );
    }

    #[test]
    fn every_choice_counts() {
        let asked = RequestFacts {
            choices: 4,
            ..facts()
        };
        assert_eq!(
            worst("openai", "gpt-5", &asked, 0, 100).unwrap().output_bound,
            400
        );
    }

    #[test]
    fn cache_writes_are_dearer_when_asked_for_or_automatic() {
        let amount = |cache_write| {
            let asked = RequestFacts {
                cache_write,
                ..facts()
            };
            worst("anthropic", "claude-opus-4-5", &asked, 976, 0)
                .unwrap()
                .amount
                .to_string()
        };
        assert_eq!(amount(CacheWrite::None), "$0.01");
        assert_eq!(amount(CacheWrite::FiveMinutes), "$0.0125");
        assert_eq!(amount(CacheWrite::OneHour), "$0.02");
        // OpenAI writes unasked: $1.25 where input is $1.
        assert_eq!(
            worst("openai", "gpt-6.1-terra", &facts(), 976, 0)
                .unwrap()
                .amount
                .to_string(),
            "$0.0025"
        );
    }

    #[test]
    fn the_long_context_rate_applies_when_the_bound_passes_the_mark() {
        let below = worst("openai", "gpt-5.5", &facts(), 272_000 - 1_024, 1_000).unwrap();
        assert_eq!(below.amount.to_string(), "$1.39");
        let above = worst("openai", "gpt-5.5", &facts(), 272_001 - 1_024, 1_000).unwrap();
        assert_eq!(above.amount.to_string(), "$2.76501");
    }

    #[test]
    fn input_that_cannot_be_seen_counts_as_the_context_window() {
        let unseen = RequestFacts {
            unseen_input: true,
            ..facts()
        };
        assert_eq!(
            worst("openai", "gpt-5", &unseen, 10, 1).unwrap().input_bound,
            400_000
        );
        assert_eq!(
            worst("openai", "gpt-5", &unseen, 1_000_000, 1)
                .unwrap()
                .input_bound,
            1_001_024
        );
    }

    #[test]
    fn the_tier_asked_for_is_priced_or_refused() {
        let tier = |name: &str| RequestFacts {
            service_tier: Some(name.into()),
            ..facts()
        };
        let amount =
            |name: &str| worst("openai", "gpt-5", &tier(name), 0, 1_000).map(|w| w.amount.to_string());
        assert_eq!(amount("auto").unwrap(), "$0.01128");
        assert_eq!(amount("priority").unwrap(), "$0.02256");
        assert_eq!(amount("flex").unwrap(), "$0.00564");
        assert!(matches!(amount("scale"), Err(NoBound::Tier { tier, .. }) if tier == "scale"));
        // Sold only below the long-context mark.
        assert!(worst("openai", "gpt-5.4", &tier("priority"), 200_000, 1).is_ok());
        assert!(matches!(
            worst("openai", "gpt-5.4", &tier("priority"), 300_000, 1),
            Err(NoBound::Tier { .. })
        ));
    }

    #[test]
    fn what_nothing_bounds_is_refused() {
        let whole = RequestFacts {
            server_side: true,
            ..facts()
        };
        assert_eq!(
            worst("openai", "gpt-5", &whole, 0, 1),
            Err(NoBound::ServerSideTools)
        );
        let tool = DeclaredTool::provider("web_search");
        let one = RequestFacts {
            tools: vec![tool],
            ..facts()
        };
        assert_eq!(
            worst("openai", "gpt-5", &one, 0, 1),
            Err(NoBound::ServerSideTools)
        );
        for (body, cap, choices) in [
            (u64::MAX, 1, 1),
            (0, u64::MAX, 2),
            (0, u64::MAX, 1),
            (u64::MAX - 2_000, 1, 1),
        ] {
            let asked = RequestFacts { choices, ..facts() };
            assert_eq!(
                worst("openai", "gpt-5", &asked, body, cap),
                Err(NoBound::Overflow)
            );
        }
    }

    #[test]
    fn a_conversation_at_the_provider_counts_up_to_what_the_model_can_read() {
        let bound = |carried| {
            let asked = RequestFacts { carried, ..facts() };
            worst("openai", "gpt-realtime", &asked, 100, 10).unwrap()
        };
        assert_eq!(bound(5_000).input_bound, 100 + 1_024 + 5_000);
        let table = PriceTable::embedded().unwrap();
        let window = table.find("openai", "gpt-realtime").unwrap().context_window;
        assert_eq!(bound(u64::MAX).input_bound, 100 + 1_024 + window);
        // $32 a million heard, $64 spoken: the dearest kind of either.
        assert_eq!(bound(0).amount, Pico(1_124 * 32_000_000 + 10 * 64_000_000));
    }

    #[test]
    fn sound_that_is_written_down_has_its_own_price_by_length() {
        let bound = Bound {
            input: 20,
            output: 20,
            units: Units::of(Unit::AudioMillis, 60_000),
            ..Bound::default()
        };
        let asked = RequestFacts {
            bound: Some(bound),
            audio: Audio::Heard,
            ..facts()
        };
        // $0.006 a minute
        let found = worst("openai", "whisper-1", &asked, 0, 10).unwrap();
        assert_eq!(found.amount, Pico(6_000_000_000));
        let table = PriceTable::embedded().unwrap();
        for (model, heard, spoken) in [
            ("whisper-1", true, false),
            ("gpt-4o-transcribe", true, false),
            ("gpt-realtime", true, true),
            ("gpt-5", false, false),
        ] {
            let price = table.find("openai", model).unwrap();
            assert_eq!(price.hears(Audio::Heard), heard, "{model}");
            assert_eq!(price.hears(Audio::Spoken), spoken, "{model}");
            assert!(price.hears(Audio::Unsaid));
        }
    }

    proptest! {
        /// Whatever usage stays within the bounds, in whatever buckets, costs no more than was reserved.
        #[test]
        fn no_usage_within_the_bounds_costs_more(
            row in 0..100_000_usize, body in 0..600_000_u64, cap in 0..40_000_u64,
            cut in prop::array::uniform5(0..=100_u64), long in any::<bool>(),
        ) {
            static TABLE: LazyLock<PriceTable> = LazyLock::new(|| PriceTable::embedded().unwrap());
            let table = &*TABLE;
            let price = &table.models()[row % table.models().len()];
            let cache_write = if long { CacheWrite::OneHour } else { CacheWrite::FiveMinutes };
            let asked = RequestFacts { cache_write, ..facts() };
            let worst = match worst_case(price, &asked, body, cap) {
                Ok(worst) => worst,
                // A model that is billed by number alone has no price for text.
                Err(why) => {
                    let by_token = price.tier(None).unwrap().rates.input > Pico::ZERO;
                    prop_assert!(!by_token && matches!(why, NoBound::Unbilled { .. }), "{why}");
                    return Ok(());
                }
            };
            let mut left = worst.input_bound;
            let mut take = |percent: u64| {
                let taken = left * percent / 100;
                left -= taken;
                taken
            };
            let usage = Usage {
                input: take(cut[0]),
                cache_read: take(cut[1]),
                cache_write_5m: take(cut[2]),
                cache_write_1h: if long { take(cut[3]) } else { 0 },
                output: worst.output_bound * cut[4] / 100,
                ..Usage::default()
            };
            // What has no price (the output of an embedding) is unknown, and then the reservation is charged.
            let rates = price.tier(None).unwrap().rates;
            let priced = rates.input > Pico::ZERO && rates.output > Pico::ZERO;
            let cost = price.cost(&usage, None);
            prop_assert!(cost.is_some() || !priced, "{} {usage:?}", price.label);
            prop_assert!(cost.is_none_or(|cost| cost <= worst.amount), "{} {usage:?}", price.label);
        }
    }
}
