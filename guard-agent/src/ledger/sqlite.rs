//! `ledger.db`: a projection of the journal that people may query; never on a call's path.
//!
//! In: the journal's bytes, read back from its files as far as they are on disk. Out: tables `calls`, `charges`,
//! `accounts`, and views in dollars (`ledger/schema.sql` documents every column). On failure: a warning; the projection
//! lags, the journal keeps growing, nothing is lost, and the next try catches up.
//!
//! The place in the journal is stored in the transaction that stores its records, so each counts exactly once. The
//! thread is woken through a queue of one token: what it reads is the journal, so a full queue loses nothing.
//! A segment is removed only when a commit that is on disk (`synchronous = FULL`) has passed its end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::book::AccountId;
use super::files::{Files, segment_path};
use super::frames::{Format, Step, step};
use super::journal::Position;
use super::record::{Balance, Numbered};
use super::rows;
use super::{Inner, LedgerError, Scope, ScopeKind, Unit, Window};

/// How long the thread gathers records before it commits: a quarter of a second behind the journal is soon enough
/// for a report, and bounds what a power loss can take.
const GATHER: Duration = Duration::from_millis(250);
/// Bytes of the journal taken into one transaction.
const BATCH_BYTES: u64 = 1 << 20;
const FILE: &str = "ledger.db";

/// What the database knew when the ledger was opened.
pub(super) struct Balances {
    pub position: Position,
    pub next_seq: u64,
    pub balances: Vec<Balance>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectionError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}: {1}")]
    Io(PathBuf, std::io::Error),
}

impl ProjectionError {
    /// The file is no database, or a damaged one: trying again will not help.
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self, Self::Sqlite(e) if matches!(e.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)))
    }

    /// As the error with which opening the ledger fails.
    pub(super) fn into_ledger_error(self, dir: &Path) -> LedgerError {
        LedgerError::Database {
            path: dir.join(FILE),
            message: self.to_string(),
        }
    }
}

/// The database can't be read, but the journal can: a damaged file is put aside, and the thread makes a new one from
/// the journal. Without that the reports would end, and the journal would grow, for ever.
pub(super) fn set_aside(dir: &Path, error: &ProjectionError, now: Timestamp) -> Result<(), LedgerError> {
    tracing::warn!(%error, "ledger.db cannot be read; the journal is the truth, and budgets hold");
    if !error.is_damage() {
        return Ok(());
    }
    for suffix in ["", "-wal", "-shm"] {
        let from = dir.join(format!("{FILE}{suffix}"));
        let to = dir.join(format!("{FILE}.damaged-{}{suffix}", now.as_microsecond()));
        if from.exists() {
            std::fs::rename(&from, to).map_err(LedgerError::io(from))?;
        }
    }
    Ok(())
}

/// The thread that keeps the database.
pub(super) struct Projector {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Projector {
    pub(super) fn start(dir: PathBuf, inner: Arc<Inner>) -> Result<Self, LedgerError> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("ledger-db".into())
            .spawn(move || run(&dir, &inner, &woken))
            .map_err(LedgerError::io("the ledger-db thread"))?;
        Ok(Self { wake, thread })
    }

    /// There is something to project. Never blocks.
    pub(super) fn wake(&self) {
        match self.wake.try_send(()) {
            // Full: the thread has not taken the last token yet and will see this record too. Disconnected: it ended.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Lets the thread catch up once more and waits for it.
    pub(super) fn stop(self) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("the ledger-db thread panicked; ledger.db catches up at the next start");
        }
    }
}

fn run(dir: &Path, inner: &Inner, woken: &Receiver<()>) {
    let mut connection = None;
    let mut failing = false;
    loop {
        let last = match woken.recv_timeout(GATHER.saturating_mul(4)) {
            Ok(()) => match woken.recv_timeout(GATHER) {
                Err(RecvTimeoutError::Disconnected) => true,
                Ok(()) | Err(RecvTimeoutError::Timeout) => false,
            },
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        match catch_up(dir, inner, &mut connection) {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "ledger.db lags behind the journal; it will be tried again");
                }
                failing = true;
                connection = None;
            }
        }
        if last {
            return;
        }
    }
}

