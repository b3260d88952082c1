//! What is read at the start: the configuration, and the ledger after a loss of power.

use std::sync::OnceLock;

use crate::config::{Problem, Severity, check_text};
use crate::ledger::again;
use crate::llm::provider::{Provider, builtin};

/// A configuration: what is wrong with it has a place in it, and one that is refused says why.
pub(super) fn config(input: &[u8]) {
    static BUILTIN: OnceLock<Vec<Provider>> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let known = || BUILTIN.get_or_init(builtin).clone();
    let checked = check_text(text, "guard.toml", known());
    let refused = checked
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    assert_eq!(refused, checked.config.is_none());
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &checked.problems {
        assert!(!problem.message.is_empty() && problem.line > 0 && problem.column > 0);
        let line = lines.get(problem.line - 1).map(|line| line.chars().count());
        assert!(
            line.is_some_and(|length| problem.column <= length + 1),
            "{}:{} is no place",
            problem.line,
            problem.column
        );
    }
    // The same behind a line that says nothing, where the parser did not give up on the way.
    let deep = |problem: &Problem| problem.message.contains("recursion limit");
    if text.starts_with('\u{feff}') || checked.problems.iter().any(deep) {
        return;
    }
    let again = check_text(&format!("# é\n{text}"), "guard.toml", known());
    // What has no place is said of the top, and not at all where the top is no TOML.
    let top = |problem: &Problem| (problem.line, problem.column) == (1, 1);
    for after in again.problems.iter().filter(|after| !top(after)) {
        let lower = |before: &Problem| (before.line + 1, before.column) == (after.line, after.column);
        let found = checked
            .problems
            .iter()
            .any(|before| before.message == after.message && lower(before));
        assert!(found, "{after} only behind a comment");
    }
    for before in &checked.problems {
        let lower = |after: &Problem| (before.line + 1, before.column) == (after.line, after.column);
        let mut behind = again
            .problems
            .iter()
            .filter(|after| after.message == before.message);
        assert!(
            behind.any(|after| lower(after) || (top(before) && top(after))),
            "{before} is elsewhere behind a comment"
        );
    }
}

/// A record of the ledger: what is read is what was written, to the byte.
pub(super) fn ledger(input: &[u8]) {
    if let Some(written) = again(input) {
        assert!(written == input, "{input:02x?} is read as {written:02x?}");
    }
}
