//! `guard-agent usage`

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use super::OK;
use super::output::print;
use super::words::{clip, dollars, short, thousands, time};
use crate::clock::{Clock as _, SystemClock};
use crate::money::Pico;

mod query;

use query::{By, Row};

/// Who spent what, on what, and how much of it was wasted.
///
/// Read from ledger.db, with the daemon running or not, and without slowing it; the last quarter of a second may be
/// missing.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A call counts from the moment it was admitted; one in flight counts as a call that has cost nothing \
                  yet. By tool, a call counts with each tool that its reply called. WASTED is money for calls that \
                  failed, repeated others, or went on with a loop.\n\n\
                  Exit codes: 0 printed; 1 the ledger cannot be read.\n\n\
                  Examples:\n  guard-agent usage --by model --since 24h\n  \
                  guard-agent usage --by tool --agent coder --json | jq '.[0]'"
)]
pub(super) struct Usage {
    /// What the rows stand for.
    #[arg(long, value_name = "DIMENSION", default_value = "agent")]
    by: By,
    /// How far back: a number and m, h, d or w.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = time)]
    since: SignedDuration,
    /// Only the calls of this agent.
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Print JSON; money is in whole pico-dollars (10^12 make one dollar).
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values with a header line; money in US dollars.
    #[arg(long)]
    csv: bool,
    /// Most rows, the most expensive ones first; the rest is added up in one.
    #[arg(long, value_name = "ROWS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

impl Usage {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let path = super::host(config)?.state_dir.join("ledger.db");
        if !path.exists() {
            bail!(
                "{} is not there: has the daemon been started? Or you may not look into its directory: try with sudo",
                path.display()
            );
        }
        let from = SystemClock
            .now()
            .checked_sub(self.since)
            .context("that is too far back")?;
        let rows = query::rows(&path, self.by, from, self.agent.as_deref())
            .with_context(|| format!("{} cannot be read (try with sudo)", path.display()))?;
        print(&self.shown(rows, from)?)?;
        Ok(OK)
    }

    fn shown(&self, rows: Vec<Row>, from: Timestamp) -> anyhow::Result<String> {
        let rows = fold(rows, self.limit);
        if self.json {
            return Ok(serde_json::to_string_pretty(&rows)?);
        }
        if self.csv {
            return Ok(csv(&rows));
        }
        Ok(table(self.by, &rows, from))
    }
}

/// The first rows, and the rest as one.
fn fold(mut rows: Vec<Row>, most: u32) -> Vec<Row> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if rows.len() > most {
        let rest = rows.split_off(most.saturating_sub(1));
        let mut sum = Row::named(&format!("({} others)", rest.len()));
        rest.iter().for_each(|row| sum.add(row));
        rows.push(sum);
    }
    rows
}

fn table(by: By, rows: &[Row], from: Timestamp) -> String {
    let mut out = format!("Since {from:.0}, by {}:\n", by.label());
    if rows.is_empty() {
        out.push_str("no calls\n");
        return out;
    }
    let line = |out: &mut String, cells: [&str; 7]| {
        let [name, calls, read, cached, written, cost, wasted] = cells;
        // Writing to a String cannot fail.
        let _written = writeln!(
            out,
            "{:<30} {calls:>8} {read:>8} {cached:>8} {written:>8} {cost:>11} {wasted}",
            clip(name, 30)
        );
    };
    line(
        &mut out,
        ["", "CALLS", "INPUT", "CACHED", "OUTPUT", "COST", "WASTED"],
    );
    let mut total = Row::named("total");
    let whole = |row: &Row| {
        let percent = (u128::from(row.wasted().0) * 100)
            .checked_div(u128::from(row.cost_pico_usd.0))
            .unwrap_or(0);
        match row.wasted() {
            Pico::ZERO => "-".to_owned(),
            wasted => format!("{} ({percent}%)", dollars(wasted, 2)),
        }
    };
    for row in rows {
        total.add(row);
    }
    // Calls count in several rows where the rows are tools.
    let last = (by != By::Tool && rows.len() > 1).then_some(&total);
    for row in rows.iter().chain(last) {
        let read = row.input_tokens.saturating_add(row.cache_write_tokens);
        line(
            &mut out,
            [
                &plain(&row.name),
                &thousands(row.calls),
                &short(read),
                &short(row.cache_read_tokens),
                &short(row.output_tokens),
                &dollars(row.cost_pico_usd, 2),
                &whole(row),
            ],
        );
    }
    let unknown = rows
        .iter()
        .fold(0, |sum: u64, row| sum.saturating_add(row.unknown));
    if unknown > 0 && by != By::Tool {
        let _written = writeln!(
            out,
            "{} call(s) reported no tokens: they cost their reservation.",
            thousands(unknown)
        );
    }
    out
}

fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "name,calls,failed_calls,unknown_usage_calls,input_tokens,cache_read_tokens,cache_write_tokens,output_tokens,\
         reasoning_tokens,cost_usd,retried_usd,failed_usd,looping_usd\n",
    );
    let usd = |amount: Pico| amount.to_string().trim_start_matches('$').to_owned();
    for row in rows {
        let numbers = [
            row.calls,
            row.failed,
            row.unknown,
            row.input_tokens,
            row.cache_read_tokens,
            row.cache_write_tokens,
            row.output_tokens,
            row.reasoning_tokens,
        ]
        .map(|number| number.to_string());
        let money = [
            row.cost_pico_usd,
            row.retried_pico_usd,
            row.failed_pico_usd,
            row.looping_pico_usd,
        ]
        .map(usd);
        let _written = writeln!(
            out,
            "{},{},{}",
            field(&row.name),
            numbers.join(","),
            money.join(",")
        );
    }
    out
}

/// A text field as RFC 4180 has it; a spreadsheet must not take a client's label for a formula.
fn field(text: &str) -> String {
    let text = plain(text);
    let guarded = match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text,
    };
    format!("\"{}\"", guarded.replace('"', "\"\""))
}

/// A text that others wrote, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
