//! `docs/clients.md`, written by the run.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use super::{CLIENTS, Row};
use crate::clients::repository;

const HEAD: &str = "# Clients

Written by `cargo xtask test --clients`, which installs each client at the version shown and runs it unmodified, without a
base URL, as a governed process against providers of the lab. Each row is of the last run of that client.

- **plain**, **streamed**: the client completes a tool-call round trip; every call is recorded with the tokens that the
  provider billed, and with the tool that was called.
- **budget**, **model**, **tool**: the client is refused for this reason. Shown are the attempts at the refused call (a
  client's own side calls apart); none reached the provider, the client was back within five seconds, and it showed Guard's
  message with the request id, unless the cell says *own text*.

| client | version | plain | streamed | budget | model | tool |
|---|---|---|---|---|---|---|
";

/// Writes the rows down, in the order of the table; a client that was not run keeps its row.
///
/// # Errors
/// The file cannot be written.
pub fn write(rows: &[Row]) -> Result<()> {
    let file = repository().join("docs/clients.md");
    let known = fs::read_to_string(&file).unwrap_or_default();
    let mut text = HEAD.to_owned();
    let mut notes = String::new();
    for client in CLIENTS {
        let start = format!("| {} |", client.name);
        let line = match rows.iter().find(|row| row.client == client) {
            Some(row) => told(row),
            None => match known.lines().find(|line| line.starts_with(&start)) {
                Some(line) => line.to_owned(),
                None => continue,
            },
        };
        writeln!(text, "{line}")?;
        if !client.note.is_empty() {
            writeln!(notes, "- **{}**: {}", client.name, client.note)?;
        }
    }
    if !notes.is_empty() {
        text.push_str("\n## Notes\n\n");
        text.push_str(&notes);
    }
    fs::write(file, text)?;
    Ok(())
}

fn told(row: &Row) -> String {
    let [plain, streamed] = &row.round_trips;
    let [budget, model, tool] = &row.refusals;
    format!(
        "| {} | {} | {plain} | {streamed} | {budget} | {model} | {tool} |",
        row.client.name, row.version
    )
}
