//! Burn rate: says that a budget will be gone long before its window ends, while there is time to do something.
//!
//! In: the ledger's accounts, from time to time. Out: a sentence for each budget that is gone within an hour at the rate of
//! both the last five minutes and the last hour (of what is known of it): the short window sees it soon, the long one
//! keeps a single dear call from raising an alarm. On failure: advice; nothing is said.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::{Agent, Per};
use crate::ledger::{AccountView, Amount, ScopeKind, Unit, Window};

/// How often an account is looked at.
const EVERY: Duration = Duration::from_secs(30);
/// The window that sees it soon.
const SHORT: Duration = Duration::from_secs(5 * 60);
/// The window that keeps calm.
const LONG: Duration = Duration::from_secs(60 * 60);
/// A budget that lasts this long is no reason to wake anybody.
const SOON: Duration = Duration::from_secs(60 * 60);
/// Samples of one account: an hour of them.
const SAMPLES: usize = 121;
/// Accounts that are looked at.
const ACCOUNTS: usize = 4096;

type Key = (Arc<str>, Window, Unit, Option<Timestamp>);

/// What the accounts held.
#[derive(Debug, Default)]
pub(super) struct BurnRates {
    looked: Option<Instant>,
    samples: HashMap<Key, VecDeque<(Instant, u64)>>,
}

impl BurnRates {
    /// Looks at the accounts, when it is time. Gives agents with what there is to say.
    pub(super) fn look(
        &mut self,
        agents: &[Arc<Agent>],
        accounts: &[AccountView],
        now: Instant,
    ) -> Vec<(Arc<Agent>, String)> {
        let due = self
            .looked
            .is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if !due {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut seen = Vec::new();
        let mut said = Vec::new();
        for agent in agents {
            for budget in &agent.budgets {
                // A rolling window gives back what it takes, and the ids of runs and sessions are too many.
                if matches!(budget.window, Window::Run | Window::Rolling(_)) || budget.per == Per::Session {
                    continue;
                }
                let account = accounts.iter().find(|account| {
                    account.scope.kind == ScopeKind::Agent
                        && account.scope.name == agent.name
                        && account.window == budget.window
                        && account.settled.unit == budget.limit.unit
                });
                let Some(account) = account else { continue };
                let settled = account.settled;
                let key = (agent.name.clone(), account.window, settled.unit, account.starts);
                seen.push(key.clone());
                let left = budget.limit.count.saturating_sub(settled.count);
                if let Some(lasts) = self.lasts(key, settled.count, left, now) {
                    said.push((agent.clone(), message(agent, account, budget.limit, lasts)));
                }
            }
        }
        self.samples.retain(|key, _| seen.contains(key));
        said
    }

    /// How long what is left lasts, if that is soon by both windows.
    fn lasts(&mut self, key: Key, settled: u64, left: u64, now: Instant) -> Option<Duration> {
        if self.samples.len() >= ACCOUNTS && !self.samples.contains_key(&key) {
            return None;
        }
        let samples = self.samples.entry(key).or_default();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now, settled));
        let over = |window: Duration| {
            let from = samples
                .iter()
                .find(|(at, _)| now.saturating_duration_since(*at) <= window)?;
            let took = now.saturating_duration_since(from.0).as_secs();
            let spent = settled.checked_sub(from.1)?;
            // Less than the short window is known: too little to say anything.
            if took < SHORT.as_secs() - EVERY.as_secs() || spent == 0 {
                return None;
            }
            let seconds = u128::from(left) * u128::from(took) / u128::from(spent);
            u64::try_from(seconds).ok().map(Duration::from_secs)
        };
        let (short, long) = (over(SHORT)?, over(LONG)?);
        (left > 0 && short < SOON && long < SOON).then(|| short.max(long))
    }
}

fn message(agent: &Agent, account: &AccountView, limit: Amount, lasts: Duration) -> String {
    format!(
        "agent {:?} exhausts its {limit} budget for this {} in about {} minutes ({} is used)",
        agent.name,
        account.window.label(),
        lasts.as_secs().div_ceil(60),
        account.settled
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Scope;
    use crate::money::Pico;
    use crate::policy::tests_support::agent;

    const MINUTE: Duration = Duration::from_secs(60);

    fn account(settled_cents: u64) -> AccountView {
        AccountView {
            scope: Scope {
                kind: ScopeKind::Agent,
                name: "coder".into(),
            },
            window: Window::Day,
            starts: None,
            resets_at: None,
            settled: Pico(settled_cents * 10_000_000_000).into(),
            reserved: Pico::ZERO.into(),
        }
    }

    /// Minute by minute, what was settled; gives the minutes in which there was something to say.
    fn said(cents: &[u64]) -> Vec<(usize, String)> {
        let agents = [agent(
            "providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 10.0 }]",
        )];
        let (mut rates, start) = (BurnRates::default(), Instant::now());
        let mut said = Vec::new();
        for (minute, settled) in cents.iter().enumerate() {
            let now = start + MINUTE * u32::try_from(minute).unwrap();
            let found = rates.look(&agents, &[account(*settled)], now);
            said.extend(found.into_iter().map(|(_, message)| (minute, message)));
        }
        said
    }

    #[test]
    fn a_budget_that_burns_is_seen_in_time_and_a_single_dear_call_is_not_an_alarm() {
        // Ten dollars, thirty cents a minute: gone after 33 minutes.
        let burning: Vec<u64> = (0..30).map(|minute| minute * 30).collect();
        let found = said(&burning);
        assert_eq!(found.first().map(|(minute, _)| *minute), Some(5), "{found:?}");
        assert!(found[0].1.contains("in about 29 minutes"), "{found:?}");
        // Five cents a minute last for hours.
        let slow: Vec<u64> = (0..120).map(|minute| minute * 5).collect();
        assert_eq!(said(&slow), []);
        // One call of two dollars after a quiet hour.
        let mut dear: Vec<u64> = vec![0; 61];
        dear.extend([200; 30]);
        assert_eq!(said(&dear), []);
        // A new window begins at nothing.
        let reset: Vec<u64> = (0..40).map(|minute| (minute % 4) * 30).collect();
        assert_eq!(said(&reset), []);
    }
}
