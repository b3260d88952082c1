//! The thread that writes records.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ulid::Ulid;

use super::record::Head;
use super::redact::Redactor;
use super::{AuditError, AuditRecord, Message, Shared, chain};

/// A file longer than this is followed by a new one.
const FILE_BYTES: u64 = 64 << 20;
/// Records written in one go.
const BATCH: usize = 256;
/// Longest time that a written record stays unsynced, and between two tries when writing fails.
const INTERVAL: Duration = Duration::from_secs(1);
/// Tries at shutdown before what is left is given up.
const LAST_TRIES: u32 = 3;

pub(super) struct Writer {
    dir: PathBuf,
    shared: Arc<Shared>,
    redactor: Redactor,
    head: String,
    /// None until the first record, and after a failure: then the end is looked for again.
    file: Option<Current>,
    unsynced: Option<Instant>,
    _lock: File,
}

struct Current {
    file: File,
    day: u32,
    len: u64,
}

impl Current {
    /// Appends all of it, or cuts the file back. Where it can't be cut, the part that was written stays as an unfinished
    /// line; the next try finds it and accounts for it.
    fn write(&mut self, text: &str) -> io::Result<()> {
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            if self.file.set_len(self.len).is_err() {
                tracing::warn!("the audit log could not be cut back after a failed write");
            }
            return Err(error);
        }
        self.len = self
            .len
            .saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        Ok(())
    }
}

