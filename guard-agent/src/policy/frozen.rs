//! Frozen: may this agent, or this run, call at all?
//!
//! In: the agent and the run. Out: nothing, when neither is frozen. On failure: a refusal with the reason that was given.
//! What is frozen is kept in a file, so that a restart thaws nothing; one that cannot be read keeps the daemon from
//! starting, because it may hold what somebody wanted stopped.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kept::{read, replace};
use crate::refusal::{Reason, Refusal};

/// Name of the file in `state_dir`.
const FILE: &str = "frozen.json";
/// Runs that can be frozen at once, of all agents; whoever wants more freezes the agent.
const RUNS: usize = 4096;

/// Why something is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// The reason that was given.
    pub why: String,
    /// Since when.
    pub at: Timestamp,
    /// By whom; none for a rule.
    pub by_uid: Option<u32>,
}

/// What is frozen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrozenList {
    /// Agents, by name.
    pub agents: BTreeMap<String, Freeze>,
    /// Runs, by agent and id.
    pub runs: BTreeMap<String, BTreeMap<String, Freeze>>,
}

/// What is frozen, and where it is kept.
#[derive(Debug, Default)]
pub struct Frozen {
    /// None in tests of other stages: then it is kept in memory only.
    file: Option<PathBuf>,
    state: Mutex<State>,
    /// Held while the file is written; calls never wait for it.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    list: FrozenList,
    unwritten: bool,
}

