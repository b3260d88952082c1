//! `guard-agent prices show` and `guard-agent prices import`

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::output::{complain, print};
use super::{FAILED, OK};
use crate::llm::Unit;
use crate::llm::prices::{ModelPrice, PriceTable, Rates, TierPrice, litellm, store};
use crate::money::Pico;

/// A price that changes by more than this factor is not believed without being asked about.
const FACTOR: u64 = 2;
/// How many of the changes are named.
const NAMED: usize = 20;

/// What models cost.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Prices {
    Show(Show),
    Import(Import),
}

/// Shows the prices that are in force.
///
/// They are US dollars per million tokens, exactly as Guard charges them. Without a model, the providers and how many of
/// their models have a price.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 shown; 1 no such model, or the table cannot be read.\n\n\
                  Example:\n  guard-agent prices show gpt-5"
)]
pub(super) struct Show {
    /// The model as requests name it, or `PROVIDER/MODEL`.
    model: Option<String>,
}

/// Takes over LiteLLM's model_prices_and_context_window.json, as it is.
///
/// The list is kept in `host.state_dir` and put in force by `guard-agent reload`. A price that changes by more than a
/// factor of two against the one in force needs --yes. The overlay of the configuration stays above it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 kept; 1 not: the list cannot be read, or a price changes too much.\n\n\
                  Example:\n  sudo guard-agent prices import model_prices_and_context_window.json && sudo guard-agent reload"
)]
pub(super) struct Import {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Believe prices that change by more than a factor of two.
    #[arg(long)]
    yes: bool,
    /// Write the reduced list here, compressed, instead of into the state directory.
    #[arg(long, hide = true, value_name = "FILE")]
    snapshot: Option<PathBuf>,
}

impl Prices {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        match self {
            Self::Show(show) => show.run(config),
            Self::Import(import) => import.run(config),
        }
    }
}

/// The table that a reload would put in force; without a readable configuration, the one in this binary.
fn table(config: &Path) -> anyhow::Result<PriceTable> {
    let loaded = crate::config::load(config).ok();
    let host = loaded
        .as_ref()
        .map_or_else(crate::config::usual_host, |config| config.host.clone());
    let overlay = loaded.and_then(|config| config.prices.overlay);
    let overlay = overlay.map(|path| store::overlay(&path)).transpose()?;
    let (table, problem) = store::load(&host.state_dir, overlay.as_deref())?;
    problem.iter().for_each(|problem| complain(problem));
    Ok(table)
}

impl Show {
    fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let table = table(config)?;
        let Some(wanted) = &self.model else {
            return overview(&table);
        };
        let mut providers: Vec<&str> = table
            .models()
            .iter()
            .map(|model| model.provider.as_str())
            .collect();
        providers.sort_unstable();
        providers.dedup();
        let found: Vec<&ModelPrice> = providers
            .iter()
            .filter_map(|provider| {
                let named = wanted
                    .strip_prefix(provider)
                    .and_then(|rest| rest.strip_prefix('/'));
                let own = named.and_then(|model| table.find(provider, model));
                own.or_else(|| table.find(provider, wanted)).map(|model| &**model)
            })
            .collect();
        if found.is_empty() {
            complain(&format!(
                "{wanted:?} has no price: its calls are refused, unless defaults.unpriced = \"ceiling\". Give it one in an \
                 overlay ([prices] overlay = \"…\" in guard.toml), or import a newer list."
            ));
            return Ok(FAILED);
        }
        for model in found {
            print(&describe(model))?;
        }
        Ok(OK)
    }
}

fn overview(table: &PriceTable) -> anyhow::Result<u8> {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for model in table.models() {
        *counts.entry(&model.provider).or_default() += 1;
    }
    print(&format!("Prices as of {}.", table.date()))?;
    for (provider, count) in counts {
        print(&format!("{provider:<16} {count:>5} models"))?;
    }
    Ok(OK)
}

