//! What is wrong with a configuration file, where, and how to put it right.

use std::fmt;
use std::ops::Range;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted; somebody should look.
    Warning,
}

/// One thing that is wrong, in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// File, as it was named to the loader.
    pub file: String,
    /// Line, from 1; 0 when the problem is the file itself.
    pub line: usize,
    /// Column in characters, from 1; 0 when the problem is the file itself.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

/// `guard.toml:12:5: error: …`, and the fix on a line of its own.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {level}: {}", self.message)?;
        if !self.fix.is_empty() {
            write!(f, "\n    fix: {}", self.fix)?;
        }
        Ok(())
    }
}

/// Turns byte offsets into lines and columns.
pub(super) struct Places<'a> {
    text: &'a str,
    /// Offset at which each line begins.
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let after_newline = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at + 1);
        Self {
            text,
            lines: std::iter::once(0).chain(after_newline).collect(),
        }
    }

    /// Line and column, both from 1, of the start of a span.
    pub(super) fn of(&self, span: &Range<usize>) -> (usize, usize) {
        let offset = span.start.min(self.text.len());
        let line = self.lines.partition_point(|begin| *begin <= offset);
        let begin = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self
            .text
            .get(begin..offset)
            .map_or(0, |before| before.chars().count());
        (line, column + 1)
    }
}

/// The candidate nearest to what was written, when it is near enough to be what was meant: at most a third of the
/// letters are wrong.
pub(super) fn nearest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let allowed = written.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `"a", "b" or "c"`
pub(super) fn one_of<'c>(choices: impl IntoIterator<Item = &'c str>) -> String {
    let quoted: Vec<String> = choices.into_iter().map(|choice| format!("{choice:?}")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let places = Places::new("a = 1\nü = \"x\"\n");
        assert_eq!(places.of(&(0..1)), (1, 1));
        assert_eq!(places.of(&(11..12)), (2, 5), "the quote after a two-byte letter");
        assert_eq!(places.of(&(900..901)), (3, 1), "beyond the end is the end");
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let names = ["openai", "anthropic", "groq"];
        assert_eq!(nearest("opnai", names), Some("openai"));
        assert_eq!(nearest("antropic", names), Some("anthropic"));
        assert_eq!(nearest("bedrock", names), None);
    }
}
