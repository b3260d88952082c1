//! The append-only journal: segments `journal-NNNNNNNN.log`, each beginning with a checkpoint.
//!
//! In: records. Out: their bytes in the page cache, by one write(2) each, before a call is forwarded. On failure: the
//! part that was written is cut off again, and the error goes to the caller, who stops admitting.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LedgerError;
use super::codec;
use super::files::{Files, Storage};
use super::record::Record;

/// A segment longer than this is followed by a new one: some ten thousand calls. Small in tests, so that they rotate.
pub(super) const SEGMENT_BYTES: u64 = if cfg!(test) { 128 << 10 } else { 8 << 20 };

/// A segment is at least this many times as long as its checkpoint.
const CHECKPOINTS: u64 = 8;

/// A place in the journal; segments count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// The open end of the journal.
pub(super) struct Journal {
    files: Arc<dyn Files>,
    segment: u64,
    storage: Arc<dyn Storage>,
    /// Bytes of complete records.
    len: u64,
    /// Bytes of the checkpoint at the beginning.
    checkpoint: u64,
    next_seq: u64,
    /// The file may hold part of a record beyond `len`.
    ragged: bool,
    /// The bytes of the record that is written; kept, so that a call allocates nothing for it.
    buffer: Vec<u8>,
    /// Segments before this one that may not be on disk yet.
    older: Vec<Arc<dyn Storage>>,
    /// Segments begun, and how many of them the directory on disk has.
    begun: u64,
    entered: u64,
    /// The bytes of this segment, kept while the disk does not take them: what a failed fsync leaves in the page cache
    /// counts as clean there, and may be gone. Bounded, since nothing is admitted meanwhile.
    untaken: Option<Vec<u8>>,
}

/// What has to be brought to the disk.
pub(super) struct Unsynced {
    /// The directory, too.
    pub directory: bool,
    /// The segments, in order.
    pub storages: Vec<Arc<dyn Storage>>,
    older: usize,
    begun: u64,
}

