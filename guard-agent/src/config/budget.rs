//! `budget = [{ window = "day", usd = 20.0, soft = 0.8 }, { window = "hour", calls = 200 }]`, in `[defaults]` and in an agent, and `[[budget]]`.

use std::sync::Arc;

use super::problem::nearest;
use super::read::Section;
use super::{Agent, Pattern};
use crate::ledger::{AccountView, Amount, Scope, Unit, Window};
use crate::money::{PICO_PER_USD, Pico};

mod shared;

pub(super) use shared::read_shared;
pub use shared::{SharedBudget, Whose};

/// Longest note for a model, in characters.
const NOTE: usize = 1000;

/// One limit on money, tokens or calls.
#[derive(Debug, Clone)]
pub struct Budget {
    /// What of an agent it is for; of no account in a shared budget.
    pub per: Per,
    /// Its window.
    pub window: Window,
    /// Hard limit, in its unit.
    pub limit: Amount,
    /// Soft limit in parts per million of the hard one.
    pub soft_ppm: Option<u32>,
    /// What happens at the soft limit beside the warning.
    pub on_soft: OnSoft,
}

/// What happens to calls at a soft limit.
#[derive(Debug, Clone, Default)]
pub struct OnSoft {
    /// They go to this model, where it is cheaper.
    pub model: Option<Arc<str>>,
    /// This is said to the model.
    pub steer: Option<Arc<str>>,
}

impl OnSoft {
    /// Whether anything happens.
    pub fn asks(&self) -> bool {
        self.model.is_some() || self.steer.is_some()
    }
}

impl Budget {
    /// The account of this scope that it limits, among those that there are.
    pub fn account<'a>(&self, scope: &Scope, accounts: &'a [AccountView]) -> Option<&'a AccountView> {
        accounts.iter().find(|account| {
            account.scope == *scope
                && account.window == self.window
                && account.settled.unit == self.limit.unit
        })
    }
}

/// What of an agent a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// The agent; for the window `run`, each of its runs.
    Agent,
    /// Each session of its runs.
    Session,
}

/// What every agent gets when nobody says anything: ten dollars a day, with a warning at eight.
pub(super) fn fallback() -> Vec<Budget> {
    vec![Budget {
        per: Per::Agent,
        window: Window::Day,
        limit: Amount::usd(Pico(10 * PICO_PER_USD)),
        soft_ppm: Some(800_000),
        on_soft: OnSoft::default(),
    }]
}

/// Reads the `budget` list of a section; `None` when the key is absent.
pub(super) fn read(holder: &Section<'_, '_>) -> Option<Vec<Budget>> {
    let sections = holder.sections("budget", "budget")?;
    if sections.is_empty() {
        holder.reader.error(
            &holder.place("budget"),
            "an empty `budget` would mean spending without a limit",
            "write at least one budget, or leave the key out for the default of $10 a day",
        );
    }
    let mut budgets: Vec<Budget> = Vec::new();
    for section in &sections {
        let per = section.choice("scope", &[("agent", Per::Agent), ("session", Per::Session)]);
        let Some(budget) = one(section, per.unwrap_or(Per::Agent)) else {
            continue;
        };
        if budgets.iter().any(|other| {
            other.window == budget.window && other.per == budget.per && other.limit.unit == budget.limit.unit
        }) {
            let message = format!(
                "a second budget for the window {:?} in {}",
                budget.window.label(),
                budget.limit.unit.label()
            );
            section.reader.error(
                &section.place("window"),
                message,
                "keep one budget per window, scope and unit",
            );
            continue;
        }
        budgets.push(budget);
    }
    if !budgets.is_empty() && budgets.iter().all(|budget| budget.limit.unit != Unit::Usd) {
        holder.reader.warning(
            &holder.place("budget"),
            "no limit in dollars: how much may be spent follows from tokens or calls alone",
            "add for example { window = \"day\", usd = 10.0 }",
        );
    }
    Some(budgets)
}

