//! What a call costs: an embedded, dated table, and exact arithmetic on it.
//!
//! In: provider, model, usage, service tier. Out: pico-dollars. On failure: `None`, which is "not known" and never
//! zero: a model or tier that the table does not have, or an amount beyond 18.4 million dollars.
//!
//! A model is found by its exact name or by an alias that the table lists; a name that merely begins like a known
//! one is not priced.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::civil::Date;
use serde::Deserialize;

use super::Usage;
use crate::money::Pico;

/// Date of the embedded table.
pub const DATE: &str = "2026-11-23";

/// Tokens in which providers quote prices.
const PER: u64 = 1_000_000;

/// Names by which providers call the tier that needs no asking for: in replies `default` (OpenAI), `standard`
/// (Anthropic), `on_demand` (Groq); in requests also `auto` (let the provider choose) and `standard_only`.
const STANDARD: [&str; 5] = ["default", "standard", "on_demand", "auto", "standard_only"];

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceTableError {
    /// Not the format.
    #[error("price table: {0}")]
    Format(#[from] toml::de::Error),
    /// A row that contradicts itself or another one.
    #[error("price table: {model}: {problem}")]
    Row {
        /// Which row.
        model: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Prices per token of one tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Input neither read from nor written to a cache.
    pub input: Pico,
    /// Input read from a cache.
    pub cache_read: Pico,
    /// Input written to a cache with the default lifetime.
    pub cache_write_5m: Pico,
    /// Input written to a cache with the longer lifetime.
    pub cache_write_1h: Pico,
    /// Output, reasoning included.
    pub output: Pico,
}

/// Prices of one service tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierPrice {
    /// Up to the long-context mark.
    pub rates: Rates,
    /// Above it: for every token of the call.
    pub long: Option<LongContext>,
}

/// A long-context mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongContext {
    /// Input tokens (cached ones included) above which the rates apply.
    pub above: u64,
    /// The rates; `None` when the tier has no price there.
    pub rates: Option<Rates>,
}

impl TierPrice {
    /// The rates for a call with this much input in total; `None` when the tier has no price for it.
    pub fn rates(&self, total_input: u64) -> Option<&Rates> {
        match &self.long {
            Some(long) if total_input > long.above => long.rates.as_ref(),
            Some(_) | None => Some(&self.rates),
        }
    }
}

/// One model's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPrice {
    /// Canonical name, for metric labels.
    pub label: String,
    /// Provider, as named in the configuration.
    pub provider: String,
    /// Most tokens in one call, input and output together.
    pub context_window: u64,
    /// Most output tokens of one answer.
    pub max_output: u64,
    /// The provider writes to its cache, and bills it, without being asked.
    pub automatic_cache_writes: bool,
    /// The provider charges less at certain hours; these prices are the dearer ones.
    pub off_peak: bool,
    /// The provider's page with this price.
    pub source: String,
    standard: TierPrice,
    tiers: BTreeMap<String, TierPrice>,
}

impl ModelPrice {
    /// The prices of a service tier, as a request or a reply names it (none: the standard one).
    pub fn tier(&self, service_tier: Option<&str>) -> Option<&TierPrice> {
        match service_tier {
            None => Some(&self.standard),
            Some(name) if STANDARD.contains(&name) => Some(&self.standard),
            Some(name) => self.tiers.get(name),
        }
    }

    /// What this usage costs. Price it by the tier that the reply names: providers serve a call in another tier than
    /// the one asked for.
    pub fn cost(&self, usage: &Usage, service_tier: Option<&str>) -> Option<Pico> {
        let cached = [usage.cache_read, usage.cache_write_5m, usage.cache_write_1h];
        let total = cached.into_iter().try_fold(usage.input, u64::checked_add)?;
        let rates = self.tier(service_tier)?.rates(total)?;
        [
            (rates.input, usage.input),
            (rates.cache_read, usage.cache_read),
            (rates.cache_write_5m, usage.cache_write_5m),
            (rates.cache_write_1h, usage.cache_write_1h),
            (rates.output, usage.output),
        ]
        .into_iter()
        .try_fold(Pico::ZERO, |sum, (rate, tokens)| {
            sum.checked_add(rate.checked_mul(tokens)?)
        })
    }
}

/// The table.
#[derive(Debug, Clone)]
pub struct PriceTable {
    date: Date,
    models: Vec<Arc<ModelPrice>>,
    /// Row by provider and name.
    index: HashMap<String, HashMap<String, usize>>,
}

impl PriceTable {
    /// The table that is part of this binary.
    pub fn embedded() -> Result<Self, PriceTableError> {
        Self::parse(include_str!("prices/table.toml"))
    }