fn describe(model: &ModelPrice) -> String {
    let mut out = format!("{}/{}\n", model.provider, model.label);
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<28} {value}\n"));
    if model.free {
        line("free", "yes".to_owned());
    }
    if let Some(from) = model.from {
        line("from", from.to_string());
    }
    let standard = model.tier(None).map(|tier| ("standard", tier));
    for (name, tier) in standard.into_iter().chain(model.tiers()) {
        for (above, rates) in bands(tier) {
            let place = above.map_or(name.to_owned(), |above| format!("{name}, above {above}"));
            line(&place, rates.map_or("not known".to_owned(), per_million));
        }
    }
    for unit in Unit::ALL {
        if let Some(fee) = model.fee(unit) {
            line(unit.label(), format!("{fee} each"));
        }
    }
    line(
        "context window, output",
        format!("{}, {}", model.context_window, model.max_output),
    );
    if !model.source.is_empty() {
        line("source", model.source.clone());
    }
    out.trim_end().to_owned()
}

fn bands(tier: &TierPrice) -> impl Iterator<Item = (Option<u64>, Option<&Rates>)> {
    let long = tier
        .long
        .iter()
        .map(|mark| (Some(mark.above), mark.rates.as_ref()));
    std::iter::once((None, Some(&tier.rates))).chain(long)
}

fn per_million(rates: &Rates) -> String {
    let named = [
        ("input", Some(rates.input)),
        ("cache read", Some(rates.cache_read)),
        ("cache write", Some(rates.cache_write_5m)),
        ("longer cache write", Some(rates.cache_write_1h)),
        ("output", Some(rates.output)),
        ("reasoning", rates.reasoning),
        ("audio input", rates.input_audio),
        ("audio output", rates.output_audio),
        ("image input", rates.input_image),
        ("image output", rates.output_image),
    ];
    let shown = named.into_iter().filter_map(|(name, rate)| {
        let million = rate.filter(|rate| *rate > Pico::ZERO)?.checked_mul(1_000_000)?;
        Some(format!("{name} {million}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

impl Import {
    fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let shown = self.file.display();
        let mut text = Vec::new();
        File::open(&self.file)
            .and_then(|file| file.take(litellm::MOST_BYTES + 1).read_to_end(&mut text))
            .with_context(|| format!("{shown} cannot be read"))?;
        if text.len() as u64 > litellm::MOST_BYTES {
            bail!("{shown} is larger than {} MiB", litellm::MOST_BYTES >> 20);
        }
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let reduced = litellm::reduce(&text, today).with_context(|| format!("{shown} cannot be used"))?;
        if let Some(snapshot) = &self.snapshot {
            let packed = zstd::encode_all(reduced.as_slice(), 19)?;
            File::create(snapshot)?.write_all(&packed)?;
            print(&format!("{} bytes, {} packed", reduced.len(), packed.len()))?;
            return Ok(OK);
        }
        let list = litellm::read(&reduced)?;
        let changes = changes(&table(config)?, &list.rows);
        if !changes.is_empty() && !self.yes {
            for change in changes.iter().take(NAMED) {
                complain(change);
            }
            complain(&format!(
                "{} price(s) change by more than a factor of {FACTOR}. Look at them, then import with --yes; nothing was changed.",
                changes.len()
            ));
            return Ok(FAILED);
        }
        let count = list.rows.len();
        store::keep(&super::host(config)?.state_dir, &reduced)?;
        print(&format!(
            "{count} models have a price. `guard-agent reload` puts them in force."
        ))?;
        Ok(OK)
    }
}

/// Prices that are another by more than the factor.
fn changes(table: &PriceTable, rows: &[ModelPrice]) -> Vec<String> {
    let far = |old: Pico, new: Pico| {
        let (low, high) = (old.min(new), old.max(new));
        high.0 > low.0.saturating_mul(FACTOR)
    };
    let change = |new: &ModelPrice| {
        let old = table
            .find(&new.provider, &new.label)
            .filter(|old| old.label == new.label)?;
        let (old, rates) = (&old.tier(None)?.rates, &new.tier(None)?.rates);
        let pairs = [
            ("input", old.input, rates.input),
            ("output", old.output, rates.output),
        ];
        let (name, old, now) = pairs.into_iter().find(|(_, old, new)| far(*old, *new))?;
        let million = |rate: Pico| rate.checked_mul(1_000_000).unwrap_or(rate);
        Some(format!(
            "{}/{}: {name} {} -> {} per million tokens",
            new.provider,
            new.label,
            million(old),
            million(now)
        ))
    };
    rows.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests;
