//! What a call costs: a dated table in layers, and exact arithmetic on it.
//!
//! In: provider, model, usage, service tier, region. Out: pico-dollars. On failure: `None`, which is "not known" and never
//! zero: a model, a tier, a region or a kind of token that the table has no price for, or an amount beyond 18.4 million
//! dollars.
//!
//! The layers, each in place of the ones before it, model by model: a snapshot of LiteLLM's price list (a few thousand
//! models), Guard's own checked table, a list that the operator imported, and the operator's overlay. The provider is
//! found by the host of the call; within it a model is found by its exact name, an alias that the table lists, or one of
//! the rules in `names`. A name that merely begins like a known one is not priced.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::civil::Date;

use super::{Audio, Unit, Usage};
use crate::money::Pico;

mod ceiling;
mod file;
pub mod litellm;
mod names;
pub mod store;

pub use file::PriceTableError;
pub(in crate::llm) use litellm::Dollars;

/// Date of Guard's own table.
pub const DATE: &str = "2026-11-23";

/// Names by which providers call the tier that needs no asking for: in replies `default` (OpenAI), `standard`
/// (Anthropic), `on_demand` (Groq); in requests also `auto` (let the provider choose) and `standard_only`.
const STANDARD: [&str; 5] = ["default", "standard", "on_demand", "auto", "standard_only"];

/// The name under which the tables have a tier that is called so: OpenAI has called `priority` also `fast` since July 2026,
/// and takes and gives either name.
fn renamed(tier: &str) -> Option<&'static str> {
    (tier == "fast").then_some("priority")
}

/// What providers call the region that costs no more.
const ANYWHERE: [&str; 3] = ["global", "not_available", "default"];

/// The most expensive shift between regions that is believed, in parts per million.
const DEAREST_REGION: u32 = 10_000_000;

/// Prices per token of one tier. Zero is "no price", never "for nothing".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Reasoning, where it has a price of its own.
    pub reasoning: Option<Pico>,
    /// Audio heard, and heard from a cache.
    pub input_audio: Option<Pico>,
    /// Audio heard that came from a cache.
    pub cache_read_audio: Option<Pico>,
    /// Images seen.
    pub input_image: Option<Pico>,
    /// Images seen that came from a cache.
    pub cache_read_image: Option<Pico>,
    /// Audio spoken.
    pub output_audio: Option<Pico>,
    /// Images made.
    pub output_image: Option<Pico>,
}

impl Rates {
    /// What the tokens of this usage cost.
    fn cost(&self, usage: &Usage) -> Option<Pico> {
        let media = &usage.media;
        let reasoning = usage.reasoning.min(usage.output);
        // What a provider does not price apart it bills as text; audio it always does price apart.
        let lines = [
            (Some(self.input), usage.input),
            (Some(self.cache_read), usage.cache_read),
            (Some(self.cache_write_5m), usage.cache_write_5m),
            (Some(self.cache_write_1h), usage.cache_write_1h),
            (Some(self.output), usage.output - reasoning),
            (Some(self.reasoning.unwrap_or(self.output)), reasoning),
            (self.input_audio, media.input_audio),
            (self.cache_read_audio.or(self.input_audio), media.cache_read_audio),
            (Some(self.input_image.unwrap_or(self.input)), media.input_image),
            (
                Some(self.cache_read_image.or(self.input_image).unwrap_or(self.input)),
                media.cache_read_image,
            ),
            (self.output_audio, media.output_audio),
            (self.output_image, media.output_image),
        ];
        lines
            .into_iter()
            .filter(|(_, tokens)| *tokens > 0)
            .try_fold(Pico::ZERO, |sum, (rate, tokens)| {
                let rate = rate.filter(|rate| *rate > Pico::ZERO)?;
                sum.checked_add(rate.checked_mul(tokens)?)
            })
    }

    /// The dearest rate that a token of output may have; of audio and images only where they may be in it.
    pub fn dearest_output(&self, text_only: bool) -> Pico {
        let media = [self.output_audio, self.output_image]
            .into_iter()
            .flatten()
            .filter(|_| !text_only);
        media.chain(self.reasoning).fold(self.output, Pico::max)
    }

    /// The dearest rate that a token of audio or of an image may have.
    pub fn dearest_media(&self) -> Pico {
        [
            self.input_audio,
            self.cache_read_audio,
            self.input_image,
            self.cache_read_image,
        ]
        .into_iter()
        .flatten()
        .fold(Pico::ZERO, Pico::max)
    }
}

