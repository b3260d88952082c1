//! `loops = { repeat = 10, growth = { warn = 3000 } }` and `retries = { per_minute = 30, per_body = 12 }` of an agent.

use super::read::{Loose, Section};
use crate::llm::conversation::STEPS;

/// What a multiplier is seen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LoopRule {
    /// The same tool with the same arguments and the same result.
    Repeat,
    /// The same tool with nearly the same arguments and the same result.
    Similar,
    /// The same tool with the same arguments, where results change or the tool waits.
    Poll,
    /// Two to four calls in turn, over and over.
    Alternate,
    /// Replies of the model in a row whose tools all failed.
    Errors,
    /// Tokens of input that each call adds to the one before.
    Growth,
    /// Large calls in a row that read nothing from the prompt cache.
    CacheMisses,
    /// Calls of one run at the same time.
    Parallel,
    /// Calls of one run in a row that a provider failed.
    Failures,
}

impl LoopRule {
    /// Every rule, in the order in which they are judged.
    pub const ALL: [Self; 9] = [
        Self::Repeat,
        Self::Similar,
        Self::Poll,
        Self::Alternate,
        Self::Errors,
        Self::Growth,
        Self::CacheMisses,
        Self::Parallel,
        Self::Failures,
    ];

    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Similar => "similar",
            Self::Poll => "poll",
            Self::Alternate => "alternate",
            Self::Errors => "errors",
            Self::Growth => "growth",
            Self::CacheMisses => "cache_misses",
            Self::Parallel => "parallel",
            Self::Failures => "failures",
        }
    }

    /// The finding that it raises.
    pub fn finding(self) -> &'static str {
        match self {
            Self::Repeat => "loop_repeat",
            Self::Similar => "loop_similar",
            Self::Poll => "loop_poll",
            Self::Alternate => "loop_alternate",
            Self::Errors => "loop_errors",
            Self::Growth => "loop_growth",
            Self::CacheMisses => "loop_cache_misses",
            Self::Parallel => "loop_parallel",
            Self::Failures => "loop_failures",
        }
    }

    /// What an agent gets when nobody says anything.
    fn fallback(self) -> Levels {
        let (warn, trip) = match self {
            Self::Repeat => (5, Some(10)),
            Self::Similar => (10, Some(20)),
            Self::Poll => (60, Some(120)),
            Self::Alternate => (4, Some(8)),
            Self::Errors => (8, Some(16)),
            Self::Growth => (6_000, None),
            Self::CacheMisses => (10, None),
            Self::Parallel => (32, None),
            Self::Failures => (5, Some(20)),
        };
        Levels {
            observe: None,
            warn: Some(warn),
            trip,
        }
    }

    /// The largest level at which it can be reached at all.
    fn most(self) -> u64 {
        match self {
            Self::Repeat | Self::Similar => WINDOW as u64,
            Self::Poll | Self::Errors => STEPS as u64,
            Self::Alternate => STEPS as u64 / 2,
            Self::Growth => 1_000_000,
            Self::CacheMisses | Self::Parallel | Self::Failures => 10_000,
        }
    }
}

/// Tool calls among which repetitions are counted.
pub const WINDOW: usize = 30;

/// From which count on a rule does what; a level that is absent is never reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Noted in the record of the call.
    pub observe: Option<u32>,
    /// A finding and an alert.
    pub warn: Option<u32>,
    /// The call is refused.
    pub trip: Option<u32>,
}

/// The `loops` of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopRules {
    levels: [Levels; LoopRule::ALL.len()],
    /// Calls over which growth is measured.
    pub growth_turns: u32,
    /// A warning is told to the model too.
    pub steer: bool,
    /// A trip freezes the run.
    pub freeze: bool,
}

impl LoopRules {
    /// The levels of a rule.
    pub fn of(&self, rule: LoopRule) -> Levels {
        let place = LoopRule::ALL.iter().position(|known| *known == rule);
        place
            .and_then(|place| self.levels.get(place))
            .copied()
            .unwrap_or_default()
    }
}

impl Default for LoopRules {
    fn default() -> Self {
        Self {
            levels: LoopRule::ALL.map(LoopRule::fallback),
            growth_turns: 20,
            steer: false,
            freeze: false,
        }
    }
}

/// The `retries` of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Client retries in any minute.
    pub per_minute: u32,
    /// Failed attempts at one and the same body, after the first.
    pub per_body: u32,
}

impl Default for Retries {
    /// Above what any one client does by itself: the most patient one measured tries ten times more.
    fn default() -> Self {
        Self {
            per_minute: 30,
            per_body: 12,
        }
    }
}

/// Reads the `loops` of an agent.
pub(super) fn loops(section: &Section<'_, '_>) -> LoopRules {
    let fallback = LoopRules::default();
    LoopRules {
        levels: LoopRule::ALL.map(|rule| levels(section, rule).unwrap_or_else(|| rule.fallback())),
        growth_turns: bounded(section, "growth_turns", 3, 64).unwrap_or(fallback.growth_turns),
        steer: section
            .choice("on_warn", &[("alert", false), ("steer", true)])
            .unwrap_or(fallback.steer),
        freeze: section
            .choice("on_trip", &[("refuse", false), ("freeze", true)])
            .unwrap_or(fallback.freeze),
    }
}

