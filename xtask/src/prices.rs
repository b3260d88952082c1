//! `cargo xtask prices FILE`: the price snapshot that is part of the binary.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

/// Where the snapshot stands. Beside it is the licence of the list that it is reduced from.
const SNAPSHOT: &str = "guard-agent/src/llm/prices/snapshot.json.zst";

/// Reduces the list with the same code that `guard-agent prices import` uses.
pub(crate) fn run(file: &Path) -> Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "run",
        "--quiet",
        "--package",
        "guard-agent",
        "--",
        "prices",
        "import",
    ]);
    cargo.args(["--snapshot", SNAPSHOT]).arg(file);
    ensure!(cargo.status()?.success(), "the snapshot could not be made");
    Ok(())
}
