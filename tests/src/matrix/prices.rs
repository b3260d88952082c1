//! What an independent calculator says that calls cost, asked again: Guard's unit tests compare its answers with the
//! daemon's own prices.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Installed;
use crate::clients::{repository, script};
use crate::process::Spawn;

/// Its answers, as the unit tests read them.
const ANSWERS: &str = "guard-agent/src/llm/prices/independent.jsonl";
/// The rows that it is asked about.
const TABLE: &str = "guard-agent/src/llm/prices/table.toml";
/// Set, it writes the answers down in place of comparing them.
const WRITE: &str = "GUARD_WRITE_PRICES";

/// Asks the package for every usage; how many there are.
///
/// # Errors
/// It cannot be asked, or says something else than is written down.
pub fn compare(installed: &Installed) -> Result<usize> {
    let done = Spawn::new(installed.python("sdk"))
        .arg(script("matrix/prices.py"))
        .arg(repository().join(TABLE))
        .run()?
        .ok()?;
    let file = repository().join(ANSWERS);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&file, &done.stdout)?;
    }
    let known = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let different = known
        .lines()
        .zip(done.stdout.lines())
        .find(|(known, said)| known != said);
    ensure!(
        known == done.stdout,
        "{ANSWERS} is not what genai-prices says now; {WRITE}=1 writes it. First: {different:?}"
    );
    Ok(done.stdout.lines().count())
}
