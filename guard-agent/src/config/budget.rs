//! `budget = [{ window = "day", usd = 20.0, soft = 0.8 }, { window = "hour", calls = 200 }]`, in `[defaults]` and in an agent, and `[[budget]]`.

use std::sync::Arc;

use super::problem::nearest;
use super::read::Section;
use super::{Agent, Pattern};
use crate::ledger::{AccountView, Amount, Scope, ScopeKind, Unit, Window};
use crate::llm::provider::Provider;
use crate::money::{PICO_PER_USD, Pico};

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

/// `[[budget]]`: a limit that several agents share.
#[derive(Debug, Clone)]
pub struct SharedBudget {
    /// Whose calls count.
    pub whose: Whose,
    /// Window and limit.
    pub budget: Budget,
}

/// Whose calls a shared budget counts.
#[derive(Debug, Clone)]
pub enum Whose {
    /// Those of every agent of an owner.
    Owner(Arc<str>),
    /// Those with one key, `PROVIDER/KEY`.
    Key(Arc<str>),
    /// Those to the models that a pattern covers.
    Model(Pattern),
    /// All.
    Host,
}

/// What every agent gets when nobody says anything: ten dollars a day, with a warning at eight.
pub(super) fn fallback() -> Vec<Budget> {
    vec![Budget {
        per: Per::Agent,
        window: Window::Day,
        limit: Amount::usd(Pico(10 * PICO_PER_USD)),
        soft_ppm: Some(800_000),
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
                "a second budget in {} for the window {:?}",
                budget.limit.unit.label(),
                budget.window.label()
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
    Some(Budget {
        per,
        window: window?,
        limit: limit?,
        soft_ppm,
    })
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

/// Reads every `[[budget]]`.
pub(super) fn read_shared(
    sections: &[Section<'_, '_>],
    providers: &[Arc<Provider>],
    agents: &[Arc<Agent>],
) -> Vec<SharedBudget> {
    let mut budgets: Vec<SharedBudget> = Vec::new();
    for section in sections {
        let whose = whose(section, providers, agents);
        let (Some(whose), Some(budget)) = (whose, one(section, Per::Agent)) else {
            continue;
        };
        let shared = SharedBudget { whose, budget };
        let report =
            |message: String, fix: &str| section.reader.error(&section.place("window"), message, fix);
        if shared.budget.window == Window::Run {
            report(
                "a shared budget has no runs".to_owned(),
                "write a calendar or rolling window here; budgets of runs stand in [[agent]]",
            );
        } else if budgets
            .iter()
            .any(|other| {
                other.scope() == shared.scope()
                    && other.budget.window == shared.budget.window
                    && other.budget.limit.unit == shared.budget.limit.unit
            })
        {
            let scope = shared.scope();
            let message = format!(
                "a second budget in {} of {} {:?} for this window",
                shared.budget.limit.unit.label(),
                scope.kind.label(),
                scope.name
            );
            report(message, "keep one budget per scope, window and unit");
        } else {
            budgets.push(shared);
        }
    }
    budgets
}

fn whose(section: &Section<'_, '_>, providers: &[Arc<Provider>], agents: &[Arc<Agent>]) -> Option<Whose> {
    let named: Vec<&str> = ["owner", "key", "model", "scope"]
        .into_iter()
        .filter(|key| section.has(key))
        .collect();
    let [one] = named.as_slice() else {
        section.reader.error(
            &section.span,
            "[[budget]] says whose calls count in exactly one key",
            "write owner = \"team\", key = \"openai/prod-1\", model = \"gpt-5*\", or scope = \"host\" for all calls",
        );
        return None;
    };
    match *one {
        "owner" => {
            let owner = section.string("owner")?;
            let known = || agents.iter().map(|agent| &*agent.owner);
            unless_known(section, &owner, known(), "no agent has the owner")?;
            Some(Whose::Owner((*owner.get_ref()).into()))
        }
        "key" => {
            let key = section.string("key")?;
            let known: Vec<String> = providers
                .iter()
                .flat_map(|provider| {
                    provider
                        .keys
                        .iter()
                        .map(|key| format!("{}/{}", provider.name, key.name))
                })
                .collect();
            unless_known(
                section,
                &key,
                known.iter().map(String::as_str),
                "no provider has the key",
            )?;
            Some(Whose::Key((*key.get_ref()).into()))
        }
        "model" => {
            let text = section.string("model")?;
            section.reader.patterns(&[text]).pop().map(Whose::Model)
        }
        _ => section.choice("scope", &[("host", ())]).map(|()| Whose::Host),
    }
}

fn unless_known<'k>(
    section: &Section<'_, '_>,
    text: &toml::Spanned<&str>,
    known: impl Iterator<Item = &'k str> + Clone,
    what: &str,
) -> Option<()> {
    let written = *text.get_ref();
    if known.clone().any(|name| name == written) {
        return Some(());
    }
    let fix = match nearest(written, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "a budget that counts nothing would mislead: write a name that is in use".to_owned(),
    };
    section
        .reader
        .error(&text.span(), format!("{what} {written:?}"), fix);
    None
}

impl SharedBudget {
    /// The account that it limits.
    pub fn scope(&self) -> Scope {
        let (kind, name) = match &self.whose {
            Whose::Owner(owner) => (ScopeKind::Owner, owner.clone()),
            Whose::Key(key) => (ScopeKind::Key, key.clone()),
            Whose::Model(pattern) => (ScopeKind::Model, pattern.text.as_str().into()),
            Whose::Host => (ScopeKind::Host, "host".into()),
        };
        Scope { kind, name }
    }
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
