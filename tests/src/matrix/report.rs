//! `docs/clients.md`, written by the run.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use super::Row;
use crate::clients::repository;

const HEAD: &str = "# Clients

Written by `cargo xtask test --clients`, which installs each client at the version shown and runs it unmodified, without a
base URL, as a governed process against providers of the lab. Numbers are of this run.

- **plain**, **streamed**: the client completes a tool-call round trip; every call is recorded with the tokens that the
  provider billed, and with the tool that was called.
- **budget**, **model**, **tool**: the client is refused for this reason. Shown are the attempts at the refused call (a
  client's own side calls apart); none reached the provider, the client was back within five seconds, and it showed Guard's
  message with the request id, unless the cell says *own text*.

| client | version | plain | streamed | budget | model | tool |
|---|---|---|---|---|---|---|
";

/// Writes the rows down.
///
/// # Errors
/// The file cannot be written.
pub fn write(rows: &[Row]) -> Result<()> {
    let mut text = HEAD.to_owned();
    for row in rows {
        let [plain, streamed] = &row.round_trips;
        let [budget, model, tool] = &row.refusals;
        writeln!(
            text,
            "| {} | {} | {plain} | {streamed} | {budget} | {model} | {tool} |",
            row.client.name, row.version
        )?;
    }
    let notes: Vec<&Row> = rows.iter().filter(|row| !row.client.note.is_empty()).collect();
    if !notes.is_empty() {
        text.push_str("\n## Notes\n\n");
    }
    for row in notes {
        writeln!(text, "- **{}**: {}", row.client.name, row.client.note)?;
    }
    fs::write(repository().join("docs/clients.md"), text)?;
    Ok(())
}
