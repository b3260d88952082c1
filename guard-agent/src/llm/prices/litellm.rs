//! LiteLLM's `model_prices_and_context_window.json`, as it is, and the reduced copies of it that Guard keeps.
//!
//! In: the file's text. Out: rows in Guard's terms. On failure: what is not JSON is an error; a model without a price
//! that can be used (none, zero, for another provider) is left out, which makes it unpriced.
//!
//! Amounts are read as the decimal text that they are: a price that is no whole number of pico-dollars is rounded up.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{LongContext, ModelPrice, PriceTableError, Rates, TierPrice};
use crate::money::Pico;

mod amounts;
mod families;
mod fees;
mod scale;

pub(in crate::llm) use amounts::Dollars;
use amounts::factor;
use families::{model_name, provider};
use scale::times;

/// The snapshot in this binary: a reduced list, compressed. `cargo xtask prices FILE` makes it anew.
const SNAPSHOT: &[u8] = include_bytes!("snapshot.json.zst");

/// Largest list that is read, in bytes. LiteLLM's has three million.
pub const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Tiers by the ending of their keys, and the name by which a reply knows them.
const TIERS: [(&str, &str); 5] = [
    ("_priority", "priority"),
    ("_flex", "flex"),
    ("_batches", "batch"),
    ("_ultrafast", "ultrafast"),
    ("_balanced", "balanced"),
];

/// Output of a model whose row does not say; more than any such model does.
const USUAL_OUTPUT: u64 = 131_072;
/// Its context window.
const USUAL_WINDOW: u64 = 1_048_576;

/// A list.
#[derive(Debug)]
pub struct List {
    /// As of when it is.
    pub date: Date,
    /// Its models.
    pub rows: Vec<ModelPrice>,
}

/// A reduced list as it is kept.
#[derive(Serialize, Deserialize)]
struct Reduced<'a> {
    date: Date,
    /// Where it comes from, and its licence.
    notice: Cow<'a, str>,
    #[serde(borrow)]
    models: BTreeMap<String, BTreeMap<String, &'a RawValue>>,
}

const NOTICE: &str = "Reduced from model_prices_and_context_window.json of LiteLLM (https://github.com/BerriAI/litellm), \
    Copyright (c) 2023 Berri AI, MIT License: see LICENSE-litellm beside Guard's price table.";

/// The list in this binary.
pub(super) fn embedded() -> Result<List, PriceTableError> {
    let cannot = |why: std::io::Error| PriceTableError::List(format!("the snapshot: {why}"));
    let text = zstd::stream::decode_all(SNAPSHOT).map_err(cannot)?;
    read(&text)
}

/// Reads a list that [`reduce`] made.
pub fn read(text: &[u8]) -> Result<List, PriceTableError> {
    let list: Reduced<'_> = serde_json::from_slice(text).map_err(|why| malformed(&why))?;
    let mut best: BTreeMap<(String, String), ModelPrice> = BTreeMap::new();
    for (key, fields) in &list.models {
        let Some(row) = Fields(fields).row(key) else {
            continue;
        };
        // Two keys of one model: the dearer one counts.
        let sum = |row: &ModelPrice| {
            row.standard
                .rates
                .input
                .0
                .saturating_add(row.standard.rates.output.0)
        };
        let place = (row.provider.clone(), row.label.clone());
        if best.get(&place).is_none_or(|known| sum(known) < sum(&row)) {
            best.insert(place, row);
        }
    }
    Ok(List {
        date: list.date,
        rows: best.into_values().collect(),
    })
}

/// What of LiteLLM's file Guard uses: the models of the providers that it knows, prices and limits only.
pub fn reduce(text: &[u8], date: Date) -> Result<Vec<u8>, PriceTableError> {
    let all: BTreeMap<String, &RawValue> = serde_json::from_slice(text).map_err(|why| malformed(&why))?;
    let mut models = BTreeMap::new();
    for (key, value) in all {
        let Ok(fields) = serde_json::from_str::<BTreeMap<String, &RawValue>>(value.get()) else {
            continue;
        };
        let kept: BTreeMap<String, &RawValue> =
            fields.into_iter().filter(|(name, _)| is_used(name)).collect();
        if Fields(&kept).row(&key).is_some() {
            models.insert(key, kept);
        }
    }
    if models.is_empty() {
        return Err(PriceTableError::List(
            "no model with a price is in it; it should be LiteLLM's model_prices_and_context_window.json"
                .to_owned(),
        ));
    }
    let notice = Cow::Borrowed(NOTICE);
    serde_json::to_vec(&Reduced { date, notice, models }).map_err(|why| malformed(&why))
}

