//! Money at the edge: whole pico-dollars inside, floating-point dollars in the exposition, and nowhere else.
#![allow(
    clippy::float_arithmetic,
    reason = "the exposition format only has floats; what is decided or booked never comes from here"
)]

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, MetricFamily, MetricType};

use crate::money::{PICO_PER_USD, Pico};

/// Shows a collector of pico-dollars in dollars.
pub(super) struct Usd<C>(pub(super) C);

impl<C: Collector> Collector for Usd<C> {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in &mut families {
            let kind = family.get_field_type();
            for metric in family.mut_metric() {
                if kind == MetricType::COUNTER {
                    let mut counter = Counter::default();
                    counter.set_value(dollars(metric.get_counter().get_value()));
                    metric.set_counter(counter);
                } else {
                    let mut gauge = Gauge::default();
                    gauge.set_value(dollars(metric.get_gauge().get_value()));
                    metric.set_gauge(gauge);
                }
            }
        }
        families
    }
}

/// Off by at most one part in 2^52, which no dashboard shows.
fn dollars(pico: f64) -> f64 {
    pico / PICO_PER_USD as f64
}

/// How much of a reservation was used.
pub(super) fn ratio(settled: Pico, reserved: Pico) -> f64 {
    settled.0 as f64 / reserved.0 as f64
}
