//! Soft limits: says, once in each window, that a budget is nearly spent. Advice: it changes no verdict.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{Agent, Per, SharedBudget};
use crate::ledger::{AccountView, Amount, ScopeKind, Unit, Window};

/// Which windows were spoken of already.
#[derive(Debug, Default)]
pub(super) struct SoftLimits {
    said: HashMap<(ScopeKind, Arc<str>, Window, Unit), Option<Timestamp>>,
}

impl SoftLimits {
    /// Forgets the windows that have ended and the runs whose accounts are gone.
    pub(super) fn forget_all_but(&mut self, accounts: &[AccountView]) {
        self.said.retain(|(kind, name, window, unit), starts| {
            accounts.iter().any(|account| {
                account.scope.kind == *kind
                    && account.scope.name == *name
                    && account.window == *window
                    && account.settled.unit == *unit
                    && (account.starts == *starts || matches!(window, Window::Rolling(_)))
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
            let kind = match (budget.per, budget.window) {
                (Per::Session, _) => ScopeKind::Session,
                (Per::Agent, Window::Run) => ScopeKind::Run,
                (Per::Agent, _) => ScopeKind::Agent,
            };
            let of_agent = |name: &str| match kind {
                ScopeKind::Agent => *name == *agent.name,
                // A session is named RUN/LABEL.
                _ => runs.iter().any(|run| name.split('/').next() == Some(run)),
            };
            for account in over(accounts, kind, budget.window, soft, of_agent) {
                if self.is_new(account) {
                    let part = match kind {
                        ScopeKind::Agent => String::new(),
                        kind => format!(", {} {}", kind.label(), account.scope.name),
                    };
                    let whose = format!("agent {:?}{part}", agent.name);
                    said.push(message(&whose, account, soft, budget.limit));
                }
            }
        }
        said
    }

    /// What there is to say now about a budget that agents share.
    pub(super) fn shared(&mut self, shared: &SharedBudget, accounts: &[AccountView]) -> Option<String> {
        let soft = shared.budget.limit.part(shared.budget.soft_ppm?);
        let scope = shared.scope();
        let name = |name: &str| *name == *scope.name;
        let account = over(accounts, scope.kind, shared.budget.window, soft, name).next()?;
        let whose = format!("{} {:?}", scope.kind.label(), scope.name);
        self.is_new(account)
            .then(|| message(&whose, account, soft, shared.budget.limit))
    }

    /// Whether this window was not spoken of yet. A rolling window has no begin: it is spoken of again when it has been
    /// below its soft limit in between.
    fn is_new(&mut self, account: &AccountView) -> bool {
        let key = (
            account.scope.kind,
            account.scope.name.clone(),
            account.window,
            account.settled.unit,
        );
        let starts = match account.window {
            Window::Rolling(_) => None,
            _ => account.starts,
        };
        self.said.insert(key, starts) != Some(starts)
    }
}

fn over<'a>(
    accounts: &'a [AccountView],
    kind: ScopeKind,
    window: Window,
    soft: Amount,
    name: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = &'a AccountView> {
    accounts.iter().filter(move |account| {
        account.window == window
            && account.scope.kind == kind
            && name(&account.scope.name)
            && account.settled.unit == soft.unit
            && account.settled.count >= soft.count
    })
}

fn message(whose: &str, account: &AccountView, soft: Amount, limit: Amount) -> String {
    format!(
        "{whose} has used {} of its {limit} budget for {} (soft limit {soft})",
        account.settled,
        account.window.per()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Scope;
    use crate::money::Pico;
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
            settled: Pico(settled).into(),
            reserved: Pico::ZERO.into(),
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
            ["agent \"coder\", run r1 has used $0.50 of its $1.00 budget for this run (soft limit $0.50)"]
        );
        limits.forget_all_but(&[]);
        assert!(limits.said.is_empty(), "nothing is kept of what is over");
    }
}
