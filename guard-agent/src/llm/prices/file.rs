//! The format of Guard's own table and of an operator's overlay: TOML, prices as decimal strings per million tokens.
//!
//! In: the text. Out: rows with their aliases. On failure: the row and what is wrong with it.

use std::collections::{BTreeMap, HashMap};

use jiff::civil::Date;
use serde::Deserialize;

use super::{DEAREST_REGION, LongContext, ModelPrice, Rates, STANDARD, TierPrice};
use crate::llm::Unit;
use crate::money::Pico;

/// Tokens in which providers quote prices.
const PER: u64 = 1_000_000;

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceTableError {
    /// Not the format.
    #[error("price table: {0}")]
    Format(#[from] toml::de::Error),
    /// Not the format of an imported list.
    #[error("price list: {0}")]
    List(String),
    /// A row that contradicts itself or another one.
    #[error("price table: {model}: {problem}")]
    Row {
        /// Which row.
        model: String,
        /// What is wrong with it.
        problem: String,
    },
}

pub(super) fn problem(model: &str, problem: impl Into<String>) -> PriceTableError {
    PriceTableError::Row {
        model: model.to_owned(),
        problem: problem.into(),
    }
}

/// A row, with the other names of its model.
pub(super) type Named = (Vec<String>, ModelPrice);

/// Date and rows of a table.
pub(super) fn read(text: &str) -> Result<(Date, Vec<Named>), PriceTableError> {
    let file: File = toml::from_str(text)?;
    let rows = file
        .model
        .into_iter()
        .map(|mut row| Ok((std::mem::take(&mut row.aliases), row.check()?)));
    Ok((file.date, rows.collect::<Result<_, PriceTableError>>()?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    date: Date,
    #[serde(default)]
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
    #[serde(default)]
    source: String,
    from: Option<Date>,
    #[serde(default)]
    free: bool,
    #[serde(default)]
    off_peak: bool,
    #[serde(default)]
    cache_writes: CacheWrites,
    rates: Option<RatesRow>,
    #[serde(default)]
    long: Bands,
    #[serde(default)]
    tiers: BTreeMap<String, TierRow>,
    /// US dollars each.
    #[serde(default)]
    fees: BTreeMap<String, String>,
    /// A factor, as a decimal string.
    #[serde(default)]
    regions: BTreeMap<String, String>,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum CacheWrites {
    #[default]
    Asked,
    Automatic,
}

/// One long-context mark, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Bands {
    One(Box<LongRow>),
    Several(Vec<LongRow>),
}

impl Default for Bands {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Bands {
    fn check(self, model: &str) -> Result<Vec<LongContext>, PriceTableError> {
        let rows = match self {
            Self::One(row) => vec![*row],
            Self::Several(rows) => rows,
        };
        let bands: Vec<LongContext> = rows
            .into_iter()
            .map(|row| {
                Ok(LongContext {
                    above: row.above,
                    rates: Some(row.rates.check(model)?),
                })
            })
            .collect::<Result<_, PriceTableError>>()?;
        if !bands.is_sorted_by(|a, b| a.above < b.above) {
            return Err(problem(model, "the long-context marks do not rise"));
        }
        Ok(bands)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierRow {
    rates: RatesRow,
    #[serde(default)]
    long: Bands,
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
    reasoning: Option<String>,
    input_audio: Option<String>,
    cache_read_audio: Option<String>,
    input_image: Option<String>,
    cache_read_image: Option<String>,
    output_audio: Option<String>,
    output_image: Option<String>,
}

impl Row {
    fn check(self) -> Result<ModelPrice, PriceTableError> {
        let model = self.model.as_str();
        let standard = match (self.rates, self.free) {
            (Some(rates), false) => TierPrice {
                rates: rates.check(model)?,
                long: self.long.check(model)?,
            },
            (None, true) => TierPrice {
                rates: Rates::default(),
                long: Vec::new(),
            },
            // Billed by number alone.
            (None, false) if !self.fees.is_empty() => TierPrice {
                rates: Rates::default(),
                long: Vec::new(),
            },
            (None, false) => {
                return Err(problem(
                    model,
                    "it has neither rates nor fees and is not marked free",
                ));
            }
            (Some(_), true) => return Err(problem(model, "it is marked free and has rates")),
        };
        if self.context_window == 0 || self.max_output == 0 || self.max_output > self.context_window {
            return Err(problem(model, "context_window and max_output are not in order"));
        }
        let mut tiers = BTreeMap::new();
        for (name, tier) in self.tiers {
            if STANDARD.contains(&name.as_str()) {
                return Err(problem(model, format!("the tier {name} is the standard one")));
            }
            tiers.insert(name, tier.check(model, &standard.long)?);
        }
        Ok(ModelPrice {
            context_window: self.context_window,
            max_output: self.max_output,
            automatic_cache_writes: self.cache_writes == CacheWrites::Automatic,
            off_peak: self.off_peak,
            free: self.free,
            ceiling: false,
            from: self.from,
            fees: fees(model, &self.fees)?,
            regions: regions(model, &self.regions)?,
            label: self.model,
            provider: self.provider,
            source: self.source,
            standard,
            tiers,
        })
    }
}

fn fees(model: &str, written: &BTreeMap<String, String>) -> Result<HashMap<Unit, Pico>, PriceTableError> {
    let fee = |(name, price): (&String, &String)| {
        let unit = Unit::ALL.into_iter().find(|unit| unit.label() == name);
        let unit =
            unit.ok_or_else(|| problem(model, format!("{name:?} is nothing that is billed by number")))?;
        let price =
            Pico::from_usd_text(price).ok_or_else(|| problem(model, format!("{price:?} is not a price")))?;
        Ok((unit, price))
    };
    written.iter().map(fee).collect()
}

fn regions(
    model: &str,
    written: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, u32>, PriceTableError> {
    let region = |(name, factor): (&String, &String)| {
        // The same exact decimal reader as for dollars, scaled from pico to parts per million.
        let ppm = Pico::from_usd_text(factor)
            .filter(|factor| factor.0 % PER == 0)
            .and_then(|factor| u32::try_from(factor.0 / PER).ok())
            .filter(|ppm| (1_000_000..=DEAREST_REGION).contains(ppm));
        let ppm = ppm.ok_or_else(|| problem(model, format!("{factor:?} is not a factor of 1 to 10")))?;
        Ok((name.clone(), ppm))
    };
    written.iter().map(region).collect()
}

impl TierRow {
    /// `marks`: the standard tier's. A tier without marks of its own has no price above the first of them.
    fn check(self, model: &str, marks: &[LongContext]) -> Result<TierPrice, PriceTableError> {
        let mut long = self.long.check(model)?;
        if long.is_empty() {
            long.extend(marks.first().map(|mark| LongContext {
                above: mark.above,
                rates: None,
            }));
        }
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
        let own = |text: &Option<String>| text.as_ref().map(rate).transpose();
        Ok(Rates {
            input,
            cache_read: or_input(&self.cache_read)?,
            cache_write_5m: or_input(&self.cache_write_5m)?,
            cache_write_1h: or_input(&self.cache_write_1h)?,
            output: rate(&self.output)?,
            reasoning: own(&self.reasoning)?,
            input_audio: own(&self.input_audio)?,
            cache_read_audio: own(&self.cache_read_audio)?,
            input_image: own(&self.input_image)?,
            cache_read_image: own(&self.cache_read_image)?,
            output_audio: own(&self.output_audio)?,
            output_image: own(&self.output_image)?,
        })
    }
}