/// Prices of one service tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierPrice {
    /// Up to the first long-context mark.
    pub rates: Rates,
    /// Above the marks, in rising order: for every token of the call.
    pub long: Vec<LongContext>,
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
        match self.long.iter().rev().find(|long| total_input > long.above) {
            Some(long) => long.rates.as_ref(),
            None => Some(&self.rates),
        }
    }

    /// Every rate that a call with at most this much input may be billed at; `None` where one of them is not known.
    pub fn up_to(&self, total_input: u64) -> impl Iterator<Item = Option<&Rates>> {
        let reached = self.long.iter().filter(move |long| total_input > long.above);
        std::iter::once(Some(&self.rates)).chain(reached.map(|long| long.rates.as_ref()))
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
    /// Somebody said that it costs nothing.
    pub free: bool,
    /// Not a model's price, but the highest known one of the provider.
    pub ceiling: bool,
    /// The first day of these prices.
    pub from: Option<Date>,
    /// The page with this price.
    pub source: String,
    standard: TierPrice,
    tiers: BTreeMap<String, TierPrice>,
    /// Prices of things that are billed by number.
    fees: HashMap<Unit, Pico>,
    /// What a region costs, in parts per million of the price.
    regions: BTreeMap<String, u32>,
}

impl ModelPrice {
    /// The prices of a service tier, as a request or a reply names it (none: the standard one).
    pub fn tier(&self, service_tier: Option<&str>) -> Option<&TierPrice> {
        match service_tier {
            None => Some(&self.standard),
            Some(name) if STANDARD.contains(&name) => Some(&self.standard),
            Some(name) => self
                .tiers
                .get(name)
                .or_else(|| self.tiers.get(renamed(name)?))
                // A ceiling is above every tier.
                .or(self.ceiling.then_some(&self.standard)),
        }
    }

    /// The tiers beside the standard one.
    pub fn tiers(&self) -> impl Iterator<Item = (&str, &TierPrice)> {
        self.tiers.iter().map(|(name, tier)| (name.as_str(), tier))
    }

    /// The price of one of these.
    pub fn fee(&self, unit: Unit) -> Option<Pico> {
        self.fees.get(&unit).copied()
    }

    /// Whether audio of this kind has a price.
    pub fn hears(&self, audio: Audio) -> bool {
        let Rates {
            input_audio,
            output_audio,
            ..
        } = self.standard.rates;
        self.free
            || match audio {
                Audio::Unsaid => true,
                Audio::Spoken => input_audio.is_some() && output_audio.is_some(),
                Audio::Heard => input_audio.is_some() || self.fee(Unit::AudioMillis).is_some(),
            }
    }

    /// What this usage costs in no particular region.
    pub fn cost(&self, usage: &Usage, service_tier: Option<&str>) -> Option<Pico> {
        self.cost_in(usage, service_tier, None)
    }

    /// What this usage costs. Price it by the tier and region that the reply names: providers serve a call in another
    /// tier than the one asked for.
    pub fn cost_in(&self, usage: &Usage, service_tier: Option<&str>, region: Option<&str>) -> Option<Pico> {
        if self.free {
            return Some(Pico::ZERO);
        }
        let rates = self.tier(service_tier)?.rates(usage.total_input())?;
        let tokens = self.in_region(rates.cost(usage)?, region)?;
        usage.units.iter().try_fold(tokens, |sum, (unit, count)| {
            sum.checked_add(self.fee(unit)?.checked_mul(count)?)
        })
    }

    /// The amount in a region. A region that the row does not name costs what the dearest one does.
    pub fn in_region(&self, amount: Pico, region: Option<&str>) -> Option<Pico> {
        let named = region.filter(|region| !region.is_empty() && !ANYWHERE.contains(region));
        let dearest = || self.regions.values().copied().max().unwrap_or(1_000_000);
        match named.map(|region| self.regions.get(region).copied().unwrap_or_else(dearest)) {
            None | Some(1_000_000) => Some(amount),
            Some(ppm) => amount.scaled_up(ppm),
        }
    }
}

