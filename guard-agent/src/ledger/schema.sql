-- ledger.db: read it freely (it is in WAL mode, readers never block the daemon); never write to it.
-- Amounts are whole pico-dollars: 1,000,000,000,000 are one US dollar. Times are RFC 3339, UTC.

-- One row per reservation. A call usually has one.
CREATE TABLE IF NOT EXISTS calls (
  id                INTEGER PRIMARY KEY, -- number of the reservation's record in the journal
  call              TEXT    NOT NULL,    -- the call's id, as in the audit records and in refusals
  reserved_at       TEXT    NOT NULL,
  reserved_pico_usd INTEGER NOT NULL,    -- worst case that was set aside
  ended_at          TEXT,                -- NULL while the call is in flight
  cost_pico_usd     INTEGER,             -- what was booked
  outcome           TEXT                 -- settled; released (nothing booked);
                                         -- abandoned, recovered (booked in full: dropped, or the daemon died);
                                         -- power_lost (no call: what may have been spent under an account's lease)
) STRICT;
CREATE INDEX IF NOT EXISTS calls_by_call ON calls (call);
CREATE INDEX IF NOT EXISTS calls_by_time ON calls (reserved_at);

-- One row per scope and window. A call is booked to the windows in which it was reserved.
CREATE TABLE IF NOT EXISTS accounts (
  id                INTEGER PRIMARY KEY,
  kind              TEXT    NOT NULL,    -- agent, owner, run, session, key, model, host
  name              TEXT    NOT NULL,
  time_window       TEXT    NOT NULL,    -- run, hour, day, week, month, rolling:LENGTH (one row a bucket)
  starts_us         INTEGER NOT NULL,    -- microseconds since 1970; 0 for a run
  ends_us           INTEGER NOT NULL,
  starts_at         TEXT,                -- NULL for a run
  ends_at           TEXT,
  settled_pico_usd  INTEGER NOT NULL,
  reserved_pico_usd INTEGER NOT NULL,    -- by calls in flight
  UNIQUE (kind, name, time_window, starts_us)
) STRICT;

-- Which accounts a call is booked to.
CREATE TABLE IF NOT EXISTS charges (
  call_id    INTEGER NOT NULL REFERENCES calls (id),
  account_id INTEGER NOT NULL REFERENCES accounts (id),
  PRIMARY KEY (call_id, account_id)
) STRICT, WITHOUT ROWID;

-- How far this projection has read the journal.
CREATE TABLE IF NOT EXISTS journal_position (
  id          INTEGER PRIMARY KEY CHECK (id = 1),
  segment     INTEGER NOT NULL,
  byte_offset INTEGER NOT NULL,
  next_seq    INTEGER NOT NULL
) STRICT;

CREATE VIEW IF NOT EXISTS calls_usd AS
  SELECT id, call, reserved_at, reserved_pico_usd / 1e12 AS reserved_usd, ended_at, cost_pico_usd / 1e12 AS cost_usd, outcome
  FROM calls;

CREATE VIEW IF NOT EXISTS accounts_usd AS
  SELECT kind, name, time_window, starts_at, ends_at,
         settled_pico_usd / 1e12 AS settled_usd, reserved_pico_usd / 1e12 AS reserved_usd
  FROM accounts;

PRAGMA user_version = 1;
