//! Registers metrics, and remembers what they are for the documentation.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::Described;
use super::usd::Usd;

/// Registers metrics and remembers what they are.
pub(super) struct Maker {
    pub(super) registry: Registry,
    pub(super) described: Vec<Described>,
}

/// A metric, or that its name is taken.
pub(super) type Made<T> = Result<T, prometheus::Error>;

impl Maker {
    pub(super) fn register(&mut self, kind: &'static str, collector: Box<dyn Collector>) -> Made<()> {
        for desc in collector.desc() {
            let constant = desc.const_label_pairs.iter().map(|pair| pair.name().to_owned());
            self.described.push(Described {
                name: desc.fq_name.clone(),
                kind,
                labels: desc.variable_labels.iter().cloned().chain(constant).collect(),
                help: desc.help.clone(),
            });
        }
        self.registry.register(collector)
    }

    pub(super) fn counters(&mut self, name: &str, labels: &[&str], help: &str) -> Made<IntCounterVec> {
        let made = IntCounterVec::new(Opts::new(name, help).namespace("guard"), labels)?;
        self.register("counter", Box::new(made.clone()))?;
        Ok(made)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str) -> Made<IntCounter> {
        let made = IntCounter::with_opts(Opts::new(name, help).namespace("guard"))?;
        self.register("counter", Box::new(made.clone()))?;
        Ok(made)
    }

    pub(super) fn gauges(&mut self, name: &str, labels: &[&str], help: &str) -> Made<IntGaugeVec> {
        let made = IntGaugeVec::new(Opts::new(name, help).namespace("guard"), labels)?;
        self.register("gauge", Box::new(made.clone()))?;
        Ok(made)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Made<IntGauge> {
        let made = IntGauge::with_opts(Opts::new(name, help).namespace("guard"))?;
        self.register("gauge", Box::new(made.clone()))?;
        Ok(made)
    }

    /// Counted in pico-dollars, shown in dollars.
    pub(super) fn usd_counters(&mut self, name: &str, labels: &[&str], help: &str) -> Made<IntCounterVec> {
        let made = IntCounterVec::new(Opts::new(name, help).namespace("guard"), labels)?;
        self.register("counter", Box::new(Usd(made.clone())))?;
        Ok(made)
    }

    /// Held in pico-dollars, shown in dollars.
    pub(super) fn usd_gauges(&mut self, name: &str, labels: &[&str], help: &str) -> Made<IntGaugeVec> {
        let made = IntGaugeVec::new(Opts::new(name, help).namespace("guard"), labels)?;
        self.register("gauge", Box::new(Usd(made.clone())))?;
        Ok(made)
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        labels: &[&str],
        buckets: &[f64],
        help: &str,
    ) -> Made<HistogramVec> {
        let opts = HistogramOpts::new(name, help)
            .namespace("guard")
            .buckets(buckets.to_vec());
        let made = HistogramVec::new(opts, labels)?;
        self.register("histogram", Box::new(made.clone()))?;
        Ok(made)
    }
}
