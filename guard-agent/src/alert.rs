//! Alerts: tells people what somebody should look at.
//!
//! In: an [`Event`], which is in the audit log already. Out: a line in the log, or a message to a web server, as `[[alert]]`
//! says. On failure: it is tried again with growing pauses; what could not be delivered is recorded as
//! `alert.undelivered`. Nothing here is on the path of a call: raising an alert is a look at a small table and a push to
//! a bounded queue.
//!
//! The same alert of the same agent about the same thing is told once in ten minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::config::{AlertRule, AlertTo};
use crate::telemetry::metrics::{AlertEnd, Metrics};

mod deliver;
mod message;

pub use deliver::deliver;

/// Alerts that may wait.
const WAITING: usize = 256;
/// How long the same alert is not told again.
const QUIET: Duration = Duration::from_secs(10 * 60);
/// Alerts that are remembered, to be told once.
const REMEMBERED: usize = 4096;

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name, as `[[alert]]` knows it.
    pub name: String,
    /// The agent; none when it is about the host.
    pub agent: Option<Arc<str>>,
    /// Who pays for the agent.
    pub owner: Option<Arc<str>>,
    /// In words.
    pub message: String,
    /// What it is about: two alerts about one thing are one.
    pub about: String,
    /// When.
    pub time: Timestamp,
    /// Of its audit record.
    pub id: String,
}

type Told = HashMap<(String, Option<Arc<str>>, String), Instant>;

/// Takes alerts.
pub struct Alerts {
    queue: mpsc::Sender<Event>,
    rules: Arc<ArcSwap<Vec<AlertRule>>>,
    told: Mutex<Told>,
    metrics: Arc<Metrics>,
}

/// What delivers them.
pub struct Waiting {
    queue: mpsc::Receiver<Event>,
    rules: Arc<ArcSwap<Vec<AlertRule>>>,
    metrics: Arc<Metrics>,
}

impl Alerts {
    /// Alerts by these rules, and the end from which they are delivered.
    pub fn new(rules: Vec<AlertRule>, metrics: Arc<Metrics>) -> (Self, Waiting) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let alerts = Self {
            queue: sender,
            rules: rules.clone(),
            told: Mutex::default(),
            metrics: metrics.clone(),
        };
        let waiting = Waiting {
            queue: receiver,
            rules,
            metrics,
        };
        (alerts, waiting)
    }

    /// Puts other rules in force.
    pub fn replace(&self, rules: Vec<AlertRule>) {
        self.rules.store(Arc::new(rules));
    }

    /// Tells whom it concerns, soon. Never waits.
    pub fn raise(&self, event: Event) {
        if !self.rules.load().iter().any(|rule| concerns(rule, &event)) {
            return;
        }
        if !self.is_new(&event, Instant::now()) {
            return self.metrics.alert(AlertEnd::Repeated);
        }
        if let Err(full) = self.queue.try_send(event) {
            // It is in the audit log, and the metric says that nobody was told.
            self.metrics.alert(AlertEnd::Lost);
            tracing::error!(why = %full, "an alert was not told: too many wait");
        }
    }

    fn is_new(&self, event: &Event, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.saturating_duration_since(*at) < QUIET);
        let key = (event.name.clone(), event.agent.clone(), event.about.clone());
        // When there is no room to remember, it is told rather than not.
        if told.len() >= REMEMBERED {
            return !told.contains_key(&key);
        }
        match told.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(now);
                true
            }
        }
    }
}

fn concerns(rule: &AlertRule, event: &Event) -> bool {
    rule.when.iter().any(|pattern| pattern.covers(&event.name))
}

/// Where an alert goes, by the rules in force; each place once.
fn receivers(rules: &[AlertRule], event: &Event) -> Vec<AlertTo> {
    let mut to: Vec<AlertTo> = Vec::new();
    for rule in rules.iter().filter(|rule| concerns(rule, event)) {
        let known = to.iter().any(|known| match (known, &rule.to) {
            (AlertTo::Log, AlertTo::Log) => true,
            (AlertTo::Hook(a), AlertTo::Hook(b)) => a.url.expose() == b.url.expose(),
            (AlertTo::Log, AlertTo::Hook(_)) | (AlertTo::Hook(_), AlertTo::Log) => false,
        });
        if !known {
            to.push(rule.to.clone());
        }
    }
    to
}

#[cfg(test)]
mod tests;
