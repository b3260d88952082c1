//! Accounts of runs that are over.
//!
//! In: the ledger's accounts and the runs that live. Out: the scopes to forget. On failure: there is none; an account
//! that is kept too long only takes memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ledger::{AccountView, Scope, ScopeKind};

/// How long the account of a run is kept after the run has ended: a connection that was opened inside can outlive it in
/// another process's hands, and must not find a fresh budget.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Since when each run is gone.
#[derive(Debug, Default)]
pub(super) struct EndedRuns {
    since: HashMap<Arc<str>, Instant>,
}

impl EndedRuns {
    /// The runs whose accounts are not needed any more.
    pub(super) fn due(
        &mut self,
        accounts: &[AccountView],
        alive: &HashSet<String>,
        now: Instant,
    ) -> Vec<Scope> {
        let gone: Vec<&AccountView> = accounts
            .iter()
            .filter(|account| account.scope.kind == ScopeKind::Run && !alive.contains(&*account.scope.name))
            .collect();
        let names: HashSet<&str> = gone.iter().map(|account| &*account.scope.name).collect();
        self.since.retain(|name, _| names.contains(&**name));
        let mut due = Vec::new();
        for account in gone {
            let since = *self.since.entry(account.scope.name.clone()).or_insert(now);
            let over = now.saturating_duration_since(since) >= KEPT;
            if over && account.reserved.count == 0 && !due.contains(&account.scope) {
                due.push(account.scope.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Window;
    use crate::money::Pico;

    fn account(kind: ScopeKind, name: &str, reserved: u64) -> AccountView {
        AccountView {
            scope: Scope {
                kind,
                name: name.into(),
            },
            window: Window::Run,
            starts: None,
            resets_at: None,
            settled: Pico(5).into(),
            reserved: Pico(reserved).into(),
        }
    }

    #[test]
    fn a_run_is_forgotten_a_day_after_it_ended_and_never_while_it_holds_money() {
        let mut ended = EndedRuns::default();
        let accounts = [
            account(ScopeKind::Run, "over", 0),
            account(ScopeKind::Run, "busy", 7),
            account(ScopeKind::Run, "alive", 0),
            account(ScopeKind::Agent, "coder", 0),
        ];
        let alive = HashSet::from(["alive".to_owned()]);
        let start = Instant::now();
        assert!(ended.due(&accounts, &alive, start).is_empty());
        assert!(ended.due(&accounts, &alive, start + KEPT / 2).is_empty());
        let due = ended.due(&accounts, &alive, start + KEPT);
        assert_eq!(due.iter().map(|scope| &*scope.name).collect::<Vec<_>>(), ["over"]);
        // What was forgotten is counted anew if it ever comes back.
        assert!(ended.due(&accounts[1..], &alive, start + KEPT).is_empty());
        assert!(ended.due(&accounts, &alive, start + KEPT).is_empty());
    }

    #[test]
    fn a_run_that_is_seen_again_is_not_over() {
        let mut ended = EndedRuns::default();
        let accounts = [account(ScopeKind::Run, "one", 0)];
        let start = Instant::now();
        ended.due(&accounts, &HashSet::new(), start);
        ended.due(&accounts, &HashSet::from(["one".to_owned()]), start + KEPT / 2);
        assert!(ended.due(&accounts, &HashSet::new(), start + KEPT).is_empty());
    }
}
