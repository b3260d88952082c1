-- ledger.db: read it freely (it is in WAL mode, readers never block the daemon); never write to it.
-- Money is in whole pico-dollars: 1,000,000,000,000 are one US dollar. Times are RFC 3339, UTC.

-- One row per reservation. A call usually has one.
CREATE TABLE IF NOT EXISTS calls (
  id                INTEGER PRIMARY KEY, -- number of the reservation's record in the journal
  call              TEXT    NOT NULL,    -- the call's id, as in the audit records and in refusals
  reserved_at       TEXT    NOT NULL,
  reserved_pico_usd INTEGER NOT NULL,    -- worst case that was set aside
  ended_at          TEXT,                -- NULL while the call is in flight
  cost_pico_usd     INTEGER,             -- what was booked
  outcome           TEXT,                -- settled; released (nothing booked);
                                         -- abandoned, recovered (booked in full: dropped, or the daemon died);
                                         -- power_lost (no call: what may have been spent under an account's lease)
  reserved_tokens   INTEGER,             -- the same in tokens; NULL for a call before version 2 of this file
  booked_tokens     INTEGER,
  booked_calls      INTEGER,             -- 1 if it counts in limits on calls: it reached the provider
  agent             TEXT,                -- the rest is NULL where it is not known: before version 2, or after a crash
  owner             TEXT,
  run               TEXT,
  session           TEXT,                -- the client's own label
  provider          TEXT,
  model             TEXT,                -- by its name in the price table
  key               TEXT,                -- name of the provider's key
  cause             TEXT,                -- useful, retried, failed, looping: what the money did
  status            INTEGER,             -- of the provider's answer
  input_tokens      INTEGER,             -- as the provider reported them; the buckets do not overlap,
  cache_read_tokens INTEGER,
  cache_write_tokens INTEGER,
  output_tokens     INTEGER,
  reasoning_tokens  INTEGER              -- except that reasoning is part of the output
) STRICT;
CREATE INDEX IF NOT EXISTS calls_by_call ON calls (call);
CREATE INDEX IF NOT EXISTS calls_by_time ON calls (reserved_at);

-- Which tools the model called in a reply.
CREATE TABLE IF NOT EXISTS call_tools (
  call_id    INTEGER NOT NULL REFERENCES calls (id),
  tool       TEXT    NOT NULL,
  PRIMARY KEY (call_id, tool)
) STRICT, WITHOUT ROWID;

-- One row per scope, window and unit. A call is booked to the windows in which it was reserved.
CREATE TABLE IF NOT EXISTS accounts (
  id                INTEGER PRIMARY KEY,
  kind              TEXT    NOT NULL,    -- agent, owner, run, session, key, model, host
  name              TEXT    NOT NULL,
  time_window       TEXT    NOT NULL,    -- run, hour, day, week, month, rolling:LENGTH (one row a bucket)
  unit              TEXT    NOT NULL,    -- usd (in pico-dollars), tokens, calls
  starts_us         INTEGER NOT NULL,    -- microseconds since 1970; 0 for a run
  ends_us           INTEGER NOT NULL,
  starts_at         TEXT,                -- NULL for a run
  ends_at           TEXT,
  settled           INTEGER NOT NULL,    -- in its unit
  reserved          INTEGER NOT NULL,    -- by calls in flight
  UNIQUE (kind, name, time_window, unit, starts_us)
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
  SELECT id, call, reserved_at, reserved_pico_usd / 1e12 AS reserved_usd, ended_at, cost_pico_usd / 1e12 AS cost_usd, outcome,
         agent, owner, run, session, provider, model, key, cause
  FROM calls;

CREATE VIEW IF NOT EXISTS accounts_usd AS
  SELECT kind, name, time_window, starts_at, ends_at, settled / 1e12 AS settled_usd, reserved / 1e12 AS reserved_usd
  FROM accounts WHERE unit = 'usd';

PRAGMA user_version = 2;