    /// Reads a table in the embedded one's format.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        let file: File = toml::from_str(text)?;
        let mut table = Self {
            date: file.date,
            models: Vec::new(),
            index: HashMap::new(),
        };
        for row in file.model {
            table.add(row)?;
        }
        Ok(table)
    }

    fn add(&mut self, row: Row) -> Result<(), PriceTableError> {
        let names = std::iter::once(row.model.clone()).chain(row.aliases.iter().cloned());
        let provider = self.index.entry(row.provider.clone()).or_default();
        for name in names {
            if provider.insert(name.clone(), self.models.len()).is_some() {
                return Err(problem(&row.model, format!("the name {name} stands twice")));
            }
        }
        self.models.push(Arc::new(row.check()?));
        Ok(())
    }

    /// The price of a model under the name that a request or a reply of this provider gives it.
    pub fn find(&self, provider: &str, model: &str) -> Option<&Arc<ModelPrice>> {
        self.models.get(*self.index.get(provider)?.get(model)?)
    }

    /// Every row.
    pub fn models(&self) -> &[Arc<ModelPrice>] {
        &self.models
    }

    /// As of when the prices are.
    pub fn date(&self) -> Date {
        self.date
    }
}

fn problem(model: &str, problem: impl Into<String>) -> PriceTableError {
    PriceTableError::Row {
        model: model.to_owned(),
        problem: problem.into(),
    }
}

// --- the file ------------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    date: Date,
    model: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    provider: String,
    model: String,
    #[serde(default)]
    aliases: Vec<String>,
    context_window: u64,
    max_output: u64,
    source: String,
    #[serde(default)]
    off_peak: bool,
    #[serde(default)]
    cache_writes: CacheWrites,
    rates: RatesRow,
    long: Option<LongRow>,
    #[serde(default)]
    tiers: BTreeMap<String, TierRow>,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum CacheWrites {
    #[default]
    Asked,
    Automatic,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierRow {
    rates: RatesRow,
    long: Option<LongRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongRow {
    above: u64,
    rates: RatesRow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatesRow {
    input: String,
    cache_read: Option<String>,
    cache_write_5m: Option<String>,
    cache_write_1h: Option<String>,
    output: String,
}

impl Row {
    fn check(self) -> Result<ModelPrice, PriceTableError> {
        let standard = TierRow {
            rates: self.rates,
            long: self.long,
        }
        .check(&self.model, None)?;
        if self.context_window == 0 || self.max_output == 0 || self.max_output > self.context_window {
            return Err(problem(
                &self.model,
                "context_window and max_output are not in order",
            ));
        }
        let mut tiers = BTreeMap::new();
        for (name, tier) in self.tiers {
            if STANDARD.contains(&name.as_str()) {
                return Err(problem(
                    &self.model,
                    format!("the tier {name} is the standard one"),
                ));
            }
            tiers.insert(name, tier.check(&self.model, standard.long)?);
        }
        Ok(ModelPrice {
            label: self.model,
            provider: self.provider,
            context_window: self.context_window,
            max_output: self.max_output,
            automatic_cache_writes: self.cache_writes == CacheWrites::Automatic,
            off_peak: self.off_peak,
            source: self.source,
            standard,
            tiers,
        })
    }
}

impl TierRow {
    /// `mark`: the standard tier's long-context mark. A tier without one of its own has no price above it.
    fn check(self, model: &str, mark: Option<LongContext>) -> Result<TierPrice, PriceTableError> {
        let long = match self.long {
            Some(long) => Some(LongContext {
                above: long.above,
                rates: Some(long.rates.check(model)?),
            }),
            None => mark.map(|mark| LongContext {
                above: mark.above,
                rates: None,
            }),
        };
        Ok(TierPrice {
            rates: self.rates.check(model)?,
            long,
        })
    }
}

impl RatesRow {
    fn check(&self, model: &str) -> Result<Rates, PriceTableError> {
        let rate = |text: &String| {
            // A price per million tokens is a whole number of pico-dollars per token, and never nothing.
            let pico = Pico::from_usd_text(text)
                .map(|p| p.0)
                .filter(|p| *p > 0 && p % PER == 0);
            pico.map(|p| Pico(p / PER))
                .ok_or_else(|| problem(model, format!("{text:?} is not a price")))
        };
        let input = rate(&self.input)?;
        // Cached tokens for which the provider quotes no price are billed as plain input.
        let or_input = |text: &Option<String>| text.as_ref().map_or(Ok(input), rate);
        Ok(Rates {
            input,
            cache_read: or_input(&self.cache_read)?,
            cache_write_5m: or_input(&self.cache_write_5m)?,
            cache_write_1h: or_input(&self.cache_write_1h)?,
            output: rate(&self.output)?,
        })
    }
}

#[cfg(test)]
mod tests;