impl Journal {
    /// Appends one record, whole or not at all.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        self.buffer.clear();
        codec::encode(self.next_seq, record, &mut self.buffer);
        if self.ragged {
            self.storage.set_len(self.len)?;
            self.ragged = false;
        }
        let written = write_once(self.storage.as_ref(), &self.buffer);
        if !matches!(written, Ok(n) if n == self.buffer.len()) {
            self.ragged = self.storage.set_len(self.len).is_err();
            return Err(written.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()));
        }
        self.len = self
            .len
            .saturating_add(u64::try_from(self.buffer.len()).unwrap_or(u64::MAX));
        self.next_seq = self.next_seq.saturating_add(1);
        if let Some(bytes) = &mut self.untaken {
            bytes.extend_from_slice(&self.buffer);
        }
        Ok(())
    }

    /// Number of the next record.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// End of the last complete record.
    pub(super) fn position(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.len,
        }
    }

    /// The file that is written to.
    pub(super) fn path(&self) -> PathBuf {
        self.files.path(self.segment)
    }

    /// Begins a new segment with a checkpoint; the old one stays until the database holds it.
    pub(super) fn rotate(&mut self, checkpoint: &Record) -> io::Result<()> {
        let mut next = Self::create(
            &self.files,
            self.segment.saturating_add(1),
            self.next_seq,
            checkpoint,
        )?;
        next.older.append(&mut self.older);
        next.older.push(Arc::clone(&self.storage));
        *self = next;
        Ok(())
    }

    /// Begins a segment in the place of what the disk failed to take: nothing older is waited for, since the checkpoint
    /// has it.
    pub(super) fn renew(&mut self, checkpoint: &Record) -> io::Result<()> {
        let number = self.segment.saturating_add(1);
        let mut next = Self::create(&self.files, number, self.next_seq, checkpoint)?;
        next.untaken = Some(next.buffer.clone());
        *self = next;
        Ok(())
    }

    /// Whether the disk has yet to take this segment from its first byte.
    pub(super) fn is_untaken(&self) -> bool {
        self.untaken.is_some()
    }

    /// Writes the segment once more, byte for byte, so that it does not matter which of the writings a power loss leaves,
    /// and a disk that fails for long is not filled.
    pub(super) fn write_again(&mut self) -> io::Result<()> {
        let Some(bytes) = &self.untaken else {
            return Ok(());
        };
        // Whatever stands there if this fails, the next try writes it anew.
        self.ragged = false;
        let storage = self.files.create(self.segment)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match write_once(storage.as_ref(), rest)? {
                0 => return Err(io::ErrorKind::StorageFull.into()),
                written => rest = rest.get(written..).unwrap_or_default(),
            }
        }
        self.storage = storage;
        Ok(())
    }

    /// Whether the segment is long: by its own measure, and by that of its checkpoint, so that many accounts do not make
    /// checkpoints most of what is written.
    pub(super) fn is_long(&self, bytes: u64) -> bool {
        self.len > bytes.max(self.checkpoint.saturating_mul(CHECKPOINTS))
    }

    /// Brings a segment that was just begun to the disk.
    pub(super) fn on_disk(mut self) -> io::Result<Self> {
        let unsynced = self.unsynced();
        for storage in &unsynced.storages {
            storage.sync()?;
        }
        self.files.sync_directory()?;
        self.synced(&unsynced);
        Ok(self)
    }

    /// What is not known to be on disk.
    pub(super) fn unsynced(&self) -> Unsynced {
        let mut storages = self.older.clone();
        storages.push(Arc::clone(&self.storage));
        Unsynced {
            directory: self.entered < self.begun,
            storages,
            older: self.older.len(),
            begun: self.begun,
        }
    }

    /// That is on disk now.
    pub(super) fn synced(&mut self, done: &Unsynced) {
        self.older.drain(..done.older.min(self.older.len()));
        self.entered = self.entered.max(done.begun);
        let current = done.storages.last();
        if current.is_some_and(|storage| Arc::ptr_eq(storage, &self.storage)) {
            self.untaken = None;
        }
    }

    /// Segments before this one may not be on disk: whoever wrote them was killed.
    pub(super) fn after(&mut self, older: Vec<Arc<dyn Storage>>) {
        self.older = older;
    }

    /// A new segment that begins with a checkpoint. A leftover of its number holds none: a start begins
    /// behind the newest.
    pub(super) fn create(
        files: &Arc<dyn Files>,
        segment: u64,
        seq: u64,
        checkpoint: &Record,
    ) -> io::Result<Self> {
        let storage = files.create(segment)?;
        let mut journal = Self::at(files, segment, storage, 0, seq);
        journal.append(checkpoint)?;
        journal.checkpoint = journal.len;
        Ok(journal)
    }

    /// Goes on behind the last complete record of a segment.
    pub(super) fn resume(files: &Arc<dyn Files>, segment: u64, len: u64, seq: u64) -> io::Result<Self> {
        let storage = files.resume(segment)?;
        Ok(Self::at(files, segment, storage, len, seq))
    }

    fn at(files: &Arc<dyn Files>, segment: u64, storage: Arc<dyn Storage>, len: u64, next_seq: u64) -> Self {
        Self {
            files: Arc::clone(files),
            segment,
            storage,
            len,
            checkpoint: 0,
            next_seq,
            ragged: false,
            buffer: Vec::new(),
            older: Vec::new(),
            begun: segment,
            entered: 0,
            untaken: None,
        }
    }

    #[cfg(test)]
    pub(super) fn replace_storage(&mut self, storage: Arc<dyn Storage>) {
        self.storage = storage;
    }
}

fn write_once(storage: &dyn Storage, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match storage.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Half a second in all.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Creates the directory when missing and takes its lock file, or says who can't.
pub(super) fn lock_directory(dir: &Path) -> Result<File, LedgerError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(LedgerError::io(dir))?;
    let path = dir.join("ledger.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(&path)
        .map_err(LedgerError::io(&path))?;
    // A daemon that has just been killed may hold it for a moment longer: the kernel closes its files one by one, and a
    // child between fork and exec has them too.
    let mut patience = LOCK_TRIES;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(fs::TryLockError::WouldBlock) => return Err(LedgerError::Locked(path)),
            Err(fs::TryLockError::Error(error)) => return Err(LedgerError::io(path)(error)),
        }
    }
}