impl Frozen {
    /// What was frozen when the daemon stopped.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join(FILE);
        let advice = "it says which agents are frozen: repair it, or remove it to thaw all";
        let list = read(&file, advice)?;
        Ok(Self {
            file: Some(file),
            state: Mutex::new(State {
                list,
                unwritten: false,
            }),
            writing: Mutex::default(),
        })
    }

    /// Refuses a frozen agent or run.
    ///
    /// # Errors
    /// `Frozen`, final.
    pub fn check(&self, agent: &str, run: &str) -> Result<(), Refusal> {
        let state = self.lock();
        let list = &state.list;
        let whole = list.agents.get(agent).map(|freeze| (freeze, None));
        let part = list.runs.get(agent).and_then(|runs| runs.get(run));
        match whole.or(part.map(|freeze| (freeze, Some(run)))) {
            None => Ok(()),
            Some((freeze, run)) => Err(refusal(agent, run, freeze)),
        }
    }

    /// What is frozen.
    pub fn list(&self) -> FrozenList {
        self.lock().list.clone()
    }

    /// Freezes an agent or one of its runs from this moment on, and keeps it so over restarts.
    ///
    /// # Errors
    /// It holds, and cannot be written to disk; or too many runs are frozen.
    pub fn freeze(&self, agent: &str, run: Option<&str>, freeze: Freeze) -> io::Result<()> {
        self.remember(agent, run, freeze)?;
        self.write()
    }

    /// Freezes without waiting for the disk: for a rule on the path of a call. `write` follows within seconds.
    pub(crate) fn freeze_soon(&self, agent: &str, run: &str, freeze: Freeze) {
        if let Err(why) = self.remember(agent, Some(run), freeze) {
            tracing::error!(%why, agent, run, "a run was not frozen");
        }
    }

    fn remember(&self, agent: &str, run: Option<&str>, freeze: Freeze) -> io::Result<()> {
        let mut state = self.lock();
        match run {
            None => drop(state.list.agents.insert(agent.to_owned(), freeze)),
            Some(run) => {
                let count: usize = state.list.runs.values().map(BTreeMap::len).sum();
                if count >= RUNS {
                    return Err(io::Error::other(format!(
                        "{RUNS} runs are frozen already: thaw some, or freeze the agent"
                    )));
                }
                let runs = state.list.runs.entry(agent.to_owned()).or_default();
                runs.entry(run.to_owned()).or_insert(freeze);
            }
        }
        state.unwritten = true;
        Ok(())
    }

    /// Thaws an agent with all its runs, or one run. Gives whether anything was frozen.
    ///
    /// # Errors
    /// It cannot be written to disk; then it stays frozen.
    pub fn unfreeze(&self, agent: &str, run: Option<&str>) -> io::Result<bool> {
        let before = {
            let mut state = self.lock();
            let before = state.list.clone();
            match run {
                None => {
                    state.list.agents.remove(agent);
                    state.list.runs.remove(agent);
                }
                Some(run) => {
                    if let Some(runs) = state.list.runs.get_mut(agent) {
                        runs.remove(run);
                        if runs.is_empty() {
                            state.list.runs.remove(agent);
                        }
                    }
                }
            }
            state.unwritten = true;
            before
        };
        let changed = before != self.lock().list;
        self.write().inspect_err(|_failed| self.lock().list = before)?;
        Ok(changed)
    }

    /// Writes what is not on disk yet: whole, synced, and in one step.
    ///
    /// # Errors
    /// What the file system says; it is tried again at the next call.
    pub fn write(&self) -> io::Result<()> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let list = {
            let mut state = self.lock();
            let due = std::mem::take(&mut state.unwritten);
            due.then(|| state.list.clone())
        };
        let (Some(file), Some(list)) = (&self.file, list) else {
            return Ok(());
        };
        let written = serde_json::to_vec_pretty(&list)
            .map_err(io::Error::from)
            .and_then(|text| replace(file, &text));
        written.inspect_err(|_failed| self.lock().unwritten = true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(agent: &str, run: Option<&str>, freeze: &Freeze) -> Refusal {
    let (what, command) = match run {
        None => (
            format!("Agent {agent:?} is frozen"),
            format!("guard-agent unfreeze {agent}"),
        ),
        Some(run) => (
            format!("Run {run} of agent {agent:?} is frozen"),
            format!("guard-agent unfreeze {agent} --run {run}"),
        ),
    };
    Refusal::new(
        Reason::Frozen,
        format!(
            "{what} since {:.0}: {}. Do not try again; tell the user. The operator lets it go on with `{command}`.",
            freeze.at, freeze.why
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn because(why: &str) -> Freeze {
        Freeze {
            why: why.to_owned(),
            at: Timestamp::from_second(1_795_000_000).unwrap(),
            by_uid: Some(0),
        }
    }

    #[test]
    fn a_freeze_holds_over_restarts_until_it_is_lifted() {
        let dir = tempfile::tempdir().unwrap();
        let frozen = Frozen::open(dir.path()).unwrap();
        frozen
            .freeze("coder", Some("run-1"), because("spends too much"))
            .unwrap();
        drop(frozen);
        let frozen = Frozen::open(dir.path()).unwrap();
        let no = frozen.check("coder", "run-1").unwrap_err();
        assert_eq!(no.reason, Reason::Frozen);
        assert!(no.message.contains("spends too much"), "{}", no.message);
        assert!(frozen.check("coder", "run-2").is_ok() && frozen.check("other", "run-1").is_ok());
        frozen.freeze("coder", None, because("all")).unwrap();
        assert!(frozen.check("coder", "run-2").is_err());
        assert!(frozen.unfreeze("coder", None).unwrap());
        assert!(
            !frozen.unfreeze("coder", None).unwrap(),
            "nothing is left to thaw"
        );
        assert!(Frozen::open(dir.path()).unwrap().check("coder", "run-1").is_ok());
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let said = Frozen::open(dir.path()).unwrap_err().to_string();
        assert!(said.contains(FILE) && said.contains("repair it"), "{said}");
    }

    #[test]
    fn a_rule_freezes_at_once_and_the_disk_follows() {
        let dir = tempfile::tempdir().unwrap();
        let frozen = Frozen::open(dir.path()).unwrap();
        frozen.freeze_soon("coder", "run-1", because("a loop"));
        assert!(frozen.check("coder", "run-1").is_err());
        assert!(Frozen::open(dir.path()).unwrap().check("coder", "run-1").is_ok());
        frozen.write().unwrap();
        assert!(Frozen::open(dir.path()).unwrap().check("coder", "run-1").is_err());
    }

    #[test]
    fn a_thaw_that_cannot_be_written_does_not_happen() {
        let dir = tempfile::tempdir().unwrap();
        let frozen = Frozen::open(dir.path()).unwrap();
        frozen.freeze("coder", None, because("x")).unwrap();
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(frozen.unfreeze("coder", None).is_err());
        assert!(frozen.check("coder", "run-1").is_err());
    }
}
