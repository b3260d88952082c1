//! A Debian kernel, downloaded and unpacked, not installed.
//!
//! In: a series such as `6.1`. Out: its newest cloud kernel below `target/kernels`, with modules and configuration.
//! On failure: what apt or dpkg said. What is there already is used again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{execute, output};

/// The flavour: no drivers for hardware, all that cgroups and BPF need.
const FLAVOUR: &str = "-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Image {
    /// What `uname -r` says under it.
    pub(super) release: String,
    /// The kernel itself.
    pub(super) kernel: PathBuf,
    /// The directory of its modules.
    pub(super) modules: PathBuf,
}

/// Downloads and unpacks the newest kernel of a series, once.
pub(super) fn fetch(series: &str, place: &Path) -> Result<Image> {
    let package = match newest(series) {
        Some(package) => package,
        None => {
            execute(Command::new("apt-get").args(["update", "-q"]))?;
            newest(series).with_context(|| {
                format!("no package linux-image-{series}.*{FLAVOUR}: it comes with Debian 12 and its security suite")
            })?
        }
    };
    let unpacked = place.join(&package);
    if !unpacked.is_dir() {
        download(&package, place, &unpacked)?;
    }
    let release = package.trim_start_matches("linux-image-").to_owned();
    let image = Image {
        kernel: unpacked.join("boot").join(format!("vmlinuz-{release}")),
        modules: unpacked.join("lib/modules").join(&release),
        release,
    };
    ensure!(
        image.kernel.is_file(),
        "{package} has no {}",
        image.kernel.display()
    );
    Ok(image)
}

fn download(package: &str, place: &Path, unpacked: &Path) -> Result<()> {
    let part = place.join(format!("{package}.part"));
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    // The user that apt downloads as may not write here.
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(&part);
    execute(&mut apt)?;
    let archive = fs::read_dir(&part)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .context("apt downloaded no package")?;
    let tree = part.join("tree");
    execute(Command::new("dpkg").arg("-x").arg(&archive).arg(&tree))?;
    // Whole or not at all: an interrupted run leaves no half kernel to be found.
    fs::rename(&tree, unpacked)?;
    fs::remove_dir_all(&part)?;
    Ok(())
}

/// The newest signed kernel package of a series that apt knows.
fn newest(series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.");
    let names = output("apt-cache", &["pkgnames", &prefix])?;
    let mut found: Vec<&str> = names.lines().filter(|name| name.ends_with(FLAVOUR)).collect();
    found.sort_by_key(|name| numbers(name));
    found.last().map(|name| (*name).to_owned())
}

/// `6.12.117+deb12` as numbers, so that 117 comes after 99.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(numbers("linux-image-6.1.0-56-cloud-amd64"), [6, 1, 0, 56, 64]);
        assert!(numbers("linux-image-6.12.117+deb12-cloud") > numbers("linux-image-6.12.99+deb12-cloud"));
    }
}
