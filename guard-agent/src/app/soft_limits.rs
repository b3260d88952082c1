//! Soft limits: says, once in each window, that a budget is nearly spent. Advice: it changes no verdict.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Agent;
use crate::ledger::{AccountView, ScopeKind, Window};
use crate::money::Pico;

/// Which windows were spoken of already.
#[derive(Debug, Default)]
pub(super) struct SoftLimits {
    said: HashMap<(ScopeKind, Arc<str>, Window), Option<Timestamp>>,
}

impl SoftLimits {
    /// Forgets the windows that have ended and the runs whose accounts are gone.
    pub(super) fn forget_all_but(&mut self, accounts: &[AccountView]) {
        self.said.retain(|(kind, name, window), starts| {
            accounts.iter().any(|account| {
                account.scope.kind == *kind
                    && account.scope.name == *name
                    && account.window == *window
                    && account.starts == *starts
            })
        });
    }

    /// What there is to say now about an agent, whose runs these are.
    pub(super) fn passed(
        &mut self,
        agent: &Agent,
        runs: &[Arc<str>],
        accounts: &[AccountView],
    ) -> Vec<String> {
        let mut said = Vec::new();
        for budget in &agent.budgets {
            let Some(ppm) = budget.soft_ppm else { continue };
            let soft = budget.limit.part(ppm);
            let (kind, names) = match budget.window {
                Window::Run => (ScopeKind::Run, runs),
                Window::Hour | Window::Day | Window::Week | Window::Month => {
                    (ScopeKind::Agent, std::slice::from_ref(&agent.name))
                }
            };
            let over = accounts.iter().filter(|account| {
                account.window == budget.window
                    && account.scope.kind == kind
                    && names.contains(&account.scope.name)
                    && account.settled >= soft
            });
            for account in over {
                let key = (kind, account.scope.name.clone(), account.window);
                if self.said.insert(key, account.starts) != Some(account.starts) {
                    said.push(message(agent, account, soft, budget.limit));
                }
            }
        }
        said
    }
}

fn message(agent: &Agent, account: &AccountView, soft: Pico, limit: Pico) -> String {
    let run = match account.scope.kind {
        ScopeKind::Run => format!(", run {}", account.scope.name),
        ScopeKind::Agent => String::new(),
    };
    format!(
        "agent {:?}{run} has spent {} of its {limit} budget for this {} (soft limit {soft})",
        agent.name,
        account.settled,
        account.window.label()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Scope;
    use crate::policy::tests_support::agent;

    fn account(kind: ScopeKind, name: &str, window: Window, starts: i64, settled: u64) -> AccountView {
        let starts = Timestamp::from_second(starts).ok();
        let scope = Scope {
            kind,
            name: name.into(),
        };
        AccountView {
            scope,
            window,
            starts,
            resets_at: None,
            settled: Pico(settled),
            reserved: Pico::ZERO,
        }
    }

    #[test]
    fn each_window_is_spoken_of_once_and_the_next_one_again() {
        let agent = agent(
            "providers = [\"openai\"]\nbudget = [{ window = \"day\", usd = 1.0, soft = 0.5 }, { window = \"run\", usd = 1.0, soft = 0.5 }]",
        );
        let mut limits = SoftLimits::default();
        let half = 500_000_000_000;
        let day = |starts, settled| [account(ScopeKind::Agent, "coder", Window::Day, starts, settled)];
        assert!(limits.passed(&agent, &[], &day(0, half - 1)).is_empty());
        assert_eq!(limits.passed(&agent, &[], &day(0, half)).len(), 1);
        limits.forget_all_but(&day(0, half));
        assert!(
            limits.passed(&agent, &[], &day(0, half + 1)).is_empty(),
            "said already"
        );
        assert_eq!(
            limits.passed(&agent, &[], &day(86_400, half)).len(),
            1,
            "another day"
        );
        let run = [account(ScopeKind::Run, "r1", Window::Run, 0, half)];
        assert!(
            limits.passed(&agent, &["r2".into()], &run).is_empty(),
            "another agent's run"
        );
        let said = limits.passed(&agent, &["r1".into()], &run);
        assert_eq!(
            said,
            ["agent \"coder\", run r1 has spent $0.50 of its $1.00 budget for this run (soft limit $0.50)"]
        );
        limits.forget_all_but(&[]);
        assert!(limits.said.is_empty(), "nothing is kept of what is over");
    }
}
