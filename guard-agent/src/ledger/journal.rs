//! The append-only journal: segments `journal-NNNNNNNN.log`, each beginning with a checkpoint.
//!
//! In: records. Out: their bytes in the page cache, by one write(2) each, before a call is forwarded. On failure: the
//! part that was written is cut off again, and the error goes to the caller, who stops admitting.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::book::Book;
use super::record::{self, Numbered, Record};
use super::sqlite::{self, Balances, ProjectionError};
use super::{LedgerError, Recovery};

/// A segment longer than this is followed by a new one: some ten thousand calls. Small in tests, so that they rotate.
pub(super) const SEGMENT_BYTES: u64 = if cfg!(test) { 256 << 10 } else { 8 << 20 };

/// A place in the journal; segments count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Position {
    pub segment: u64,
    pub offset: u64,
}

/// The file below the journal; a trait so that tests can make it fail as a full disk does.
pub(super) trait Storage: Send {
    /// Appends at the end; like write(2) it may take less than all.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

impl Storage for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}

/// The open end of the journal.
pub(super) struct Journal {
    dir: PathBuf,
    segment: u64,
    storage: Box<dyn Storage>,
    /// Bytes of complete records.
    len: u64,
    next_seq: u64,
    /// The file may hold part of a record beyond `len`.
    ragged: bool,
}

impl Journal {
    /// Appends one record, whole or not at all.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let numbered = Numbered {
            seq: self.next_seq,
            record: record.clone(),
        };
        let line = record::encode(&numbered)?;
        if self.ragged {
            self.storage.set_len(self.len)?;
            self.ragged = false;
        }
        let written = write_once(self.storage.as_mut(), &line);
        if !matches!(written, Ok(n) if n == line.len()) {
            self.ragged = self.storage.set_len(self.len).is_err();
            return Err(written.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()));
        }
        self.len = self
            .len
            .saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        self.next_seq = self.next_seq.saturating_add(1);
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
        segment_path(&self.dir, self.segment)
    }

    /// Begins a new segment with a checkpoint; the old one stays until the database holds it.
    pub(super) fn rotate(&mut self, checkpoint: Record) -> io::Result<()> {
        let next = Self::create(
            &self.dir,
            self.segment.saturating_add(1),
            self.next_seq,
            checkpoint,
        )?;
        *self = next;
        Ok(())
    }

    fn create(dir: &Path, segment: u64, seq: u64, checkpoint: Record) -> io::Result<Self> {
        let path = segment_path(dir, segment);
        // A leftover of this name never held a readable checkpoint (recovery would have continued it).
        let file = options().create(true).truncate(false).open(&path)?;
        file.set_len(0)?;
        let mut journal = Self {
            dir: dir.to_owned(),
            segment,
            storage: Box::new(file),
            len: 0,
            next_seq: seq,
            ragged: false,
        };
        journal.append(&checkpoint)?;
        Ok(journal)
    }

    #[cfg(test)]
    pub(super) fn replace_storage(&mut self, storage: Box<dyn Storage>) {
        self.storage = storage;
    }
}