/// Projects everything that is complete, begins a new segment when the current one is long, removes what is projected.
fn catch_up(dir: &Path, inner: &Inner, slot: &mut Option<Connection>) -> Result<(), ProjectionError> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(open(dir)?),
    };
    let end = {
        let mut state = inner.lock();
        // What waits for a journal that could not be written is tried again even when no call comes.
        if state.flush().is_err() {
            tracing::debug!("the ledger's journal still cannot be written");
        }
        state.synced.0
    };
    let mut at = position(connection)?;
    if at == Some(end) || end == Position::default() {
        return Ok(());
    }
    let files = inner.files.as_ref();
    let known = files.segments().map_err(|e| ProjectionError::Io(dir.into(), e))?;
    let start = at.map_or(0, |at| at.segment);
    for segment in known.into_iter().filter(|s| (start..=end.segment).contains(s)) {
        at = Some(project_segment(dir, connection, segment, at, end)?);
    }
    remove_projected(files, dir, at)
}

/// Removes segments that the database holds entirely and that recovery does not need: those before the one it is in.
fn remove_projected(files: &dyn Files, dir: &Path, at: Option<Position>) -> Result<(), ProjectionError> {
    let Some(at) = at else { return Ok(()) };
    let io = |path: &Path| {
        let path = path.to_owned();
        move |e| ProjectionError::Io(path, e)
    };
    let old: Vec<_> = files
        .segments()
        .map_err(io(dir))?
        .into_iter()
        .filter(|s| *s < at.segment)
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    for segment in old {
        files.remove(segment).map_err(io(&files.path(segment)))?;
    }
    Ok(())
}

/// Projects one segment from where the database stands to its end (or to `end`, in the last one).
fn project_segment(
    dir: &Path,
    connection: &mut Connection,
    segment: u64,
    from: Option<Position>,
    end: Position,
) -> Result<Position, ProjectionError> {
    let path = segment_path(dir, segment);
    let io = |e| ProjectionError::Io(path.clone(), e);
    let file = File::open(&path).map_err(io)?;
    let limit = if segment == end.segment {
        end.offset
    } else {
        file.metadata().map_err(io)?.len()
    };
    let mut at = from
        .filter(|p| p.segment == segment)
        .unwrap_or(Position { segment, offset: 0 });
    let fresh = from.is_none();
    let format = format(&file).map_err(io)?;
    while at.offset < limit {
        let (records, used) = batch(&file, format, at.offset, limit).map_err(io)?;
        let transaction = connection.transaction()?;
        for numbered in &records {
            rows::apply(&transaction, numbered, fresh)?;
        }
        let next_seq = records.last().map(|last| last.seq.saturating_add(1));
        at.offset = at.offset.saturating_add(used);
        store_position(&transaction, at, next_seq)?;
        transaction.commit()?;
    }
    Ok(at)
}

fn format(file: &File) -> std::io::Result<Format> {
    let mut first = [0; 1];
    file.read_exact_at(&mut first, 0)?;
    Ok(Format::of(&first))
}

/// The records that begin at a place, about a batch of them, and how many bytes they take; `limit` ends the last one.
fn batch(file: &File, format: Format, offset: u64, limit: u64) -> std::io::Result<(Vec<Numbered>, u64)> {
    let mut want = BATCH_BYTES.min(limit - offset);
    loop {
        let mut bytes = vec![0; usize::try_from(want).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, offset)?;
        let complete = want == limit - offset;
        let (mut records, mut used) = (Vec::new(), 0);
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            match step(format, rest, complete) {
                Step::Record(record, length) => {
                    records.push(record);
                    used += length;
                }
                Step::Damaged(length) => used += length,
                Step::More => break,
            }
        }
        if used > 0 || complete {
            return Ok((records, u64::try_from(used).unwrap_or(u64::MAX)));
        }
        // One record (a checkpoint) longer than a batch.
        want = want.saturating_mul(2).min(limit - offset);
    }
}

