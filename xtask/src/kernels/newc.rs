//! The archive that the kernel unpacks into its first root file system: cpio in the "new ASCII" form.
//!
//! In: files of this machine. Out: one uncompressed archive. On failure: nothing that could boot by mistake, the
//! end record is missing.
//!
//! Written here and not by cpio(1): device nodes need no mknod, and no copy of the tree is made first.
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's sources.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive being written.
pub(super) struct Archive {
    out: BufWriter<File>,
    written: HashSet<PathBuf>,
}

struct Entry<'a> {
    mode: u32,
    mtime: u32,
    device: (u32, u32),
    data: &'a [u8],
}

impl Archive {
    /// Begins an archive; an older one of that name is gone.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self {
            out: BufWriter::new(file),
            written: HashSet::new(),
        })
    }

    /// A directory that everybody may enter, with those above it.
    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("/")) {
            self.directory(parent)?;
        }
        let entry = Entry {
            mode: DIRECTORY | 0o755,
            mtime: 0,
            device: (0, 0),
            data: &[],
        };
        self.entry(path, &entry)
    }

    /// A file with this content.
    pub(super) fn file(&mut self, path: &Path, mode: u32, data: &[u8]) -> Result<()> {
        self.below(
            path,
            &Entry {
                mode: REGULAR | mode,
                mtime: 0,
                device: (0, 0),
                data,
            },
        )
    }

    /// A file of this machine; what a link leads to, not the link.
    pub(super) fn copy(&mut self, from: &Path, path: &Path) -> Result<()> {
        let data = fs::read(from).with_context(|| from.display().to_string())?;
        let metadata = fs::metadata(from)?;
        self.below(
            path,
            &Entry {
                mode: REGULAR | (metadata.permissions().mode() & 0o777),
                // Python takes its compiled modules only if the source is as old as they remember.
                mtime: u32::try_from(metadata.mtime()).unwrap_or_default(),
                device: (0, 0),
                data: &data,
            },
        )
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &Path, to: &Path) -> Result<()> {
        let to = to.to_str().context("a link to a name that is not text")?;
        self.below(
            path,
            &Entry {
                mode: LINK | 0o777,
                mtime: 0,
                device: (0, 0),
                data: to.as_bytes(),
            },
        )
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &Path, major: u32, minor: u32) -> Result<()> {
        self.below(
            path,
            &Entry {
                mode: CHARACTER | 0o600,
                mtime: 0,
                device: (major, minor),
                data: &[],
            },
        )
    }

    /// A directory of this machine with all below it, except what `skip` names.
    pub(super) fn tree(&mut self, from: &Path, skip: &dyn Fn(&str) -> bool) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if skip(name) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.tree(&path, skip)?,
                Ok(metadata) if metadata.is_file() => self.copy(&path, &path)?,
                // A link that leads nowhere, a socket: nothing to run.
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the end record.
    pub(super) fn finish(mut self) -> Result<()> {
        self.record(
            "TRAILER!!!",
            &Entry {
                mode: 0,
                mtime: 0,
                device: (0, 0),
                data: &[],
            },
        )?;
        self.out.flush()?;
        Ok(())
    }

    fn below(&mut self, path: &Path, entry: &Entry<'_>) -> Result<()> {
        if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("/")) {
            self.directory(parent)?;
        }
        self.entry(path, entry)
    }

    fn entry(&mut self, path: &Path, entry: &Entry<'_>) -> Result<()> {
        ensure!(path.is_absolute(), "{} is not absolute", path.display());
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        let Some(name) = path.to_str().map(|path| path.trim_start_matches('/')) else {
            bail!("{} is not text", path.display());
        };
        self.record(name, entry)
    }

    fn record(&mut self, name: &str, entry: &Entry<'_>) -> Result<()> {
        let size = u32::try_from(entry.data.len()).context("a file of 4 GiB or more")?;
        let (name_size, inode) = (u32::try_from(name.len() + 1)?, u32::try_from(self.written.len())?);
        let (major, minor) = entry.device;
        write!(
            self.out,
            "070701{inode:08x}{mode:08x}{zero:08x}{zero:08x}{links:08x}{mtime:08x}{size:08x}\
             {zero:08x}{zero:08x}{major:08x}{minor:08x}{name_size:08x}{zero:08x}{name}\0",
            mode = entry.mode,
            mtime = entry.mtime,
            links = 1,
            zero = 0,
        )?;
        // The header has 110 bytes; name and data each end on a multiple of four.
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(entry.data)?;
        self.pad(entry.data.len())
    }

    fn pad(&mut self, length: usize) -> Result<()> {
        let missing = length.next_multiple_of(4) - length;
        Ok(self.out.write_all(&[0; 4][..missing])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_layout_that_the_kernel_reads() {
        let path = std::env::temp_dir().join(format!("guard-test-newc-{}", std::process::id()));
        let mut archive = Archive::create(&path).unwrap();
        archive.file(Path::new("/etc/motd"), 0o644, b"hello").unwrap();
        archive.file(Path::new("/etc/motd"), 0o644, b"twice").unwrap();
        archive.device(Path::new("/console"), 5, 1).unwrap();
        archive.finish().unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let number =
                |field: usize| usize::from_str_radix(text(&bytes[at + 6 + field * 8..][..8]), 16).unwrap();
            assert_eq!(text(&bytes[at..at + 6]), "070701");
            let (size, name) = (number(6), number(11));
            names.push((
                text(&bytes[at + 110..][..name - 1]).to_owned(),
                number(1),
                number(10),
            ));
            let data = at + (110 + name).next_multiple_of(4);
            if names.last().unwrap().0 == "etc/motd" {
                assert_eq!(&bytes[data..data + size], b"hello");
            }
            at = data + size.next_multiple_of(4);
        }
        let names: Vec<_> = names
            .iter()
            .map(|(name, mode, minor)| (name.as_str(), *mode, *minor))
            .collect();
        assert_eq!(
            names,
            [
                ("etc", 0o040_755, 0),
                ("etc/motd", 0o100_644, 0),
                ("console", 0o020_600, 1),
                ("TRAILER!!!", 0, 0),
            ]
        );
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }
}
