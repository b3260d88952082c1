//! `tools = { allow = ["Read"], deny = […], in_reply = "replace", arguments = [{ … }] }` of an agent.

use regex::{Regex, RegexBuilder};
use toml::Spanned;

use super::read::Section;
use super::{OnViolation, Pattern};
use crate::llm::InReply;

/// Memory that one compiled expression may take.
const REGEX_BYTES: usize = 1 << 20;

/// Tool rules.
#[derive(Debug, Clone)]
pub struct ToolRules {
    /// Allowed names.
    pub allow: Vec<Pattern>,
    /// Names that are not allowed, whatever `allow` says.
    pub deny: Vec<Pattern>,
    /// What happens to a declaration that is not allowed.
    pub on_violation: OnViolation,
    /// What happens to a call that is not allowed, in a reply.
    pub in_reply: InReply,
    /// What the arguments of calls may be.
    pub arguments: Vec<ArgumentRule>,
}

/// A rule on the arguments of calls.
#[derive(Debug, Clone)]
pub struct ArgumentRule {
    /// Tools that it is about.
    pub tool: Pattern,
    /// JSON pointer (RFC 6901) to the value; empty for all of the arguments.
    pub at: String,
    /// If not empty, every text there has to match one of these.
    pub allow: Vec<Matcher>,
    /// No text there may match one of these.
    pub deny: Vec<Matcher>,
}

/// A pattern or a regular expression, kept with its text for messages.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// Covers the whole text.
    Pattern(Pattern),
    /// Is found anywhere in it.
    Regex(Regex),
}

impl Matcher {
    /// Whether it matches this text.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.covers(text),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// As written.
    pub fn text(&self) -> &str {
        match self {
            Self::Pattern(pattern) => &pattern.text,
            Self::Regex(regex) => regex.as_str(),
        }
    }
}

impl ToolRules {
    /// Whether a tool of this name may be declared and called.
    pub fn allows(&self, name: &str) -> bool {
        self.allow.iter().any(|pattern| pattern.covers(name))
            && !self.deny.iter().any(|pattern| pattern.covers(name))
    }
}

/// Reads the tool rules of an agent.
pub(super) fn read(section: &Section<'_, '_>) -> ToolRules {
    let only_denies = section.has("deny") || section.has("arguments");
    if !only_denies {
        section.missing(
            "allow",
            "add allow = [\"Read\", \"Edit\"], or remove `tools` to allow every tool",
        );
    }
    let everything = Spanned::new(section.span.clone(), "*");
    let allow = section.strings("allow");
    let usual = if only_denies { vec![everything] } else { Vec::new() };
    let violations = [("strip", OnViolation::Strip), ("refuse", OnViolation::Refuse)];
    let replies = [
        ("replace", InReply::Replace),
        ("strip", InReply::Strip),
        ("refuse", InReply::Refuse),
    ];
    ToolRules {
        allow: section.reader.patterns(&allow.unwrap_or(usual)),
        deny: patterns(section, "deny"),
        on_violation: section
            .choice("on_violation", &violations)
            .unwrap_or(OnViolation::Strip),
        in_reply: section.choice("in_reply", &replies).unwrap_or(InReply::Replace),
        arguments: section
            .sections("arguments", "agent.tools.arguments")
            .unwrap_or_default()
            .iter()
            .filter_map(rule)
            .collect(),
    }
}

fn patterns(section: &Section<'_, '_>, key: &str) -> Vec<Pattern> {
    section.reader.patterns(&section.strings(key).unwrap_or_default())
}

fn rule(section: &Section<'_, '_>) -> Option<ArgumentRule> {
    section.missing("tool", "add tool = \"Bash\": the tools that the rule is about");
    let tool = section.string("tool")?;
    let at = section.string("at");
    if let Some(at) = &at
        && !is_pointer(at.get_ref())
    {
        section.reader.error(
            &at.span(),
            format!("{:?} is not a JSON pointer", at.get_ref()),
            "write for example at = \"/command\", or leave `at` out for all of the arguments",
        );
    }
    let rule = ArgumentRule {
        tool: section.reader.patterns(&[tool]).pop()?,
        at: at.map(|at| (*at.get_ref()).to_owned()).unwrap_or_default(),
        allow: matchers(section, "allow", "allow_regex"),
        deny: matchers(section, "deny", "deny_regex"),
    };
    let written = ["allow", "allow_regex", "deny", "deny_regex"];
    if !written.iter().any(|key| section.has(key)) {
        section.reader.error(
            &section.span,
            "this rule says nothing about the arguments",
            "add deny = [\"*rm -rf *\"], or allow = […], or one of them with _regex",
        );
    }
    Some(rule)
}

/// RFC 6901: empty, or `/` and parts in which `~` stands only as `~0` or `~1`.
fn is_pointer(text: &str) -> bool {
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escaped
}

fn matchers(section: &Section<'_, '_>, patterns_key: &str, regex_key: &str) -> Vec<Matcher> {
    let written = section.strings(regex_key).unwrap_or_default();
    let expressions = written.iter().filter_map(|text| {
        let built = RegexBuilder::new(text.get_ref()).size_limit(REGEX_BYTES).build();
        built
            .map_err(|why| {
                let fix = "the syntax is that of https://docs.rs/regex, in which nothing takes more than linear time";
                let why = why.to_string();
                let last = why.lines().last().unwrap_or_default();
                let last = last.strip_prefix("error: ").unwrap_or(last);
                section.reader.error(&text.span(), format!("bad expression: {last}"), fix);
            })
            .ok()
    });
    patterns(section, patterns_key)
        .into_iter()
        .map(Matcher::Pattern)
        .chain(expressions.map(Matcher::Regex))
        .collect()
}
