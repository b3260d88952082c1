//! What is read at the start: the configuration, and the ledger after a loss of power.

use std::sync::OnceLock;

use super::alike;
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
    // The same behind a line that says nothing.
    if text.starts_with('\u{feff}') {
        return;
    }
    let again = check_text(&format!("# é\n{text}"), "guard.toml", known());
    // They come in the order of their places, and one that has none is at the top.
    let (before, after) = (by_message(&checked.problems), by_message(&again.problems));
    let said = |problems: &[&Problem]| -> Vec<String> {
        let each = problems.iter().map(|problem| problem.message.clone());
        each.collect()
    };
    alike(&said(&before), &said(&after), "behind a comment");
    for (before, after) in before.iter().zip(&after) {
        let top = (before.line, before.column) == (1, 1) && (after.line, after.column) == (1, 1);
        assert!(
            top || (before.line + 1, before.column) == (after.line, after.column),
            "{before} is {after} behind a comment"
        );
    }
}

fn by_message(problems: &[Problem]) -> Vec<&Problem> {
    let mut all: Vec<&Problem> = problems.iter().collect();
    all.sort_by_key(|problem| (&problem.message, problem.line, problem.column));
    all
}

/// A record of the ledger: what is read is what was written, to the byte.
pub(super) fn ledger(input: &[u8]) {
    if let Some(written) = again(input) {
        assert!(written == input, "{input:02x?} is read as {written:02x?}");
    }
}
