//! A typed reader over the spanned TOML tree.
//!
//! In: one table of the file. Out: its values by type, each with its place. On failure: the problem is noted and the
//! reader goes on, so that one run of `guard-agent check` names every mistake in the file.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Pattern;
use super::problem::{Places, Problem, Severity, nearest, one_of};
use super::schema::{self, Status};
use super::slips;

/// Collects what is wrong with one file.
pub(super) struct Reader<'a> {
    file: &'a str,
    places: Places<'a>,
    problems: RefCell<Vec<Problem>>,
    /// The file has syntax errors: parts of it may be missing from the tree or elsewhere in it, so nothing is called
    /// missing, and unknown only what looks like a slip.
    pub(super) broken: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, file: &'a str) -> Self {
        Self {
            file,
            places: Places::new(text),
            problems: RefCell::default(),
            broken: false,
        }
    }

    pub(super) fn error(&self, at: &Range<usize>, message: impl Into<String>, fix: impl Into<String>) {
        self.note(Severity::Error, at, message.into(), fix.into());
    }

    pub(super) fn warning(&self, at: &Range<usize>, message: impl Into<String>, fix: impl Into<String>) {
        self.note(Severity::Warning, at, message.into(), fix.into());
    }

    fn note(&self, severity: Severity, at: &Range<usize>, message: String, fix: String) {
        let (line, column) = self.places.of(at);
        self.problems.borrow_mut().push(Problem {
            severity,
            file: self.file.to_owned(),
            line,
            column,
            message,
            fix,
        });
    }

    /// What was noted, in the order of the file. A line that is not TOML has one problem: what was made of the rest
    /// of it would only mislead.
    pub(super) fn into_problems(self, syntax: &[Range<usize>]) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        let mut seen: Vec<usize> = Vec::new();
        let broken: Vec<usize> = syntax.iter().map(|at| self.places.of(at).0).collect();
        // Syntax errors were noted first, so the first problem of such a line is the one to keep.
        problems.retain(|problem| {
            let repeated = broken.contains(&problem.line) && seen.contains(&problem.line);
            seen.push(problem.line);
            !repeated
        });
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    /// Compiles a glob, or notes why not. `path_like` keeps `*` within one level.
    ///
    /// Only `*` and `?` are wildcards: classes and alternatives would make a list in a security file less obvious.
    /// A backslash is itself, because systemd escapes unit names with it.
    pub(super) fn glob(&self, text: &Spanned<&str>, path_like: bool) -> Option<GlobMatcher> {
        let written = *text.get_ref();
        let fix = "use plain text with * and ? as wildcards, one pattern per name";
        if written.is_empty() || written.contains(['[', ']', '{', '}']) {
            self.error(&text.span(), format!("bad pattern {written:?}"), fix);
            return None;
        }
        let built = GlobBuilder::new(written)
            .literal_separator(path_like)
            .backslash_escape(false)
            .build();
        match built {
            Ok(glob) => Some(glob.compile_matcher()),
            Err(why) => {
                self.error(
                    &text.span(),
                    format!("bad pattern {written:?}: {}", why.kind()),
                    fix,
                );
                None
            }
        }
    }

    /// Compiles a list of name patterns.
    pub(super) fn patterns(&self, list: &[Spanned<&str>]) -> Vec<Pattern> {
        let compiled = list.iter().filter_map(|text| {
            let matcher = self.glob(text, false)?;
            let text = (*text.get_ref()).to_owned();
            Some(Pattern { text, matcher })
        });
        compiled.collect()
    }
}

/// A value that may be written in three ways.
pub(super) enum Loose<'r, 'a> {
    /// A number, which `Section::positive` reads.
    Number,
    /// A table.
    Table(Section<'r, 'a>),
    /// The word `off`.
    Off,
}

/// One table of the file, its keys already checked against the schema.
pub(super) struct Section<'r, 'a> {
    pub(super) reader: &'r Reader<'a>,
    pub(super) span: Range<usize>,
    name: &'static str,
    table: &'r DeTable<'a>,
}

impl<'r, 'a> Section<'r, 'a> {
    /// Opens a table: unknown and unavailable keys are noted here, once, for every section.
    pub(super) fn open(
        reader: &'r Reader<'a>,
        name: &'static str,
        table: &'r DeTable<'a>,
        span: Range<usize>,
    ) -> Self {
        for (key, value) in table {
            match schema::of(name).find(|known| known.name == key.get_ref().as_ref()) {
                None => slips::unknown_key(reader, name, key),
                Some(known) => slips::check_status(reader, known, key, value),
            }
        }
        Self {
            reader,
            span,
            name,
            table,
        }
    }

    /// The value of a key, when it is there and works in this version.
    fn get(&self, key: &str) -> Option<&'r Spanned<DeValue<'a>>> {
        schema::of(self.name).find(|known| known.name == key && known.status == Status::Works)?;
        self.table.get(key)
    }

