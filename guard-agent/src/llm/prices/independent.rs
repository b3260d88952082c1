//! What calls cost, compared with a calculator and a price list that are not Guard's: genai-prices (PyPI, MIT).
//!
//! `independent.jsonl` is what it says, one usage a line; `tests/clients/matrix/prices.py` asks it, and
//! `cargo xtask test --clients` asks the package again and fails where the file is not what it says.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PriceTable;
use crate::llm::{Unit, Usage};
use crate::money::Pico;

/// One usage and its cost.
#[derive(Debug, Deserialize)]
struct Line {
    provider: String,
    model: String,
    case: String,
    tier: Option<String>,
    usage: BTreeMap<String, u64>,
    /// Pico-dollars; none where genai-prices has no price.
    pico: Option<String>,
}

/// Where the two differ, and why Guard's price stands: provider, model and case (`*` at the end: whatever follows).
#[rustfmt::skip]
const DIFFERENCES: &[(&str, &str, &str, &str)] = &[
    // OpenAI sells two lifetimes of what is written to its cache since gpt-5.6; genai-prices has the price of one.
    ("openai", "gpt-5.6-*", "cache_write_1h", "it prices twelve hours as it does thirty minutes"),
    ("openai", "gpt-5.6-*", "everything*", "the same"),
    ("openai", "gpt-5.6-*", "above 272000", "the same"),
    ("openai", "gpt-6*", "cache_write_1h", "the same"),
    ("openai", "gpt-6*", "everything*", "the same"),
    ("openai", "gpt-6*", "above 272000", "the same"),
    // OpenAI quotes no price for cached tokens of these in a batch, so Guard takes that of a batch's plain input.
    ("openai", "gpt-4.1*", "everything at batch", "it takes the standard price of cached tokens"),
    ("openai", "o3", "everything at batch", "the same"),
    ("openai", "o4-mini", "everything at batch", "the same"),
    // A reply does not say whether it was the preview that searched, which costs 25 dollars a thousand of these.
    ("openai", "gpt-4o*", "web_search", "it takes the price of the search that is no preview"),
    ("openai", "gpt-4.1*", "web_search", "the same"),
    // OpenAI charges 10 dollars a thousand searches of every model that reasons.
    ("openai", "o3-pro", "web_search", "it has no price of a search, and takes nothing"),
    ("openai", "gpt-5.1-codex-mini", "web_search", "the same"),
    ("openai", "gpt-5.3-codex", "web_search", "the same"),
    // Makers' prices of long contexts, as they last stood.
    ("anthropic", "claude-sonnet-4-0", "above 200000", "it takes the price of a short context"),
    ("xai", "grok-4-0709", "above 127999", "the same"),
    // The names without a date are those of March and April 2024.
    ("cohere", "command-r", "*", "it takes the price of the model's successor"),
    ("cohere", "command-r-plus", "*", "the same"),
    // What a name stands for changes: Guard's price is that of the dearest model that it may stand for now.
    ("mistral", "mistral-large-latest", "*", "it takes the price of the model of 2024"),
    ("deepseek", "deepseek-chat", "*", "it takes the price of before September 2025"),
    ("azure", "text-embedding-3-large", "*", "Azure's price for a region is a tenth more, which it leaves out"),
];

impl Line {
    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (name, count) in &self.usage {
            if let Some(unit) = Unit::ALL.into_iter().find(|unit| unit.label() == name) {
                usage.units.set(unit, *count);
                continue;
            }
            let place = match name.as_str() {
                "input" => &mut usage.input,
                "cache_read" => &mut usage.cache_read,
                "cache_write_5m" => &mut usage.cache_write_5m,
                "cache_write_1h" => &mut usage.cache_write_1h,
                "output" => &mut usage.output,
                "reasoning" => &mut usage.reasoning,
                "input_audio" => &mut usage.media.input_audio,
                "cache_read_audio" => &mut usage.media.cache_read_audio,
                "input_image" => &mut usage.media.input_image,
                "output_audio" => &mut usage.media.output_audio,
                "output_image" => &mut usage.media.output_image,
                other => panic!("{other}"),
            };
            *place = *count;
        }
        usage
    }

    fn is_explained_by(&self, row: &(&str, &str, &str, &str)) -> bool {
        let case = match &self.tier {
            Some(tier) => format!("{} at {tier}", self.case),
            None => self.case.clone(),
        };
        let is = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => text == pattern,
        };
        row.0 == self.provider && is(row.1, &self.model) && is(row.2, &case)
    }
}

#[test]
fn what_calls_cost_is_what_an_independent_calculator_says_or_is_explained() {
    let table = PriceTable::embedded().unwrap();
    let (mut equal, mut unpriced, mut open) = (0, 0, Vec::new());
    let mut explained = vec![0_usize; DIFFERENCES.len()];
    for line in include_str!("independent.jsonl").lines() {
        let line: Line = serde_json::from_str(line).unwrap();
        let Some(theirs) = &line.pico else {
            // It knows none of Gemini's tiers.
            unpriced += u32::from(line.provider != "gemini" || line.tier.is_none());
            continue;
        };
        let price = table.find(&line.provider, &line.model);
        let ours = price.and_then(|price| price.cost(&line.usage(), line.tier.as_deref()));
        if ours == theirs.parse().ok().map(Pico) && ours.is_some() {
            equal += 1;
            continue;
        }
        let mut found = false;
        for (count, row) in explained.iter_mut().zip(DIFFERENCES) {
            if line.is_explained_by(row) {
                *count += 1;
                found = true;
            }
        }
        if !found {
            let (model, case, tier) = (&line.model, &line.case, &line.tier);
            open.push(format!(
                "{} {model} {case} {tier:?}: {ours:?}, and not {theirs}",
                line.provider
            ));
        }
    }
    assert!(open.is_empty(), "{} differ:\n{}", open.len(), open.join("\n"));
    for (row, count) in DIFFERENCES.iter().zip(explained) {
        assert!(count > 0, "explains nothing: {row:?}");
    }
    assert!(
        equal > 800 && unpriced < 20,
        "{equal} are equal, {unpriced} have no price there"
    );
}
