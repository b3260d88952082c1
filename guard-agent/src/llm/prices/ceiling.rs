//! The highest known price of a provider, in each respect.

use super::{ModelPrice, Rates, TierPrice};
use crate::money::Pico;

impl ModelPrice {
    /// Makes this row as dear as `other` in every respect in which that one is dearer. Long-context marks go: what is
    /// above them counts for every call. Tiers go too, except that their rates count in the standard one.
    pub(super) fn raise(&mut self, other: &Self) {
        self.label = "ceiling".to_owned();
        self.ceiling = true;
        self.context_window = self.context_window.max(other.context_window);
        self.max_output = self.max_output.max(other.max_output);
        self.automatic_cache_writes |= other.automatic_cache_writes;
        let mut rates = self.standard.rates;
        for tier in std::iter::once(&other.standard).chain(other.tiers.values()) {
            for more in tier.up_to(u64::MAX).flatten() {
                rates.raise(more);
            }
        }
        self.standard = TierPrice {
            rates,
            long: Vec::new(),
        };
        self.tiers.clear();
        for (unit, fee) in &other.fees {
            let known = self.fees.entry(*unit).or_insert(*fee);
            *known = (*known).max(*fee);
        }
        for (region, ppm) in &other.regions {
            let known = self.regions.entry(region.clone()).or_insert(*ppm);
            *known = (*known).max(*ppm);
        }
    }
}

impl Rates {
    fn raise(&mut self, other: &Self) {
        let higher = |a: &mut Pico, b: Pico| *a = (*a).max(b);
        higher(&mut self.input, other.input);
        higher(&mut self.cache_read, other.cache_read);
        higher(&mut self.cache_write_5m, other.cache_write_5m);
        higher(&mut self.cache_write_1h, other.cache_write_1h);
        higher(&mut self.output, other.output);
        for (own, more) in [
            (&mut self.reasoning, other.reasoning),
            (&mut self.input_audio, other.input_audio),
            (&mut self.cache_read_audio, other.cache_read_audio),
            (&mut self.input_image, other.input_image),
            (&mut self.cache_read_image, other.cache_read_image),
            (&mut self.output_audio, other.output_audio),
            (&mut self.output_image, other.output_image),
        ] {
            *own = (*own).max(more);
        }
    }
}
