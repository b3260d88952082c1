//! Reading the journal back: from the newest segment that begins with a readable checkpoint to the end of what is
//! readable.
//!
//! In: the files, and what `ledger.db` knew. Out: the book and the journal, open for more. On failure: an error that
//! says which file; nothing is changed that was readable.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::book::Book;
use super::escrow::Escrow;
use super::files::Files;
use super::frames::{self, Format};
use super::journal::{Journal, Position};
use super::record::{Boot, Numbered, Record};
use super::sqlite::{self, Balances, ProjectionError};
use super::{LedgerError, Recovery};

/// What recovery gives.
pub(super) struct Recovered {
    pub book: Book,
    pub escrow: Escrow,
    /// In which boot the journal was written last, and whether it was closed after that.
    pub last: LastLife,
    pub journal: Journal,
    pub recovery: Recovery,
}

/// The process that wrote the journal last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastLife {
    /// None in the first format, which had no leases.
    pub boot: Option<Boot>,
    /// When it was opened, in microseconds since 1970.
    pub opened: i64,
    /// Whether it was closed, with everything on disk.
    pub closed: bool,
}

impl LastLife {
    fn replay(&mut self, record: &Record) {
        match record {
            Record::Checkpoint { boot, at, .. } => {
                if boot.is_some() {
                    (self.boot, self.opened) = (*boot, *at);
                }
                self.closed = false;
            }
            Record::Opened { boot, at } => {
                (self.boot, self.opened, self.closed) = (Some(*boot), *at, false);
            }
            Record::Stopped { .. } => self.closed = true,
            Record::Reserve { .. } | Record::Extend { .. } | Record::Lease { .. } => self.closed = false,
            Record::Close { .. } | Record::Forget { .. } => {}
        }
    }
}

/// One segment as read back.
struct Segment {
    number: u64,
    format: Format,
    /// Complete records, the unreadable ones as `None`.
    records: Vec<Option<Numbered>>,
    /// Where the last readable record ends.
    end: u64,
    /// What stands behind it.
    tail: Vec<u8>,
}

