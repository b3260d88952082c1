//! What a provider says itself that a call cost: gateways do, whose price depends on where they sent it, and xAI does.
//!
//! In: `usage.cost` as it stands in a reply: a number of dollars (OpenRouter), or an object with their total (Perplexity);
//! xAI's `usage.cost_in_usd_ticks`, ten thousand million of which are a dollar. Out: an amount, rounded up to a whole
//! pico-dollar. On failure, and for zero, which gateways say of what somebody else bills: nothing is stated, and the price
//! table counts.
//! Sources: openrouter.ai/docs/guides/guides/usage-accounting; docs.perplexity.ai/api-reference/responses-post;
//! docs.x.ai/developers/cost-tracking.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::llm::prices::litellm::Dollars;
use crate::llm::request::lenient;
use crate::money::Pico;

/// Pico-dollars in one of xAI's ticks.
const TICK: u64 = 100;

/// The members of `usage` that state a cost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stated<'a> {
    /// What the gateway charges.
    pub(crate) cost: Option<&'a RawValue>,
    /// What xAI charges.
    pub(crate) ticks: Option<&'a RawValue>,
    /// Whether the maker of the model bills the caller's own key beside that.
    pub(crate) is_byok: Option<&'a RawValue>,
    /// What that bill is.
    pub(crate) details: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Total<'a> {
    #[serde(borrow)]
    total_cost: &'a RawValue,
    currency: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Upstream<'a> {
    #[serde(borrow)]
    upstream_inference_cost: &'a RawValue,
}

impl Stated<'_> {
    /// The amount.
    pub(crate) fn amount(self) -> Option<Pico> {
        let dollars = |raw: &RawValue| Dollars(raw.get()).pico();
        let whole = match (self.cost, self.ticks) {
            (Some(cost), _) => {
                let own = if cost.get().starts_with('{') {
                    let total = lenient::<Total<'_>>(Some(cost))?;
                    dollars(total.total_cost).filter(|_| total.currency.is_none_or(|name| name == "USD"))?
                } else {
                    dollars(cost)?
                };
                if lenient::<bool>(self.is_byok) == Some(true) {
                    let upstream = lenient::<Upstream<'_>>(self.details)?;
                    own.checked_add(dollars(upstream.upstream_inference_cost)?)?
                } else {
                    own
                }
            }
            (None, ticks) => Pico(lenient::<u64>(ticks)?.checked_mul(TICK)?),
        };
        (whole > Pico::ZERO).then_some(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_a_number_of_dollars_or_an_object_with_their_total() {
        let raw = |text: &str| (!text.is_empty()).then(|| RawValue::from_string(text.to_owned()).unwrap());
        for (cost, byok, details, wanted) in [
            (
                "0.0001125",
                "false",
                r#"{"upstream_inference_cost":9}"#,
                Some(112_500_000),
            ),
            ("3e-05", "", "", Some(30_000_000)),
            ("1", "", "", Some(1_000_000_000_000)),
            (
                r#"{"currency":"USD","total_cost":0.00264}"#,
                "",
                "",
                Some(2_640_000_000),
            ),
            (
                "0.00001",
                "true",
                r#"{"upstream_inference_cost":0.0002}"#,
                Some(210_000_000),
            ),
            (
                "0",
                "true",
                r#"{"upstream_inference_cost":0.0002}"#,
                Some(200_000_000),
            ),
            ("0.00001", "true", r#"{"upstream_inference_cost":null}"#, None),
            ("0.00001", "true", "", None),
            ("0", "", "", None),
            ("0.0", "false", "", None),
            ("-1", "", "", None),
            ("\"1\"", "", "", None),
            ("[1]", "", "", None),
            ("{}", "", "", None),
            (r#"{"currency":"EUR","total_cost":1}"#, "", "", None),
            (r#"{"total_cost":"1"}"#, "", "", None),
            ("1e300", "", "", None),
            ("", "", "", None),
        ] {
            let (cost, is_byok, details) = (raw(cost), raw(byok), raw(details));
            let stated = Stated {
                cost: cost.as_deref(),
                ticks: None,
                is_byok: is_byok.as_deref(),
                details: details.as_deref(),
            };
            assert_eq!(
                stated.amount(),
                wanted.map(Pico),
                "{cost:?} {is_byok:?} {details:?}"
            );
        }
    }

    #[test]
    fn ten_thousand_million_ticks_are_a_dollar() {
        for (ticks, wanted) in [
            ("37756000", Some(3_775_600_000)),
            ("1", Some(100)),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("\"1\"", None),
            ("18446744073709551615", None),
        ] {
            let ticks = RawValue::from_string(ticks.to_owned()).unwrap();
            let stated = Stated {
                ticks: Some(&ticks),
                ..Stated::default()
            };
            assert_eq!(stated.amount(), wanted.map(Pico), "{ticks}");
        }
    }
}
