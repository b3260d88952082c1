//! The files below the journal; a trait so that tests can fill the disk, cut the power, and see what was on disk then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The segments of one journal, in one directory.
pub(super) trait Files: Send + Sync {
    /// Numbers of the segments, in order.
    fn segments(&self) -> io::Result<Vec<u64>>;
    /// All bytes of a segment.
    fn read(&self, segment: u64) -> io::Result<Vec<u8>>;
    /// An empty segment; what was there under its number is gone. It outlives a power loss after `sync_directory`.
    fn create(&self, segment: u64) -> io::Result<Arc<dyn Storage>>;
    /// A segment that is there, to be written further.
    fn resume(&self, segment: u64) -> io::Result<Arc<dyn Storage>>;
    /// Removes a segment.
    fn remove(&self, segment: u64) -> io::Result<()>;
    /// Which segments there are is on disk when this returns.
    fn sync_directory(&self) -> io::Result<()>;
    /// Keeps bytes that were cut off in a file of their own.
    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// How messages name a segment.
    fn path(&self, segment: u64) -> PathBuf;
}

/// One segment, open for appending.
pub(super) trait Storage: Send + Sync {
    /// Appends at the end; like write(2) it may take less than all.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// What was written is on disk when this returns.
    fn sync(&self) -> io::Result<()>;
}

impl Storage for File {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self;
        Write::write(&mut file, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The directory of a real ledger.
pub(super) struct Directory(pub(super) PathBuf);

impl Files for Directory {
    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let number = name
                .to_str()
                .and_then(|n| n.strip_prefix("journal-")?.strip_suffix(".log"));
            found.extend(number.and_then(|n| n.parse::<u64>().ok()));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        fs::read(self.path(segment))
    }

    fn create(&self, segment: u64) -> io::Result<Arc<dyn Storage>> {
        let file = options().create(true).open(self.path(segment))?;
        file.set_len(0)?;
        Ok(Arc::new(file))
    }

    fn resume(&self, segment: u64) -> io::Result<Arc<dyn Storage>> {
        Ok(Arc::new(options().open(self.path(segment))?))
    }

    fn remove(&self, segment: u64) -> io::Result<()> {
        fs::remove_file(self.path(segment))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.0.join(name), bytes)
    }

    fn path(&self, segment: u64) -> PathBuf {
        segment_path(&self.0, segment)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o640);
    options
}

pub(super) fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("journal-{segment:08}.log"))
}
