//! Tiers that are stated as a factor.

use crate::llm::prices::{LongContext, Rates, TierPrice};
use crate::money::Pico;

/// A tier at so many parts per million of another.
pub(super) fn times(tier: &TierPrice, ppm: u32) -> Option<TierPrice> {
    let scale = |rates: &Rates| {
        let own = |rate: Option<Pico>| rate.map_or(Some(None), |rate| rate.scaled_up(ppm).map(Some));
        Some(Rates {
            input: rates.input.scaled_up(ppm)?,
            cache_read: rates.cache_read.scaled_up(ppm)?,
            cache_write_5m: rates.cache_write_5m.scaled_up(ppm)?,
            cache_write_1h: rates.cache_write_1h.scaled_up(ppm)?,
            output: rates.output.scaled_up(ppm)?,
            reasoning: own(rates.reasoning)?,
            input_audio: own(rates.input_audio)?,
            cache_read_audio: own(rates.cache_read_audio)?,
            input_image: own(rates.input_image)?,
            cache_read_image: own(rates.cache_read_image)?,
            output_audio: own(rates.output_audio)?,
            output_image: own(rates.output_image)?,
        })
    };
    let long = tier.long.iter().map(|mark| LongContext {
        above: mark.above,
        rates: mark.rates.as_ref().and_then(scale),
    });
    Some(TierPrice {
        rates: scale(&tier.rates)?,
        long: long.collect(),
    })
}