    fn wrong_type(&self, key: &str, wanted: &str, found: &Spanned<DeValue<'_>>) {
        let kind = found.get_ref().type_str();
        let message = format!("`{key}` must be {wanted}, not {} {kind}", slips::article(kind));
        let form = schema::of(self.name)
            .find(|known| known.name == key)
            .map_or("", |known| known.form);
        let fix = match slips::to_write(self.name, key, wanted, kind) {
            Some(write) => format!("{key}: {form}; {write}"),
            None => format!("{key}: {form}"),
        };
        self.reader.error(&found.span(), message, fix);
    }

    /// Whether the key is written at all, even wrongly.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where a key's value stands; the section itself when it is absent.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        self.table
            .get(key)
            .map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// Notes that a required key is absent.
    pub(super) fn missing(&self, key: &str, fix: impl Into<String>) {
        if !self.reader.broken && !self.has(key) {
            let message = format!("{} needs `{key}`", schema::header(self.name));
            self.reader.error(&self.span, message, fix);
        }
    }

    pub(super) fn string(&self, key: &str) -> Option<Spanned<&'r str>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Spanned::new(value.span(), text)),
            None => {
                self.wrong_type(key, "a string", value);
                None
            }
        }
    }

    pub(super) fn strings(&self, key: &str) -> Option<Vec<Spanned<&'r str>>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, "a list of strings", value);
            return None;
        };
        let items = array.iter().filter_map(|item| match item.get_ref().as_str() {
            Some(text) => Some(Spanned::new(item.span(), text)),
            None => {
                self.wrong_type(key, "a list of strings", item);
                None
            }
        });
        Some(items.collect())
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.string(key)?;
        let found = choices.iter().find(|(word, _)| word == text.get_ref());
        if found.is_none() {
            let words = || choices.iter().map(|(word, _)| *word);
            let fix = nearest(text.get_ref(), words()).map_or_else(
                || format!("write {}", one_of(words())),
                |near| format!("did you mean {near:?}?"),
            );
            let message = format!("`{key}` is {}, not {:?}", one_of(words()), text.get_ref());
            self.reader.error(&text.span(), message, fix);
        }
        found.map(|(_, value)| *value)
    }

    /// A whole number above zero.
    pub(super) fn positive(&self, key: &str) -> Option<u64> {
        let value = self.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, "a whole number", value);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if number > 0 => Some(number),
            Ok(_) | Err(_) => {
                let message = format!("`{key}` must be above 0, not {integer}");
                self.reader.error(
                    &value.span(),
                    message,
                    "write a whole number above 0, or leave the key out",
                );
                None
            }
        }
    }

    /// A decimal number as it is written, never through a binary float.
    pub(super) fn decimal(&self, key: &str) -> Option<Spanned<String>> {
        let value = self.get(key)?;
        let text = match value.get_ref() {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().to_owned(),
            _ => {
                self.wrong_type(key, "a decimal number", value);
                return None;
            }
        };
        Some(Spanned::new(value.span(), text))
    }

    /// An absolute path without `..`.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        absolute(self.reader, key, &self.string(key)?)
    }

    /// A table inside this one.
    pub(super) fn section(&self, key: &str, name: &'static str) -> Option<Section<'r, 'a>> {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section::open(self.reader, name, table, value.span())),
            None => {
                self.wrong_type(key, "a table", value);
                None
            }
        }
    }

    /// A number, a table, or the word `off`.
    pub(super) fn loose(&self, key: &str, name: &'static str) -> Option<Loose<'r, 'a>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Integer(_) => Some(Loose::Number),
            DeValue::Table(table) => Some(Loose::Table(Section::open(
                self.reader,
                name,
                table,
                value.span(),
            ))),
            DeValue::String(word) if word == "off" => Some(Loose::Off),
            _ => {
                self.wrong_type(key, "a number, a table, or \"off\"", value);
                None
            }
        }
    }

    /// An array of tables inside this one.
    pub(super) fn sections(&self, key: &str, name: &'static str) -> Option<Vec<Section<'r, 'a>>> {
        let value = self.get(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, "an array of tables", value);
            return None;
        };
        let tables = array.iter().filter_map(|item| match item.get_ref().as_table() {
            Some(table) => Some(Section::open(self.reader, name, table, item.span())),
            None => {
                self.wrong_type(key, "an array of tables", item);
                None
            }
        });
        Some(tables.collect())
    }
}

/// Checks that a path is absolute and has no `..`.
pub(super) fn absolute(reader: &Reader<'_>, key: &str, text: &Spanned<&str>) -> Option<PathBuf> {
    let path = Path::new(text.get_ref());
    let climbs = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() && !climbs {
        return Some(path.to_owned());
    }
    let message = format!(
        "`{key}` must be an absolute path without `..`, not {:?}",
        text.get_ref()
    );
    let fix = if climbs {
        "write the path without `..`".to_owned()
    } else {
        format!(
            "write it from the root, for example \"/{}\"",
            text.get_ref().trim_start_matches("./")
        )
    };
    reader.error(&text.span(), message, fix);
    None
}
