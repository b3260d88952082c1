-- From version 1, which knew money only, to version 2.
PRAGMA foreign_keys = OFF;
BEGIN IMMEDIATE;
DROP VIEW IF EXISTS accounts_usd;
DROP VIEW IF EXISTS calls_usd;
CREATE TABLE accounts_2 (
  id                INTEGER PRIMARY KEY,
  kind              TEXT    NOT NULL,
  name              TEXT    NOT NULL,
  time_window       TEXT    NOT NULL,
  unit              TEXT    NOT NULL,
  starts_us         INTEGER NOT NULL,
  ends_us           INTEGER NOT NULL,
  starts_at         TEXT,
  ends_at           TEXT,
  settled           INTEGER NOT NULL,
  reserved          INTEGER NOT NULL,
  UNIQUE (kind, name, time_window, unit, starts_us)
) STRICT;
INSERT INTO accounts_2
  SELECT id, kind, name, time_window, 'usd', starts_us, ends_us, starts_at, ends_at, settled_pico_usd, reserved_pico_usd
  FROM accounts;
DROP TABLE accounts;
ALTER TABLE accounts_2 RENAME TO accounts;
ALTER TABLE calls ADD COLUMN reserved_tokens INTEGER;
ALTER TABLE calls ADD COLUMN booked_tokens INTEGER;
ALTER TABLE calls ADD COLUMN booked_calls INTEGER;
ALTER TABLE calls ADD COLUMN agent TEXT;
ALTER TABLE calls ADD COLUMN owner TEXT;
ALTER TABLE calls ADD COLUMN run TEXT;
ALTER TABLE calls ADD COLUMN session TEXT;
ALTER TABLE calls ADD COLUMN provider TEXT;
ALTER TABLE calls ADD COLUMN model TEXT;
ALTER TABLE calls ADD COLUMN key TEXT;
ALTER TABLE calls ADD COLUMN cause TEXT;
ALTER TABLE calls ADD COLUMN status INTEGER;
ALTER TABLE calls ADD COLUMN input_tokens INTEGER;
ALTER TABLE calls ADD COLUMN cache_read_tokens INTEGER;
ALTER TABLE calls ADD COLUMN cache_write_tokens INTEGER;
ALTER TABLE calls ADD COLUMN output_tokens INTEGER;
ALTER TABLE calls ADD COLUMN reasoning_tokens INTEGER;
PRAGMA user_version = 2;
COMMIT;
PRAGMA foreign_keys = ON;