impl Writer {
    pub(super) fn open(dir: &Path, shared: Arc<Shared>) -> Result<Self, AuditError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(AuditError::io(dir))?;
        let lock = lock(&dir.join("audit.lock"))?;
        let end = chain::end(dir).map_err(|(path, source)| AuditError::Io { path, source })?;
        shared.status().head.clone_from(&end.head);
        Ok(Self {
            dir: dir.to_owned(),
            shared,
            redactor: Redactor::new()?,
            head: end.head,
            file: None,
            unsynced: None,
            _lock: lock,
        })
    }

    pub(super) fn run(mut self, records: &Receiver<Message>) {
        let mut batch = Vec::new();
        let mut stopping = false;
        while !stopping {
            let mut next = match records.recv_timeout(INTERVAL) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
            };
            while let Some(message) = next.take() {
                match message {
                    Message::Record(record) => batch.push(*record),
                    Message::Stop => stopping = true,
                }
                if batch.len() < BATCH {
                    next = records.try_recv().ok();
                }
            }
            self.write_until_done(&mut batch, stopping);
            if stopping || self.unsynced.is_some_and(|since| since.elapsed() >= INTERVAL) {
                self.sync();
            }
        }
    }

    /// Writes a batch, however long that takes; at shutdown only a few tries.
    fn write_until_done(&mut self, batch: &mut Vec<AuditRecord>, stopping: bool) {
        let mut tries = 0;
        while !batch.is_empty() {
            tries += 1;
            match self.write(batch) {
                Ok(()) => {
                    let count = batch.len();
                    batch.clear();
                    self.shared
                        .written
                        .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
                    self.shared.taken.fetch_sub(count, Ordering::AcqRel);
                    self.shared.failing.store(false, Ordering::Release);
                    let mut status = self.shared.status();
                    status.failing = None;
                    status.head.clone_from(&self.head);
                }
                Err(error) => {
                    if tries == 1 {
                        tracing::error!(%error, dir = %self.dir.display(), "the audit log cannot be written: no call is admitted until it can");
                    }
                    self.shared.status().failing = Some(format!("{}: {error}", self.dir.display()));
                    self.shared.failing.store(true, Ordering::Release);
                    if stopping && tries >= LAST_TRIES {
                        let lost = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                        self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
                        tracing::error!(lost, "audit records could not be written before the end");
                        return;
                    }
                    std::thread::sleep(INTERVAL);
                }
            }
        }
    }

    /// Writes all of a batch or nothing of it.
    fn write(&mut self, batch: &[AuditRecord]) -> io::Result<()> {
        let now = self.shared.clock.now();
        if self.file.is_none() {
            self.file = self.continue_last(now)?;
        }
        let fresh = match &self.file {
            Some(current) => current.len > FILE_BYTES || day_of(now) > current.day,
            None => true,
        };
        if fresh {
            self.sync();
            self.file = Some(self.next_file(now)?);
        }
        let mut text = String::new();
        let mut head = self.head.clone();
        for record in batch {
            append(&mut text, &mut head, record, &self.redactor)?;
        }
        let Some(current) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if let Err(error) = current.write(&text) {
            self.file = None;
            return Err(error);
        }
        self.head = head;
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Opens the last file again, if there is one. An unfinished line at its end is ended and accounted for.
    fn continue_last(&mut self, now: Timestamp) -> io::Result<Option<Current>> {
        let end = chain::end(&self.dir).map_err(|(_, error)| error)?;
        self.head = end.head;
        let Some(path) = end.file else { return Ok(None) };
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(chain::parse_name);
        let Some((day, _)) = name else { return Ok(None) };
        let file = OpenOptions::new().append(true).open(&path)?;
        let len = file.metadata()?.len();
        let mut current = Current { file, day, len };
        let mut text = String::new();
        let mut head = self.head.clone();
        if end.unterminated || !matches!(end.torn.last(), None | Some(b'\n')) {
            text.push('\n');
        }
        if !end.torn.is_empty() {
            let torn = end.torn.strip_suffix(b"\n").unwrap_or(&end.torn);
            let message = format!(
                "{} unfinished bytes stand before this record in {}",
                torn.len(),
                path.display()
            );
            let evidence = Some(chain::digest(torn));
            let note = AuditRecord::alert(
                Head::of_host(now, Ulid::new().to_string()),
                chain::TORN,
                message,
                evidence,
            );
            append(&mut text, &mut head, &note, &self.redactor)?;
        }
        if !text.is_empty() {
            current.write(&text)?;
            self.head = head;
            self.unsynced.get_or_insert_with(Instant::now);
        }
        Ok(Some(current))
    }

    /// A new file: of today, or of the last file's day when the clock went backwards.
    fn next_file(&self, now: Timestamp) -> io::Result<Current> {
        let last = chain::files(&self.dir)?.pop();
        let last = last
            .as_ref()
            .and_then(|p| chain::parse_name(p.file_name()?.to_str()?));
        let today = day_of(now);
        let (day, number) = match last {
            Some((day, number)) if day >= today => (day, number.saturating_add(1)),
            _ => (today, 1),
        };
        let path = self.dir.join(chain::file_name(day, number));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(Current { file, day, len: 0 })
    }

    fn sync(&mut self) {
        if self.unsynced.take().is_none() {
            return;
        }
        if let Some(error) = self
            .file
            .as_ref()
            .and_then(|current| current.file.sync_data().err())
        {
            tracing::error!(%error, "the audit log could not be synced to disk");
        }
    }
}

/// Appends a record's line to `text` and moves `head` to it.
fn append(text: &mut String, head: &mut String, record: &AuditRecord, redactor: &Redactor) -> io::Result<()> {
    let line = record.line(head)?;
    let (line, hash) = chain::seal(&redactor.redact(&line));
    text.push_str(&line);
    *head = hash;
    Ok(())
}

/// `YYYYMMDD` in UTC.
fn day_of(now: Timestamp) -> u32 {
    let date = TimeZone::UTC.to_datetime(now).date();
    let part = |n: i32| u32::try_from(n).unwrap_or(0);
    part(date.year().into()) * 10_000 + part(date.month().into()) * 100 + part(date.day().into())
}

fn lock(path: &Path) -> Result<File, AuditError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o640)
        .open(path)
        .map_err(AuditError::io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(AuditError::Locked(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(AuditError::io(path)(error)),
    }
}