/// Reads the `retries` of an agent.
pub(super) fn retries(section: &Section<'_, '_>) -> Retries {
    let fallback = Retries::default();
    Retries {
        per_minute: bounded(section, "per_minute", 1, 10_000).unwrap_or(fallback.per_minute),
        per_body: bounded(section, "per_body", 1, 10_000).unwrap_or(fallback.per_body),
    }
}

/// `10`: trip at ten and warn at half of it. A table: what it names. `"off"`: nothing.
fn levels(section: &Section<'_, '_>, rule: LoopRule) -> Option<Levels> {
    let most = rule.most();
    match section.loose(rule.key(), "agent.loops.rule")? {
        Loose::Off => Some(Levels::default()),
        Loose::Number => {
            let trip = bounded(section, rule.key(), 2, most)?;
            Some(Levels {
                observe: None,
                warn: Some(trip.div_ceil(2)),
                trip: Some(trip),
            })
        }
        Loose::Table(table) => {
            let level = |key| bounded(&table, key, 2, most);
            let levels = Levels {
                observe: level("observe"),
                warn: level("warn"),
                trip: level("trip"),
            };
            let named = [levels.observe, levels.warn, levels.trip];
            let rising = named.iter().flatten().is_sorted();
            if !rising {
                table.reader.error(
                    &table.span,
                    format!("the levels of `{}` do not rise from observe to warn to trip", rule.key()),
                    "write for example { observe = 3, warn = 5, trip = 10 }; leave out those that you do not want",
                );
            }
            Some(levels)
        }
    }
}

/// A whole number within bounds.
pub(super) fn bounded(section: &Section<'_, '_>, key: &str, least: u64, most: u64) -> Option<u32> {
    let number = section.positive(key)?;
    match u32::try_from(number) {
        Ok(fits) if (least..=most).contains(&number) => Some(fits),
        Ok(_) | Err(_) => {
            section.reader.error(
                &section.place(key),
                format!("`{key}` must be from {least} to {most}, not {number}"),
                format!("write a number from {least} to {most}"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Severity, check_text};
    use crate::llm::DialectKind;
    use crate::llm::provider::{Auth, Provider};
    use crate::policy::tests_support::agent;

    fn levels(observe: Option<u32>, warn: Option<u32>, trip: Option<u32>) -> Levels {
        Levels { observe, warn, trip }
    }

    #[test]
    fn a_rule_is_a_number_a_table_or_off_and_safe_when_nothing_is_said() {
        let rules = |lines: &str| agent(&format!("providers = [\"openai\"]\n{lines}")).loops.clone();
        assert_eq!(rules(""), LoopRules::default());
        let said = rules(
            "loops = { repeat = 7, poll = \"off\", growth = { observe = 100, trip = 3000 }, growth_turns = 5, \
             on_trip = \"freeze\" }",
        );
        assert_eq!(said.of(LoopRule::Repeat), levels(None, Some(4), Some(7)));
        assert_eq!(said.of(LoopRule::Poll), Levels::default());
        assert_eq!(said.of(LoopRule::Growth), levels(Some(100), None, Some(3_000)));
        assert_eq!(said.of(LoopRule::Errors), LoopRule::Errors.fallback());
        assert_eq!((said.growth_turns, said.freeze), (5, true));
        let retries = agent("providers = [\"openai\"]\nretries = { per_body = 3 }").retries;
        assert_eq!((retries.per_minute, retries.per_body), (30, 3));
    }

    #[test]
    fn a_mistake_is_named_with_its_bounds() {
        let provider = Provider::plain(
            "openai",
            &["api.openai.com"],
            DialectKind::OpenaiChat,
            Auth::Bearer,
        );
        for (line, said) in [
            ("loops = { repeat = 31 }", "from 2 to 30, not 31"),
            ("loops = { repeat = 1 }", "from 2 to 30, not 1"),
            ("loops = { repeat = \"never\" }", "a number, a table, or \"off\""),
            ("loops = { repeat = true }", "a number, a table, or \"off\""),
            ("loops = { repeat = { warn = 9, trip = 5 } }", "do not rise"),
            ("loops = { repeat = { tripp = 5 } }", "unknown key `tripp`"),
            ("loops = { loop = 5 }", "unknown key `loop`"),
            ("loops = { growth_turns = 65 }", "from 3 to 64"),
            ("loops = { on_trip = \"kill\" }", "`on_trip` is"),
            ("retries = { per_minute = 0 }", "above 0"),
            ("caps = { run_timeout = \"2 hours\" }", "not a duration"),
            ("caps = { run_timeout = 7200 }", "must be a string"),
        ] {
            let text = format!("[[agent]]\nname = \"a\"\nowner = \"o\"\nproviders = [\"openai\"]\n{line}\n");
            let problems = check_text(&text, "guard.toml", vec![provider.clone()]).problems;
            let errors: Vec<_> = problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .collect();
            assert_eq!(errors.len(), 1, "{line}: {errors:#?}");
            assert!(errors[0].message.contains(said), "{line}: {errors:#?}");
        }
    }
}
