//! Kernel modules and those that they stand on, in the order in which they must be loaded.
//!
//! In: the names that the suites need. Out: the modules' bytes. On failure: the name that the kernel package does
//! not have; what is built into the kernel itself is not loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Virtual devices between namespaces; listing and cutting open sockets; transports and families to be refused.
const WANTED: [&str; 7] = [
    "veth",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "vsock",
    "sctp",
    "dccp_ipv4",
];

/// The modules to load, each after those that it needs.
pub(super) fn collect(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let builtin = fs::read_to_string(directory.join("modules.builtin")).context("modules.builtin")?;
    let mut search = Search {
        files: Vec::new(),
        builtin,
        found: Vec::new(),
    };
    list(&directory.join("kernel"), &mut search.files)?;
    for name in WANTED {
        search.add(name)?;
    }
    Ok(search.found)
}

struct Search {
    files: Vec<PathBuf>,
    builtin: String,
    found: Vec<(String, Vec<u8>)>,
}

impl Search {
    fn add(&mut self, name: &str) -> Result<()> {
        let is_builtin = self
            .builtin
            .lines()
            .any(|line| module_name(Path::new(line)) == name);
        if is_builtin || self.found.iter().any(|(found, _)| found == name) {
            return Ok(());
        }
        let file = self.files.iter().find(|file| module_name(file) == name);
        let file = file.with_context(|| format!("the kernel package has no module {name}"))?;
        let bytes = read(file)?;
        for needed in needs(&bytes) {
            self.add(&needed)?;
        }
        self.found.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// `kernel/net/tcp-diag.ko.xz` is tcp_diag.
fn module_name(file: &Path) -> String {
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|end| end != "xz") {
        return fs::read(file).with_context(|| file.display().to_string());
    }
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()?;
    ensure!(output.status.success(), "xz cannot unpack {}", file.display());
    Ok(output.stdout)
}

/// The names in a module's own `depends=` line, which stands between zero bytes.
fn needs(module: &[u8]) -> Vec<String> {
    let mark = b"\0depends=";
    let Some(at) = module.windows(mark.len()).position(|window| window == mark) else {
        return Vec::new();
    };
    let rest = &module[at + mark.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]).replace('-', "_");
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        assert_eq!(
            needs(b"\x7fELF\0license=GPL\0depends=inet-diag,x\0retpoline=Y\0"),
            ["inet_diag", "x"]
        );
        assert!(needs(b"ELF\0depends=\0name=veth\0").is_empty());
        assert!(needs(b"no such line").is_empty());
        assert_eq!(module_name(Path::new("kernel/net/tcp-diag.ko.xz")), "tcp_diag");
    }
}
