//! `cargo xtask check`: what a reader may rely on, held by a command: format, lints that every crate inherits, and files
//! of a size that can be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::demo::cargo;

/// Most lines of production code in one file; its tests do not count.
const LINES: usize = 400;

/// Checks format, lints, their inheritance, and the size of files.
///
/// # Errors
/// The first check that does not hold, with what to change.
pub(crate) fn run() -> Result<()> {
    let root = root()?;
    inherited(&root)?;
    sizes(&root)?;
    cargo(["fmt", "--all", "--check"])?;
    cargo([
        "clippy",
        "--quiet",
        "--workspace",
        "--exclude",
        "guard-ebpf",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ])
}

/// The root of the repository.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask has no parent directory")?.to_owned())
}

/// The files that git knows, below the root.
pub(crate) fn tracked(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git")
        .args(["ls-files", pattern])
        .current_dir(root)
        .output()
        .context("git")?;
    ensure!(
        listed.status.success(),
        "git ls-files failed: this is not a checkout"
    );
    let names = String::from_utf8(listed.stdout).context("a file name that is not UTF-8")?;
    Ok(names.lines().map(|name| root.join(name)).collect())
}

/// Lints count only where they are inherited.
fn inherited(root: &Path) -> Result<()> {
    for manifest in tracked(root, "*/Cargo.toml")? {
        let text = fs::read_to_string(&manifest).with_context(|| manifest.display().to_string())?;
        if !text.contains("[lints]\nworkspace = true") {
            bail!(
                "{} does not inherit the workspace's lints: add [lints] workspace = true",
                manifest.display()
            );
        }
    }
    Ok(())
}

fn sizes(root: &Path) -> Result<()> {
    for file in tracked(root, "*.rs")? {
        let is_test = file.components().any(|part| part.as_os_str() == "tests")
            || file.file_name().is_some_and(|name| name == "tests.rs");
        if is_test {
            continue;
        }
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let lines = production_lines(&text);
        if lines > LINES {
            bail!(
                "{} has {lines} lines of production code; split it by idea at {LINES}",
                file.display()
            );
        }
    }
    Ok(())
}

/// Lines before the tests.
fn production_lines(text: &str) -> usize {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(production_lines("a\nb\n#[cfg(test)]\nmod tests {}\n"), 2);
        assert_eq!(production_lines("a\nb\n"), 2);
    }

    #[test]
    fn this_tree_holds() {
        let root = root().unwrap();
        inherited(&root).unwrap();
        sizes(&root).unwrap();
    }
}
