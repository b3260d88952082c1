//! Prices of things that are billed by number.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

use super::Fields;
use super::amounts::Dollars;
use crate::llm::Unit;
use crate::money::Pico;

impl Fields<'_> {
    pub(super) fn fees(&self, mode: &str) -> HashMap<Unit, Pico> {
        let mut fees = HashMap::new();
        let mut fee = |unit, price: Option<Pico>| {
            if let Some(price) = price {
                fees.insert(unit, price);
            }
        };
        let searches: BTreeMap<String, &RawValue> = self
            .0
            .get("search_context_cost_per_query")
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        fee(
            Unit::WebSearch,
            searches
                .values()
                .filter_map(|raw| Dollars(raw.get()).pico())
                .max(),
        );
        fee(Unit::CodeSession, self.price("code_interpreter_cost_per_session"));
        let thousand = self.price("file_search_cost_per_1k_calls");
        fee(
            Unit::FileSearch,
            thousand.map(|price| Pico(price.0.div_ceil(1_000))),
        );
        if mode.starts_with("image") {
            fee(
                Unit::Image,
                self.price("output_cost_per_image")
                    .or(self.price("input_cost_per_image")),
            );
        }
        if mode.starts_with("audio") {
            let second = self
                .price("output_cost_per_second")
                .max(self.price("input_cost_per_second"));
            fee(
                Unit::AudioMillis,
                second.map(|price| Pico(price.0.div_ceil(1_000))),
            );
            fee(Unit::Character, self.price("input_cost_per_character"));
        }
        fee(Unit::SearchUnit, self.price("input_cost_per_query"));
        fee(Unit::Page, self.price("ocr_cost_per_page"));
        fee(Unit::Request, self.price("input_cost_per_request"));
        fees
    }
}
