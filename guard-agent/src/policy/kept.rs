//! What people decided, kept in a small file of JSON over restarts.
//!
//! In: the file. Out: its content. On failure: an error that names the file; what is broken is never taken for empty.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::de::DeserializeOwned;

/// What the file holds; nothing when there is none. `advice` says what to do about a broken one.
pub(super) fn read<T: DeserializeOwned + Default>(file: &Path, advice: &str) -> io::Result<T> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|why| {
            let message = format!("{}: {why}; {advice}", file.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        }),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        Err(why) => Err(io::Error::new(why.kind(), format!("{}: {why}", file.display()))),
    }
}

/// Puts a file in the place of another, so that a crash leaves one of the two.
pub(super) fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let draft = file.with_extension("new");
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&draft, file)?;
    match file.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