fn write_once(storage: &mut dyn Storage, line: &[u8]) -> io::Result<usize> {
    loop {
        match storage.write(line) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
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

/// Numbers of the segments in a directory, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix("journal-")?.strip_suffix(".log"));
        found.extend(number.and_then(|n| n.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
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

/// What recovery gives.
pub(super) struct Recovered {
    pub book: Book,
    pub journal: Journal,
    pub recovery: Recovery,
}

/// One segment as read back.
struct Segment {
    number: u64,
    /// Complete records, the unreadable ones as `None`.
    records: Vec<Option<Numbered>>,
    /// Where the last readable record ends.
    end: u64,
    /// What stands behind it.
    tail: Vec<u8>,
}

/// Reads the journal back, cuts an unfinished last record off, and opens the journal for more.
pub(super) fn recover(
    dir: &Path,
    now: Timestamp,
    database: Result<Option<Balances>, ProjectionError>,
) -> Result<Recovered, LedgerError> {
    let mut recovery = Recovery::default();
    let mut chain = Vec::new();
    let numbers = segments(dir).map_err(LedgerError::io(dir))?;
    // From the newest segment back to the first one that begins with a readable checkpoint.
    for number in numbers.iter().rev() {
        let segment = read_segment(dir, *number)?;
        let whole =
            matches!(segment.records.first(), Some(Some(n)) if matches!(n.record, Record::Checkpoint { .. }));
        chain.push(segment);
        if whole {
            break;
        }
    }
    chain.reverse();
    let started = matches!(chain.first().and_then(|s| s.records.first()), Some(Some(_)));
    if !started
        && chain
            .iter()
            .any(|segment| segment.records.iter().any(Option::is_some))
    {
        return Err(LedgerError::NoCheckpoint(dir.to_owned()));
    }
    let mut book = Book::default();
    let mut next_seq = 1;
    for segment in &mut chain {
        keep_aside(dir, segment, now, &mut recovery)?;
        for record in segment.records.drain(..) {
            match record {
                Some(numbered) => {
                    recovery.replayed += 1;
                    next_seq = numbered.seq.saturating_add(1);
                    book.replay(numbered);
                }
                None => recovery.damaged += 1,
            }
        }
    }
    let last = chain.iter().rev().find(|segment| segment.end > 0);
    let end = last.map(|segment| Position {
        segment: segment.number,
        offset: segment.end,
    });
    let database = match database {
        Ok(known) => known,
        Err(error) if end.is_some() => {
            sqlite::set_aside(dir, &error, now)?;
            None
        }
        Err(error) => return Err(error.into_ledger_error(dir)),
    };
    match database {
        // The database knows of more than the journal: power was lost under a disk that did not keep its word, or the
        // journal was removed. What the database knows counts.
        Some(known) if end.is_none_or(|end| end < known.position) => {
            recovery.from_database = true;
            book.seed(known.balances);
            sqlite::close_lost(dir)?;
            let segment = known
                .position
                .segment
                .max(numbers.last().copied().unwrap_or(0))
                .saturating_add(1);
            let journal = begin(dir, segment, next_seq.max(known.next_seq), &book, now)?;
            Ok(Recovered {
                book,
                journal,
                recovery,
            })
        }
        _ => {
            let journal = match last {
                Some(segment) => resume(dir, segment, next_seq)?,
                None => begin(dir, numbers.last().copied().unwrap_or(1), next_seq, &book, now)?,
            };
            Ok(Recovered {
                book,
                journal,
                recovery,
            })
        }
    }
}

fn begin(dir: &Path, segment: u64, seq: u64, book: &Book, now: Timestamp) -> Result<Journal, LedgerError> {
    Journal::create(dir, segment, seq, book.checkpoint(now.as_microsecond()))
        .map_err(LedgerError::io(segment_path(dir, segment)))
}

fn resume(dir: &Path, segment: &Segment, next_seq: u64) -> Result<Journal, LedgerError> {
    let path = segment_path(dir, segment.number);
    let file = options().open(&path).map_err(LedgerError::io(&path))?;
    Ok(Journal {
        dir: dir.to_owned(),
        segment: segment.number,
        storage: Box::new(file),
        len: segment.end,
        next_seq,
        ragged: false,
    })
}

fn read_segment(dir: &Path, number: u64) -> Result<Segment, LedgerError> {
    let path = segment_path(dir, number);
    let bytes = fs::read(&path).map_err(LedgerError::io(&path))?;
    let mut records = Vec::new();
    let mut end = 0;
    let mut readable = 0;
    let mut offset = 0;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        offset += line.len();
        let record = line.strip_suffix(b"\n").and_then(record::decode);
        let good = record.is_some();
        records.push(record);
        if good {
            end = offset;
            readable = records.len();
        }
    }
    records.truncate(readable);
    let tail = bytes.get(end..).unwrap_or_default().to_vec();
    Ok(Segment {
        number,
        records,
        end: u64::try_from(end).unwrap_or(u64::MAX),
        tail,
    })
}

/// Copies an unfinished tail to a file of its own, then cuts it off.
fn keep_aside(
    dir: &Path,
    segment: &Segment,
    now: Timestamp,
    recovery: &mut Recovery,
) -> Result<(), LedgerError> {
    if segment.tail.is_empty() {
        return Ok(());
    }
    let path = segment_path(dir, segment.number);
    let aside = dir.join(format!(
        "journal-{:08}.torn-{}",
        segment.number,
        now.as_microsecond()
    ));
    fs::write(&aside, &segment.tail).map_err(LedgerError::io(&aside))?;
    options()
        .open(&path)
        .and_then(|file| file.set_len(segment.end))
        .map_err(LedgerError::io(&path))?;
    recovery.torn_bytes = recovery
        .torn_bytes
        .saturating_add(u64::try_from(segment.tail.len()).unwrap_or(u64::MAX));
    tracing::warn!(aside = %aside.display(), bytes = segment.tail.len(), "the journal ended inside a record; the rest was kept aside");
    Ok(())
}
