//! `guard-agent audit`

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::output::{complain, print};
use super::{FAILED, OK};
use crate::audit::tail::{Follow, find, last};
use crate::audit::{VerifyReport, verify};

mod line;
#[cfg(test)]
mod tests;

/// Directory of the records in `state_dir`.
const DIRECTORY: &str = "audit";
/// Time between two looks of `--follow`: new records are on disk within a second anyway.
const PAUSE: Duration = Duration::from_millis(250);

/// Reads the audit log: one record per decision, in a chain of hashes.
///
/// It reads the files itself, so it needs read access to them and no daemon.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Shows the last records, one line each.
    #[command(after_help = "Exit codes: 0 shown; 1 the records cannot be read.\n\n\
                            Examples:\n  guard-agent audit tail -n 50\n  \
                            guard-agent audit tail --follow --json | jq 'select(.decision == \"refused\")'")]
    Tail {
        /// How many records to show.
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        lines: usize,
        /// Go on showing records as they come.
        #[arg(long)]
        follow: bool,
        /// Show the records as they are on disk: one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Shows one record in full, as JSON.
    ///
    /// The id of a call stands in its refusal; `guard-agent explain` says in words what the record means.
    #[command(
        after_help = "Exit codes: 0 shown; 1 there is no such record, or it cannot be read.\n\n\
                            Example:\n  sudo guard-agent audit show 01JDZ3…"
    )]
    Show {
        /// Id of the record.
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Checks the chain: whether a record was changed, inserted, removed or reordered.
    ///
    /// Records cut off at the very end leave no gap: compare the printed head with one that was noted elsewhere.
    #[command(
        after_help = "Exit codes: 0 the chain is whole; 1 it is broken, or cannot be read.\n\n\
                            Example:\n  sudo guard-agent audit verify"
    )]
    Verify {
        /// Another directory with records, for example a backup.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

impl Audit {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        match self {
            Self::Tail { lines, follow, json } => {
                tail(&directory(config)?, *lines, *follow, *json)?;
                Ok(OK)
            }
            Self::Show { id } => {
                let record: serde_json::Value = serde_json::from_str(&record(config, id)?)?;
                print(&serde_json::to_string_pretty(&record)?)?;
                Ok(OK)
            }
            Self::Verify { dir } => {
                let dir = dir.clone().map_or_else(|| directory(config), Ok)?;
                let report = verify(&dir).with_context(|| unreadable(&dir))?;
                print(&verdict(&report, &dir))?;
                if let Some(broken) = &report.broken {
                    complain(&format!("guard-agent: the chain is broken at {broken}"));
                    return Ok(FAILED);
                }
                Ok(OK)
            }
        }
    }
}

/// The record with this id.
pub(super) fn record(config: &Path, id: &str) -> anyhow::Result<String> {
    let dir = directory(config)?;
    let found = find(&dir, id).with_context(|| unreadable(&dir))?;
    found.with_context(|| {
        format!(
            "no record in {} has the id {id:?}. A call's record is written when the call has ended; the id stands in \
             its refusal, and `guard-agent audit tail --json` shows all",
            dir.display()
        )
    })
}

fn directory(config: &Path) -> anyhow::Result<PathBuf> {
    Ok(super::host(config)?.state_dir.join(DIRECTORY))
}

fn unreadable(dir: &Path) -> String {
    format!(
        "cannot read the audit log in {} (run this as root?)",
        dir.display()
    )
}

fn tail(dir: &Path, count: usize, follow: bool, json: bool) -> anyhow::Result<()> {
    let show = |lines: &[String]| -> std::io::Result<()> {
        lines.iter().try_for_each(|record| {
            print(&if json {
                record.clone()
            } else {
                line::readable(record)
            })
        })
    };
    // The place from which to follow is taken first: a record that comes in between is seen twice rather than never.
    let mut following = follow
        .then(|| Follow::from_end(dir))
        .transpose()
        .with_context(|| unreadable(dir))?;
    let shown = last(dir, count).with_context(|| unreadable(dir))?;
    show(&shown)?;
    let Some(following) = following.as_mut() else {
        return Ok(());
    };
    let mut fresh = following.poll().with_context(|| unreadable(dir))?;
    // Every record carries a hash of its own, so equal lines are the same record.
    fresh.retain(|record| !shown.contains(record));
    loop {
        show(&fresh)?;
        std::thread::sleep(PAUSE);
        fresh = following.poll().with_context(|| unreadable(dir))?;
    }
}

fn verdict(report: &VerifyReport, dir: &Path) -> String {
    let mut out = format!(
        "{} record(s) in {} file(s) of {}: {}\n",
        report.records,
        report.files,
        dir.display(),
        if report.is_sound() {
            "the chain is whole"
        } else {
            "the chain is BROKEN"
        }
    );
    if !report.from_genesis && report.records > 0 {
        out.push_str("It does not start with the very first record: older files were removed.\n");
    }
    if report.torn > 0 {
        out.push_str(&format!(
            "{} line(s) were cut short by a crash and are accounted for.\n",
            report.torn
        ));
    }
    if report.unfinished {
        out.push_str("The last line is unfinished: the daemon is writing, or died just now.\n");
    }
    if let (Some(head), Some(time)) = (&report.head, &report.last_time) {
        out.push_str(&format!("head {head}\nof {time}\n"));
    }
    out
}
