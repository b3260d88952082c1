//! Takes the programs out of the kernel, on purpose: removing a pin removes what it held.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::KernelError;

/// What [`detach`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetachReport {
    /// The programs that no longer run.
    pub links: Vec<String>,
    /// The maps that are gone.
    pub maps: Vec<String>,
}

/// Removes all pins below this directory, of every version. Nothing there is not an error.
pub fn detach(bpffs: &Path) -> Result<DetachReport, KernelError> {
    let report = sweep(bpffs, None)?;
    match fs::remove_dir(bpffs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::path("cannot remove", bpffs)(error))
        }
        _ => Ok(report),
    }
}

/// Removes the pins of every version but one.
pub(super) fn sweep(bpffs: &Path, keep: Option<&Path>) -> Result<DetachReport, KernelError> {
    let mut report = DetachReport::default();
    for version in entries(bpffs)? {
        if Some(version.as_path()) == keep || !is_version(&version) {
            continue;
        }
        // Links first: a program must not run on without the maps that say whom it governs.
        report.links.extend(remove_all(&version.join("links"))?);
        report.maps.extend(remove_all(&version.join("maps"))?);
        fs::remove_dir(&version).map_err(KernelError::path("cannot remove", &version))?;
    }
    Ok(report)
}

/// `v1`, `v2`, …: nothing else in the directory is ours.
fn is_version(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    name.strip_prefix('v')
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

fn remove_all(directory: &Path) -> Result<Vec<String>, KernelError> {
    let mut removed = Vec::new();
    for pin in entries(directory)? {
        fs::remove_file(&pin).map_err(KernelError::path("cannot remove", &pin))?;
        removed.extend(pin.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::path("cannot remove", directory)(error))
        }
        _ => Ok(removed),
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(KernelError::path("cannot list", directory))?,
    };
    listing
        .map(|entry| {
            entry
                .map(|entry| entry.path())
                .map_err(KernelError::path("cannot list", directory))
        })
        .collect()
}