/// Reads the journal back, cuts an unfinished last record off, and opens the journal for more.
pub(super) fn recover(
    files: &Arc<dyn Files>,
    dir: &Path,
    now: Timestamp,
    database: Result<Option<Balances>, ProjectionError>,
) -> Result<Recovered, LedgerError> {
    let mut recovery = Recovery::default();
    let mut chain = Vec::new();
    let numbers = files.segments().map_err(LedgerError::io(dir))?;
    // From the newest segment back to the first one that begins with a readable checkpoint.
    for number in numbers.iter().rev() {
        let segment = read_segment(files.as_ref(), *number)?;
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
    let Replayed {
        mut book,
        escrow,
        life,
        next_seq,
    } = replay(files.as_ref(), &mut chain, now, &mut recovery)?;
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
    let after = numbers.last().map_or(1, |newest| newest.saturating_add(1));
    let (segment, next_seq) = match database {
        // The database knows of more than the journal: power was lost under a disk that did not keep its word, or the
        // journal was removed. What the database knows counts.
        Some(known) if end.is_none_or(|end| end < known.position) => {
            recovery.from_database = true;
            book.seed(known.balances);
            sqlite::close_lost(dir)?;
            let after = after.max(known.position.segment.saturating_add(1));
            (after, next_seq.max(known.next_seq))
        }
        Some(_) | None => (after, next_seq),
    };
    // This time was not looked at yet: it is no measure for the next start.
    let boot = life.boot.map(|boot| Boot { ticks: 0, ..boot });
    let checkpoint = book.checkpoint(now.as_microsecond(), escrow.standing(), boot);
    // Always a segment of its own: what the last process wrote need not be on disk, and after an fsync that failed it
    // never comes there although it can be read.
    let begun = Journal::create(files, segment, next_seq, &checkpoint);
    let journal = match (begun, last) {
        (Ok(journal), Some(_)) => journal,
        // On disk before anything follows it: records without a checkpoint before them are of no use.
        (Ok(journal), None) => journal.on_disk().map_err(LedgerError::io(files.path(segment)))?,
        // A full disk must not keep the daemon from starting: nothing is admitted until there is room.
        (Err(error), Some(last)) if last.format == Format::Binary && !recovery.from_database => {
            tracing::warn!(%error, "no new segment of the journal could be begun; the old one grows");
            resume(files, &chain, last, next_seq)?
        }
        (Err(error), _) => return Err(LedgerError::io(files.path(segment))(error)),
    };
    Ok(Recovered {
        book,
        escrow,
        last: life,
        journal,
        recovery,
    })
}

/// Goes on in the last segment.
fn resume(
    files: &Arc<dyn Files>,
    chain: &[Segment],
    last: &Segment,
    next_seq: u64,
) -> Result<Journal, LedgerError> {
    let mut older = Vec::new();
    for segment in chain.iter().filter(|segment| segment.number != last.number) {
        let storage = files.resume(segment.number);
        older.push(storage.map_err(LedgerError::io(files.path(segment.number)))?);
    }
    let journal = Journal::resume(files, last.number, last.end, next_seq);
    let mut journal = journal.map_err(LedgerError::io(files.path(last.number)))?;
    journal.after(older);
    Ok(journal)
}

/// What the records of a chain of segments come to.
struct Replayed {
    book: Book,
    escrow: Escrow,
    life: LastLife,
    next_seq: u64,
}

/// Applies the records of these segments in their order.
fn replay(
    files: &dyn Files,
    chain: &mut [Segment],
    now: Timestamp,
    recovery: &mut Recovery,
) -> Result<Replayed, LedgerError> {
    let mut all = Replayed {
        book: Book::default(),
        escrow: Escrow::default(),
        life: LastLife::default(),
        next_seq: 1,
    };
    for segment in chain {
        keep_aside(files, segment, now, recovery)?;
        for record in segment.records.drain(..) {
            match record {
                // Behind a checkpoint that has it already: what a segment held before it was written over.
                Some(numbered) if numbered.seq < all.next_seq => recovery.damaged += 1,
                Some(numbered) => {
                    recovery.replayed += 1;
                    all.next_seq = numbered.seq.saturating_add(1);
                    all.escrow.replay(&numbered);
                    if let Record::Forget { scope, .. } = &numbered.record {
                        all.escrow.forget(|account| account.belongs_to(scope));
                    }
                    all.life.replay(&numbered.record);
                    all.book.replay(numbered);
                }
                None => recovery.damaged += 1,
            }
        }
    }
    Ok(all)
}

fn read_segment(files: &dyn Files, number: u64) -> Result<Segment, LedgerError> {
    let bytes = files.read(number).map_err(LedgerError::io(files.path(number)))?;
    let contents = frames::read(&bytes);
    Ok(Segment {
        number,
        format: Format::of(&bytes),
        records: contents.records,
        end: u64::try_from(contents.end).unwrap_or(u64::MAX),
        tail: bytes.get(contents.end..).unwrap_or_default().to_vec(),
    })
}

/// Copies an unfinished tail to a file of its own, then cuts it off.
fn keep_aside(
    files: &dyn Files,
    segment: &Segment,
    now: Timestamp,
    recovery: &mut Recovery,
) -> Result<(), LedgerError> {
    if segment.tail.is_empty() {
        return Ok(());
    }
    let path = files.path(segment.number);
    let aside = format!("journal-{:08}.torn-{}", segment.number, now.as_microsecond());
    files
        .keep(&aside, &segment.tail)
        .and_then(|()| files.resume(segment.number)?.set_len(segment.end))
        .map_err(LedgerError::io(path))?;
    recovery.torn_bytes = recovery
        .torn_bytes
        .saturating_add(u64::try_from(segment.tail.len()).unwrap_or(u64::MAX));
    tracing::warn!(%aside, bytes = segment.tail.len(), "the journal ended inside a record; the rest was kept aside");
    Ok(())
}