fn one(section: &Section<'_, '_>, per: Per) -> Option<Budget> {
    section.missing(
        "window",
        "add window = \"day\" (or run, hour, week, month, rolling:5h)",
    );
    let window = window(section);
    let limit = limit(section);
    let soft_ppm = soft(section);
    let on_soft = on_soft(section);
    if on_soft.asks() && !section.has("soft") {
        section.reader.error(
            &section.place("on_soft"),
            "`on_soft` without `soft`: it would never happen",
            "add for example soft = 0.8",
        );
    }
    Some(Budget {
        per,
        window: window?,
        limit: limit?,
        soft_ppm,
        on_soft,
    })
}

fn on_soft(section: &Section<'_, '_>) -> OnSoft {
    let Some(table) = section.section("on_soft", "budget.on_soft") else {
        return OnSoft::default();
    };
    let text = |key: &str| {
        let text = table.string(key)?;
        let written = text.get_ref().trim();
        if written.is_empty() || written.chars().count() > NOTE || written.chars().any(char::is_control) {
            table.reader.error(
                &text.span(),
                format!("`{key}` must be 1 to {NOTE} printable characters"),
                "write it in one or two sentences",
            );
            return None;
        }
        Some(Arc::from(written))
    };
    let (model, steer) = (text("model"), text("steer"));
    if !table.has("model") && !table.has("steer") {
        table.reader.error(
            &table.span,
            "an empty `on_soft`",
            "write { model = \"claude-haiku-4-5\" }, { steer = \"Finish what you are at, and stop.\" }, or both",
        );
    }
    OnSoft { model, steer }
}

fn window(section: &Section<'_, '_>) -> Option<Window> {
    let text = section.string("window")?;
    let written = *text.get_ref();
    let window = Window::parse(written);
    if window.is_none() {
        let words = ["run", "hour", "day", "week", "month"];
        let fix = match nearest(written, words) {
            Some(near) => format!("did you mean {near:?}?"),
            None => {
                "a rolling window is written \"rolling:5h\": a whole number of m, h or d, at most 90 days"
                    .to_owned()
            }
        };
        let message = format!("`window` is run, hour, day, week, month or rolling:LENGTH, not {written:?}");
        section.reader.error(&text.span(), message, fix);
    }
    window
}

/// The limit, in exactly one unit.
fn limit(section: &Section<'_, '_>) -> Option<Amount> {
    let named: Vec<Unit> = Unit::ALL
        .into_iter()
        .filter(|unit| section.has(unit.label()))
        .collect();
    match named.as_slice() {
        [Unit::Usd] => dollars(section).map(Amount::usd),
        [unit] => {
            let count = section.positive(unit.label())?;
            Some(Amount { unit: *unit, count })
        }
        [] => {
            section.missing("usd", "add usd = 10.0, tokens = 2000000 or calls = 200");
            None
        }
        [..] => {
            section.reader.error(
                &section.span,
                "one budget with several limits",
                "write a budget of its own for each of usd, tokens and calls",
            );
            None
        }
    }
}

fn dollars(section: &Section<'_, '_>) -> Option<Pico> {
    let text = section.decimal("usd")?;
    let written = text.get_ref();
    let (message, fix) = match Pico::from_usd_text(written) {
        Some(Pico::ZERO) => (
            "a budget of $0 refuses every call".to_owned(),
            "write an amount above 0",
        ),
        Some(amount) => return Some(amount),
        None if written.starts_with('-') => (
            format!("a budget cannot be negative ({written})"),
            "write an amount above 0",
        ),
        None => (
            format!("{written} is not an amount of dollars that Guard can hold exactly"),
            "write plain digits with at most twelve decimals, below 18 million, for example 20.0",
        ),
    };
    section.reader.error(&text.span(), message, fix);
    None
}

fn soft(section: &Section<'_, '_>) -> Option<u32> {
    let text = section.decimal("soft")?;
    // The same exact decimal reader as for dollars, scaled from pico to parts per million.
    let ppm = Pico::from_usd_text(text.get_ref())
        .filter(|fraction| fraction.0 > 0 && fraction.0 <= PICO_PER_USD && fraction.0 % 1_000_000 == 0)
        .and_then(|fraction| u32::try_from(fraction.0 / 1_000_000).ok());
    if ppm.is_none() {
        let message = format!(
            "`soft` is a fraction above 0 and at most 1, with at most six decimals, not {}",
            text.get_ref()
        );
        section
            .reader
            .error(&text.span(), message, "write for example soft = 0.8");
    }
    ppm
}
