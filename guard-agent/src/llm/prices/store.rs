//! The price table that is in force: what is in this binary, what was imported, and the operator's overlay.
//!
//! In: the state directory, the overlay's text. Out: the table. On failure: an overlay that cannot be used is an error (it
//! says what the operator wants); an imported list that cannot be used is left out and said, because the table in this
//! binary prices the same models.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::{PriceTable, litellm};

/// The imported list, in the state directory.
pub const FILE: &str = "prices.json";

/// Largest overlay, in bytes.
const MOST_OVERLAY: u64 = 4 * 1024 * 1024;

/// The table, and what is wrong with an imported list that was left out.
///
/// # Errors
/// The overlay cannot be used, or the table in this binary is broken.
pub fn load(state_dir: &Path, overlay: Option<&str>) -> anyhow::Result<(PriceTable, Option<String>)> {
    let mut table = PriceTable::embedded().context("the embedded price table is broken")?;
    let path = state_dir.join(FILE);
    let problem = match imported(&path) {
        Ok(None) => None,
        Ok(Some(list)) => table.import(list).err().map(|why| why.to_string()),
        Err(why) => Some(format!("{why:#}")),
    };
    let problem = problem.map(|why| {
        format!(
            "the imported price list {} is left out: {why}; import it again",
            path.display()
        )
    });
    if let Some(text) = overlay {
        table
            .overlay(text)
            .context("the overlay of [prices] cannot be used")?;
    }
    Ok((table, problem))
}

fn imported(path: &Path) -> anyhow::Result<Option<litellm::List>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why.into()),
    };
    let mut text = Vec::new();
    file.take(litellm::MOST_BYTES).read_to_end(&mut text)?;
    Ok(Some(litellm::read(&text)?))
}

/// Keeps a list that [`litellm::reduce`] made, whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn keep(state_dir: &Path, reduced: &[u8]) -> anyhow::Result<()> {
    let path = state_dir.join(FILE);
    let beside = state_dir.join("prices.json.new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(reduced)?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// The text of an overlay.
///
/// # Errors
/// It cannot be read, is no text, or is larger than 4 MiB.
pub fn overlay(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("the price overlay {shown} cannot be read"))?;
    file.take(MOST_OVERLAY + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("the price overlay {shown} cannot be read"))?;
    anyhow::ensure!(
        text.len() as u64 <= MOST_OVERLAY,
        "the price overlay {shown} is larger than 4 MiB"
    );
    Ok(text)
}