fn malformed(why: &serde_json::Error) -> PriceTableError {
    PriceTableError::List(format!("it is not such a list: {why}"))
}

fn is_used(name: &str) -> bool {
    const OTHERS: [&str; 9] = [
        "litellm_provider",
        "mode",
        "max_input_tokens",
        "max_output_tokens",
        "source",
        "tiered_pricing",
        "provider_specific_entry",
        "search_context_cost_per_query",
        "off_peak_pricing",
    ];
    let price =
        name.contains("cost_per_") || name.contains("_token_cost") || name.ends_with("_cost_per_query");
    let unused = [
        "dbu_",
        "per_pixel",
        "video",
        "_decisions",
        "per_second_",
        "vector_store",
    ];
    OTHERS.contains(&name)
        || name.contains("uplift_multiplier")
        || (price && !unused.iter().any(|part| name.contains(part)))
}

/// The fields of one model.
struct Fields<'a>(&'a BTreeMap<String, &'a RawValue>);

impl Fields<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0
            .get(name)
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// A price in whole pico-dollars, above zero.
    fn price(&self, name: &str) -> Option<Pico> {
        self.0
            .get(name)
            .and_then(|raw| Dollars(raw.get()).pico())
            .filter(|price| *price > Pico::ZERO)
    }

    fn count(&self, name: &str) -> Option<u64> {
        self.0
            .get(name)
            .and_then(|raw| Dollars(raw.get()).whole())
            .filter(|count| *count > 0)
    }

    fn row(&self, key: &str) -> Option<ModelPrice> {
        let family = self.text("litellm_provider")?;
        let provider = provider(&family)?;
        let label = model_name(key, &family)?;
        let mode = self.text("mode").unwrap_or_default();
        let fees = self.fees(&mode);
        let speaks = matches!(mode.as_str(), "chat" | "completion" | "responses" | "realtime");
        let standard = self.tier("", None);
        let standard = match standard {
            Some(tier) if !speaks || (tier.rates.input > Pico::ZERO && tier.rates.output > Pico::ZERO) => {
                tier
            }
            // Not billed by tokens.
            None if !speaks && !fees.is_empty() => TierPrice {
                rates: Rates::default(),
                long: Vec::new(),
            },
            Some(_) | None => return None,
        };
        let mut tiers: BTreeMap<String, TierPrice> = TIERS
            .iter()
            .filter_map(|(ending, name)| Some(((*name).to_owned(), self.tier(ending, Some(&standard))?)))
            .collect();
        let (regions, fast) = self.factors();
        if let Some(fast) = fast.and_then(|ppm| times(&standard, ppm)) {
            tiers.entry("fast".to_owned()).or_insert(fast);
        }
        let window = self.count("max_input_tokens");
        let max_output = self.count("max_output_tokens").or(window).unwrap_or(USUAL_OUTPUT);
        Some(ModelPrice {
            automatic_cache_writes: provider == "openai"
                && self.price("cache_creation_input_token_cost").is_some(),
            label: label.into_owned(),
            provider: provider.to_owned(),
            context_window: window.unwrap_or(USUAL_WINDOW).saturating_add(max_output),
            max_output,
            off_peak: self.0.contains_key("off_peak_pricing"),
            free: false,
            ceiling: false,
            from: None,
            source: self.text("source").unwrap_or_default(),
            standard,
            tiers,
            fees,
            regions,
        })
    }

    /// The prices whose keys end so. A tier that leaves a price out has that of the standard one, or its own for input
    /// where that is dearer.
    fn tier(&self, ending: &str, standard: Option<&TierPrice>) -> Option<TierPrice> {
        let rates = self.rates("", ending, standard.map(|tier| &tier.rates))?;
        let mut long: Vec<LongContext> = self
            .marks()
            .into_iter()
            .filter_map(|thousands| {
                let rates = self.rates(&format!("_above_{thousands}k_tokens"), ending, Some(&rates));
                let known = rates.is_some() || (standard.is_some_and(|tier| !tier.long.is_empty()));
                known.then_some(LongContext {
                    above: self.mark(thousands),
                    rates,
                })
            })
            .collect();
        if standard.is_none() && long.is_empty() {
            long = self.ranges(&rates);
        }
        Some(TierPrice { rates, long })
    }

    /// The most tokens before a long-context mark. xAI's mark is the first token that costs more; the list does not say.
    fn mark(&self, thousands: u64) -> u64 {
        let at = u64::from(self.text("litellm_provider").as_deref() == Some("xai"));
        (thousands * 1_000).saturating_sub(at)
    }

    fn rates(&self, mark: &str, ending: &str, usual: Option<&Rates>) -> Option<Rates> {
        let price = |name: &str| self.price(&format!("{name}{mark}{ending}"));
        let (own_input, own_output) = (price("input_cost_per_token"), price("output_cost_per_token"));
        let input = own_input.or(own_output.and(usual.map(|usual| usual.input)));
        // An embedding has no output, and nothing but input.
        let input = input?;
        let output = own_output
            .or(usual.map(|usual| usual.output))
            .unwrap_or(Pico::ZERO);
        let or_input = |own: Option<Pico>, usual: Option<Pico>| {
            own.unwrap_or(usual.map_or(input, |usual| usual.max(input)))
        };
        let read = price("cache_read_input_token_cost").or(price("input_cost_per_token_cache_hit"));
        let write = or_input(
            price("cache_creation_input_token_cost"),
            usual.map(|usual| usual.cache_write_5m),
        );
        let longer = ["above_1hr", "above_12hr"]
            .iter()
            .find_map(|lifetime| price(&format!("cache_creation_input_token_cost_{lifetime}")));
        let media = |name: &str, usual: Option<Pico>| price(name).or(usual);
        Some(Rates {
            input,
            cache_read: read.unwrap_or(input),
            cache_write_5m: write,
            cache_write_1h: longer
                .unwrap_or(write.max(usual.map_or(Pico::ZERO, |usual| usual.cache_write_1h))),
            output,
            reasoning: price("output_cost_per_reasoning_token"),
            input_audio: media("input_cost_per_audio_token", usual.and_then(|u| u.input_audio)),
            cache_read_audio: media(
                "cache_read_input_audio_token_cost",
                usual.and_then(|u| u.cache_read_audio),
            ),
            input_image: media("input_cost_per_image_token", usual.and_then(|u| u.input_image)),
            cache_read_image: media(
                "cache_read_input_image_token_cost",
                usual.and_then(|u| u.cache_read_image),
            ),
            output_audio: media("output_cost_per_audio_token", usual.and_then(|u| u.output_audio)),
            output_image: media("output_cost_per_image_token", usual.and_then(|u| u.output_image)),
        })
    }

    /// The long-context marks that any key names, in thousands of tokens.
    fn marks(&self) -> BTreeSet<u64> {
        let names = self.0.keys().filter_map(|name| name.split_once("_above_"));
        names
            .flat_map(|(_, rest)| rest.split("_above_"))
            .filter_map(|rest| rest.split_once("k_tokens")?.0.parse().ok())
            .collect()
    }

    /// The long-context prices of a row that states ranges instead.
    fn ranges(&self, usual: &Rates) -> Vec<LongContext> {
        let Some(raw) = self.0.get("tiered_pricing") else {
            return Vec::new();
        };
        let ranges: Vec<BTreeMap<String, &RawValue>> = serde_json::from_str(raw.get()).unwrap_or_default();
        let mut bands: Vec<LongContext> = ranges
            .iter()
            .filter_map(|range| {
                let bounds: Vec<&RawValue> = serde_json::from_str(range.get("range")?.get()).ok()?;
                let above = Dollars(bounds.first()?.get())
                    .whole()
                    .filter(|above| *above > 0)?;
                let rates = Fields(range).rates("", "", Some(usual));
                Some(LongContext { above, rates })
            })
            .collect();
        bands.sort_by_key(|band| band.above);
        bands
    }

    /// Regions that cost more, and the factor of fast mode.
    fn factors(&self) -> (BTreeMap<String, u32>, Option<u32>) {
        let mut regions = BTreeMap::new();
        let mut fast = None;
        let entry = self.0.get("provider_specific_entry");
        let entry: BTreeMap<String, &RawValue> = entry
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        if let Some(us) = entry.get("us").and_then(|raw| factor(raw.get())) {
            regions.insert("us".to_owned(), us);
        }
        if let Some(ppm) = entry.get("fast").and_then(|raw| factor(raw.get())) {
            fast = Some(ppm);
        }
        for (field, region) in [
            ("regional_processing_uplift_multiplier_eu", "eu"),
            ("regional_processing_uplift_multiplier_us", "us"),
            ("regional_endpoint_uplift_multiplier", "regional"),
            ("fedramp_uplift_multiplier", "fedramp"),
        ] {
            if let Some(ppm) = self.0.get(field).and_then(|raw| factor(raw.get())) {
                regions.insert(region.to_owned(), ppm);
            }
        }
        (regions, fast)
    }
}

#[cfg(test)]
mod tests;