fn open(dir: &Path) -> Result<Connection, ProjectionError> {
    let connection = Connection::open(dir.join(FILE))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 1 {
        connection.execute_batch(include_str!("schema_from_1.sql"))?;
    }
    connection.execute_batch(include_str!("schema.sql"))?;
    Ok(connection)
}

fn position(connection: &Connection) -> Result<Option<Position>, ProjectionError> {
    let row = connection
        .query_row("SELECT segment, byte_offset FROM journal_position", [], |row| {
            Ok(Position {
                segment: row.get(0)?,
                offset: row.get(1)?,
            })
        })
        .optional()?;
    Ok(row)
}

fn store_position(
    transaction: &Transaction<'_>,
    at: Position,
    next_seq: Option<u64>,
) -> Result<(), ProjectionError> {
    transaction.prepare_cached(
        "INSERT INTO journal_position (id, segment, byte_offset, next_seq) VALUES (1, ?1, ?2, coalesce(?3, 1))
         ON CONFLICT (id) DO UPDATE SET segment = ?1, byte_offset = ?2, next_seq = coalesce(?3, next_seq)",
    )?
    .execute(params![at.segment, at.offset, next_seq])?;
    Ok(())
}

/// What the database knows, when there is one: where it stands, and every balance with its open reservations in full.
pub(super) fn balances(dir: &Path) -> Result<Option<Balances>, ProjectionError> {
    let path = dir.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let connection = open(dir)?;
    let Some(position) = position(&connection)? else {
        return Ok(None);
    };
    let next_seq = connection.query_row("SELECT next_seq FROM journal_position", [], |row| row.get(0))?;
    let mut statement = connection.prepare(
        "SELECT kind, name, time_window, starts_us, ends_us, settled + reserved, unit FROM accounts",
    )?;
    let rows = statement.query_map([], |row| {
        let (kind, name, window): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok((
            kind,
            name,
            window,
            row.get(3)?,
            row.get(4)?,
            row.get::<_, i64>(5)?,
            row.get::<_, String>(6)?,
        ))
    })?;
    let mut balances = Vec::new();
    for row in rows {
        let (kind, name, window, starts, ends, settled, unit) = row?;
        let unit = Unit::ALL.into_iter().find(|known| known.label() == unit);
        let kind = ScopeKind::ALL.into_iter().find(|k| k.label() == kind);
        let window = Window::parse(&window);
        if let (Some(kind), Some(window), Some(unit)) = (kind, window, unit) {
            let scope = Scope {
                kind,
                name: name.into(),
            };
            let account = AccountId {
                scope,
                window,
                unit,
                starts,
                ends,
            };
            balances.push(Balance {
                account,
                settled: settled.unsigned_abs(),
            });
        }
    }
    Ok(Some(Balances {
        position,
        next_seq,
        balances,
    }))
}

/// The journal of what is still open here is lost, and the balances above were taken: books those calls in full.
pub(super) fn close_lost(dir: &Path) -> Result<(), LedgerError> {
    let close = || -> Result<(), ProjectionError> {
        open(dir)?.execute_batch(
            "BEGIN;
             UPDATE accounts SET settled = settled + reserved, reserved = 0;
             UPDATE calls SET cost_pico_usd = reserved_pico_usd, booked_tokens = reserved_tokens, booked_calls = 1,
               outcome = 'recovered' WHERE outcome IS NULL;
             COMMIT;",
        )?;
        Ok(())
    };
    close().map_err(|error| error.into_ledger_error(dir))
}
