//! The query behind `usage`. In: `ledger.db`, opened for reading only. Out: rows, the most expensive first. On failure:
//! what SQLite says.
//!
//! A reader of a database in WAL mode blocks no writer, and this one gives up after a while, so the daemon never waits
//! for it.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, params};
use serde::Serialize;

use crate::money::Pico;

/// How long a reader waits for a checkpoint of the writer's.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the rows stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum By {
    /// The agent.
    Agent,
    /// Who pays.
    Owner,
    /// One run of an agent.
    Run,
    /// The client's own label, inside a run.
    Session,
    /// The model, by its name in the price table.
    Model,
    /// The provider.
    Provider,
    /// The provider's key, by name.
    Key,
    /// A tool that the model called.
    Tool,
    /// The whole host.
    Host,
}

impl By {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Owner => "owner",
            Self::Run => "run",
            Self::Session => "session",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Tool => "tool",
            Self::Host => "host",
        }
    }

    /// The name of a row, in SQL.
    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Owner => "owner",
            Self::Run => "run",
            Self::Session => "run || '/' || coalesce(session, '-')",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Tool => "tool",
            Self::Host => "'this host'",
        }
    }
}

/// What calls came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) calls: u64,
    /// Calls that the provider answered with an error.
    #[serde(rename = "failed_calls")]
    pub(super) failed: u64,
    /// Calls whose usage is not known.
    #[serde(rename = "unknown_usage_calls")]
    pub(super) unknown: u64,
    pub(super) input_tokens: u64,
    pub(super) cache_read_tokens: u64,
    pub(super) cache_write_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) reasoning_tokens: u64,
    pub(super) cost_pico_usd: Pico,
    pub(super) retried_pico_usd: Pico,
    pub(super) failed_pico_usd: Pico,
    pub(super) looping_pico_usd: Pico,
}

impl Row {
    /// Nothing yet.
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            calls: 0,
            failed: 0,
            unknown: 0,
            input_tokens: 0,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            output_tokens: 0,
            reasoning_tokens: 0,
            cost_pico_usd: Pico::ZERO,
            retried_pico_usd: Pico::ZERO,
            failed_pico_usd: Pico::ZERO,
            looping_pico_usd: Pico::ZERO,
        }
    }

    /// Money that did nothing.
    pub(super) fn wasted(&self) -> Pico {
        let parts = [self.retried_pico_usd, self.failed_pico_usd, self.looping_pico_usd];
        Pico(parts.iter().fold(0, |sum, part| sum.saturating_add(part.0)))
    }

    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.calls, other.calls),
            (&mut self.failed, other.failed),
            (&mut self.unknown, other.unknown),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.cache_read_tokens, other.cache_read_tokens),
            (&mut self.cache_write_tokens, other.cache_write_tokens),
            (&mut self.output_tokens, other.output_tokens),
            (&mut self.reasoning_tokens, other.reasoning_tokens),
            (&mut self.cost_pico_usd.0, other.cost_pico_usd.0),
            (&mut self.retried_pico_usd.0, other.retried_pico_usd.0),
            (&mut self.failed_pico_usd.0, other.failed_pico_usd.0),
            (&mut self.looping_pico_usd.0, other.looping_pico_usd.0),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }
}

/// Every row since a moment, of one agent or of all.
pub(super) fn rows(
    path: &Path,
    by: By,
    from: Timestamp,
    agent: Option<&str>,
) -> Result<Vec<Row>, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    let tools = match by {
        By::Tool => "JOIN call_tools ON call_tools.call_id = calls.id",
        _ => "",
    };
    // What was released never reached a provider.
    let sql = format!(
        "SELECT coalesce({}, '(not known)') AS name, count(*), sum(status >= 400),
           sum(outcome IN ('abandoned', 'recovered') OR (outcome = 'settled' AND output_tokens IS NULL AND cost_pico_usd > 0)),
           sum(input_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(output_tokens),
           sum(reasoning_tokens), sum(cost_pico_usd),
           sum(cost_pico_usd) FILTER (WHERE cause = 'retried'),
           sum(cost_pico_usd) FILTER (WHERE cause = 'failed'),
           sum(cost_pico_usd) FILTER (WHERE cause = 'looping')
         FROM calls {tools}
         WHERE reserved_at >= ?1 AND (?2 IS NULL OR agent = ?2) AND outcome IS NOT 'released'
         GROUP BY 1 ORDER BY 10 DESC, 2 DESC, 1",
        by.name()
    );
    let mut statement = connection.prepare(&sql)?;
    let number = |row: &rusqlite::Row<'_>, at: usize| -> Result<u64, rusqlite::Error> {
        let sum: Option<i64> = row.get(at)?;
        Ok(u64::try_from(sum.unwrap_or(0)).unwrap_or(0))
    };
    let found = statement.query_map(params![format!("{from:.6}"), agent], |row| {
        Ok(Row {
            name: row.get(0)?,
            calls: number(row, 1)?,
            failed: number(row, 2)?,
            unknown: number(row, 3)?,
            input_tokens: number(row, 4)?,
            cache_read_tokens: number(row, 5)?,
            cache_write_tokens: number(row, 6)?,
            output_tokens: number(row, 7)?,
            reasoning_tokens: number(row, 8)?,
            cost_pico_usd: Pico(number(row, 9)?),
            retried_pico_usd: Pico(number(row, 10)?),
            failed_pico_usd: Pico(number(row, 11)?),
            looping_pico_usd: Pico(number(row, 12)?),
        })
    })?;
    found.collect()
}
