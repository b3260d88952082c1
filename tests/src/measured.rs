//! Tables of measurements in `docs/performance.md`: each stands between the mark of the command that writes it and an end.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const DOCUMENT: &str = "docs/performance.md";
const END: &str = "<!-- end -->\n";

/// Replaces the table that `cargo xtask bench --NAME` writes.
///
/// # Errors
/// The document cannot be read or written, or has no place for the table.
pub fn write(name: &str, table: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(DOCUMENT);
    let text = fs::read_to_string(&path).context(DOCUMENT)?;
    fs::write(&path, placed(&text, name, table)?).context(DOCUMENT)
}

fn placed(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- written by `cargo xtask bench --{name}` -->\n");
    let (before, rest) = text.split_once(&begin).context("no place for the table")?;
    let (_, after) = rest.split_once(END).context("no end of the table")?;
    Ok(format!("{before}{begin}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::placed;

    #[test]
    fn a_table_takes_the_place_of_its_own_earlier_one() {
        let text = "<!-- written by `cargo xtask bench --one` -->\nold\n<!-- end -->\nbetween\n<!-- written by `cargo \
                    xtask bench --two` -->\nkept\n<!-- end -->\nafter";
        assert_eq!(placed(text, "one", "new\n").unwrap(), text.replace("old", "new"));
        assert_eq!(placed(text, "two", "new\n").unwrap(), text.replace("kept", "new"));
        assert!(placed(text, "three", "new\n").is_err());
    }
}