/// The table.
#[derive(Debug, Clone)]
pub struct PriceTable {
    date: Date,
    models: Vec<Arc<ModelPrice>>,
    /// Rows by provider and name; several where a price changes on a day.
    index: HashMap<String, HashMap<String, Vec<usize>>>,
    /// The dearest of each provider, for models that have no price.
    ceilings: HashMap<String, Arc<ModelPrice>>,
}

impl PriceTable {
    /// The table that is part of this binary.
    pub fn embedded() -> Result<Self, PriceTableError> {
        let snapshot = litellm::embedded()?;
        let mut table = Self::of_rows(snapshot.date, snapshot.rows);
        table.overlay(include_str!("prices/table.toml"))?;
        Ok(table)
    }

    /// Reads a table in the format of Guard's own.
    pub fn parse(text: &str) -> Result<Self, PriceTableError> {
        let (date, rows) = file::read(text)?;
        let mut table = Self::of_rows(date, Vec::new());
        table.add(rows)?;
        Ok(table)
    }

    /// Puts a table in the format of Guard's own over this one.
    pub fn overlay(&mut self, text: &str) -> Result<(), PriceTableError> {
        let (date, rows) = file::read(text)?;
        self.date = self.date.max(date);
        self.add(rows)
    }

    /// Puts an imported list over this table.
    pub fn import(&mut self, list: litellm::List) -> Result<(), PriceTableError> {
        // The age is that of the list that was imported last, whatever was shipped with the binary.
        self.date = list.date;
        self.add(list.rows.into_iter().map(|row| (Vec::new(), row)).collect())
    }

    fn of_rows(date: Date, rows: Vec<ModelPrice>) -> Self {
        let mut table = Self {
            date,
            models: Vec::new(),
            index: HashMap::new(),
            ceilings: HashMap::new(),
        };
        // Rows of one list under names of their own: nothing can stand twice.
        drop(table.add(rows.into_iter().map(|row| (Vec::new(), row)).collect()));
        table
    }

    /// Adds one layer: a name in it replaces what the layers before have under that name.
    fn add(&mut self, rows: Vec<file::Named>) -> Result<(), PriceTableError> {
        let first = self.models.len();
        for (aliases, row) in rows {
            let place = self.models.len();
            let provider = self.index.entry(row.provider.clone()).or_default();
            for name in std::iter::once(&row.label).chain(&aliases) {
                let known = provider.entry(name.clone()).or_default();
                known.retain(|other| *other >= first);
                if known.iter().any(|other| {
                    *other == place || self.models.get(*other).is_some_and(|m| m.from == row.from)
                }) {
                    return Err(file::problem(&row.label, format!("the name {name} stands twice")));
                }
                known.push(place);
            }
            self.models.push(Arc::new(row));
        }
        self.find_ceilings();
        Ok(())
    }

    fn find_ceilings(&mut self) {
        let mut all: HashMap<String, ModelPrice> = HashMap::new();
        for model in self.models.iter().filter(|model| !model.free) {
            match all.get_mut(&model.provider) {
                Some(ceiling) => ceiling.raise(model),
                None => {
                    let mut ceiling = (**model).clone();
                    ceiling.raise(model);
                    all.insert(model.provider.clone(), ceiling);
                }
            }
        }
        self.ceilings = all
            .into_iter()
            .map(|(name, model)| (name, Arc::new(model)))
            .collect();
    }

    /// The price of a model under the name that a request or a reply of this provider gives it.
    pub fn find(&self, provider: &str, model: &str) -> Option<&Arc<ModelPrice>> {
        let by_name = self.index.get(provider)?;
        names::candidates(provider, model)
            .iter()
            .find_map(|name| self.in_force(by_name.get(name.as_ref())?))
    }

    /// Of several rows for a name the one whose day has come last.
    fn in_force(&self, rows: &[usize]) -> Option<&Arc<ModelPrice>> {
        let rows = || rows.iter().filter_map(|row| self.models.get(*row));
        if rows().all(|row| row.from.is_none()) {
            return rows().next();
        }
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        rows()
            .filter(|row| row.from.is_none_or(|from| from <= today))
            .max_by_key(|row| row.from)
    }

    /// The highest known price of a provider, in each respect, for a model that has none of its own.
    pub fn ceiling(&self, provider: &str) -> Option<&Arc<ModelPrice>> {
        self.ceilings.get(provider)
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

#[cfg(test)]
mod independent;
#[cfg(test)]
mod tests;
