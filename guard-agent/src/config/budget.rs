//! `budget = [{ window = "day", usd = 20.0, soft = 0.8 }]`, in `[defaults]` and in an agent.

use super::Budget;
use super::read::Section;
use crate::ledger::Window;
use crate::money::{PICO_PER_USD, Pico};

const WINDOWS: &[(&str, Window)] = &[
    ("run", Window::Run),
    ("hour", Window::Hour),
    ("day", Window::Day),
    ("week", Window::Week),
    ("month", Window::Month),
];

/// What every agent gets when nobody says anything: ten dollars a day, with a warning at eight.
pub(super) fn fallback() -> Vec<Budget> {
    vec![Budget {
        window: Window::Day,
        limit: Pico(10 * PICO_PER_USD),
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
        let Some(budget) = one(section) else { continue };
        if budgets.iter().any(|other| other.window == budget.window) {
            let message = format!("a second budget for the window {:?}", budget.window.label());
            section
                .reader
                .error(&section.place("window"), message, "keep one budget per window");
            continue;
        }
        budgets.push(budget);
    }
    Some(budgets)
}

fn one(section: &Section<'_, '_>) -> Option<Budget> {
    section.missing("window", "add window = \"day\" (or run, hour, week, month)");
    section.missing("usd", "add usd = 10.0");
    let window = section.choice("window", WINDOWS);
    let limit = limit(section);
    let soft_ppm = soft(section);
    Some(Budget {
        window: window?,
        limit: limit?,
        soft_ppm,
    })
}

fn limit(section: &Section<'_, '_>) -> Option<Pico> {
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
