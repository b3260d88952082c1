//! Burn rate: says that a budget will be gone long before its window ends, while there is time to do something.
//!
//! In: the ledger's accounts, from time to time. Out: a sentence for each budget that is gone within an hour at the rate of
//! both the last five minutes and the last hour (of what is known of it): the short window sees it soon, the long one
//! keeps a single dear call from raising an alarm. On failure: advice; nothing is said.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::{Agent, Budget, Per};
use crate::ledger::{AccountView, Amount, Scope, Unit, Window};

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

type Key = (Scope, Window, Unit, Option<Timestamp>);

/// A budget, as it is watched.
pub(super) struct Watched<'a> {
    /// Whose budget it is; none where agents share it.
    pub(super) agent: Option<&'a Arc<Agent>>,
    pub(super) scope: Scope,
    pub(super) budget: &'a Budget,
    /// Its limit in force.
    pub(super) limit: Amount,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What there is to say, and of whom.
    pub(super) said: Vec<(Option<Arc<Agent>>, String)>,
    /// When each budget that is being spent is gone at the rate of the short window, in seconds.
    pub(super) exhausts: Vec<(Scope, Window, u64)>,
}

/// What the accounts held.
#[derive(Debug, Default)]
pub(super) struct BurnRates {
    looked: Option<Instant>,
    samples: HashMap<Key, VecDeque<(Instant, u64)>>,
}

impl BurnRates {
    /// Looks at the accounts, when it is time; none when it is not.
    pub(super) fn look<'a>(
        &mut self,
        watched: impl Iterator<Item = Watched<'a>>,
        accounts: &[AccountView],
        now: Instant,
    ) -> Option<Looked> {
        let due = self
            .looked
            .is_none_or(|last| now.saturating_duration_since(last) >= EVERY);
        if !due {
            return None;
        }
        self.looked = Some(now);
        let mut seen = Vec::new();
        let mut found = Looked::default();
        for Watched {
            agent,
            scope,
            budget,
            limit,
        } in watched
        {
            // The ids of runs and sessions are too many.
            if budget.window == Window::Run || budget.per == Per::Session {
                continue;
            }
            let Some(account) = budget.account(&scope, accounts) else {
                continue;
            };
            let settled = account.settled.count;
            // A rolling window begins anew at every moment.
            let starts = account
                .starts
                .filter(|_| !matches!(budget.window, Window::Rolling(_)));
            let key = (scope.clone(), budget.window, limit.unit, starts);
            seen.push(key.clone());
            let left = limit.count.saturating_sub(settled);
            let (short, long) = self.lasts(key, settled, left, now);
            if let Some(short) = short {
                found
                    .exhausts
                    .push((scope.clone(), budget.window, short.as_secs()));
            }
            // A rolling window gives back what it takes.
            let soon = |lasts: Option<Duration>| lasts.filter(|lasts| *lasts < SOON);
            if let (Some(short), Some(long), true) = (
                soon(short),
                soon(long),
                left > 0 && !matches!(budget.window, Window::Rolling(_)),
            ) {
                let message = message(&scope, account, limit, short.max(long));
                found.said.push((agent.cloned(), message));
            }
        }
        self.samples.retain(|key, _| seen.contains(key));
        Some(found)
    }

    /// How long what is left lasts, at the rates of both windows; none where nothing is spent, or too little is known.
    fn lasts(
        &mut self,
        key: Key,
        settled: u64,
        left: u64,
        now: Instant,
    ) -> (Option<Duration>, Option<Duration>) {
        if self.samples.len() >= ACCOUNTS && !self.samples.contains_key(&key) {
            return (None, None);
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
        (over(SHORT), over(LONG))
    }
}

fn message(scope: &Scope, account: &AccountView, limit: Amount, lasts: Duration) -> String {
    format!(
        "{} {:?} exhausts its {limit} budget for this {} in about {} minutes ({} is used)",
        scope.kind.label(),
        scope.name,
        account.window.label(),
        lasts.as_secs().div_ceil(60),
        account.settled
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::ScopeKind;
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
            let watched = agents.iter().map(|agent| Watched {
                agent: Some(agent),
                scope: account(0).scope,
                budget: &agent.budgets[0],
                limit: agent.budgets[0].limit,
            });
            let found = rates.look(watched, &[account(*settled)], now).unwrap();
            said.extend(found.said.into_iter().map(|(_, message)| (minute, message)));
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

    #[test]
    fn a_budget_that_is_being_spent_has_a_time_and_one_that_is_not_has_none() {
        let agent = agent("providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 10.0 }]");
        let (mut rates, start) = (BurnRates::default(), Instant::now());
        let mut at = |minute: u32, cents: u64| {
            let watched = std::iter::once(Watched {
                agent: Some(&agent),
                scope: account(0).scope,
                budget: &agent.budgets[0],
                limit: agent.budgets[0].limit,
            });
            let looked = rates.look(watched, &[account(cents)], start + MINUTE * minute);
            let found = looked.unwrap().exhausts;
            found.first().map(|(_, _, seconds)| *seconds)
        };
        for minute in 0..5 {
            assert_eq!(at(minute, u64::from(minute) * 10), None, "too little is known");
        }
        // Ten cents a minute: 950 cents last 95 minutes.
        assert_eq!(at(5, 50), Some(95 * 60));
        // Nothing for five minutes.
        assert_eq!((6..12).map(|minute| at(minute, 50)).last(), Some(None));
    }
}
