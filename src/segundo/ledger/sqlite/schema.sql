-- Version 1. Later versions only add. Times are unix seconds (REAL); payloads are JSON texts.
-- STRICT, and the CHECKs, keep out what no Segundo writes. What comes all the same stops nobody (tests/security).
-- A CHECK stands in the way of each write of its column: never of one that counts up, which must not fail.

CREATE TABLE records (
    id               TEXT    NOT NULL PRIMARY KEY,  -- sorts by time, so rows are appended
    task             TEXT    NOT NULL,
    queue            TEXT    NOT NULL,
    priority         INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),  -- 9 first
    state            TEXT    NOT NULL CHECK (       -- each compared: IN (…) would make a table for each write
        state = 'running' OR state = 'succeeded' OR state = 'waiting' OR state = 'queued'
        OR state = 'failed' OR state = 'cancelled'),
    reason           TEXT,
    owner            TEXT,                          -- who answers for the row: its request, or its attempt
    claim            INTEGER NOT NULL DEFAULT 0,    -- the fence; only grows
    failures         INTEGER NOT NULL DEFAULT 0,    -- what retries spend; only grows
    crashes          INTEGER NOT NULL DEFAULT 0,    -- what the crash budget spends; only grows
    attempts         INTEGER,                       -- how many in all; NULL: without limit
    crash_limit      INTEGER NOT NULL,
    key              TEXT,
    same_as          TEXT,
    retry_of         TEXT,
    format           INTEGER NOT NULL,              -- of the payloads
    arguments        TEXT,
    carried          TEXT,
    result           TEXT,
    error            TEXT,
    progress         TEXT,
    retention        REAL,                          -- seconds to keep it once ended; NULL: for ever
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    created_at       REAL    NOT NULL,
    run_at           REAL    NOT NULL,
    started_at       REAL,
    finished_at      REAL,                          -- set exactly when the state is terminal
    published_until  REAL,                          -- the relay's lease on a broker message
    timeout          REAL,                          -- seconds of one attempt; past it the attempt is overdue
    wipe             TEXT                           -- 'at the end' or 'secret': arguments go when it ends; NULL: they stay
) STRICT, WITHOUT ROWID;

-- What claim seeks: one lane per (queue, priority). Records that took a process down are claimed one at a time.
CREATE INDEX claimable ON records (queue, priority DESC, run_at, id) WHERE state = 'queued' AND crashes = 0;
CREATE INDEX suspects ON records (queue, priority DESC, run_at, id) WHERE state = 'queued' AND crashes > 0;
-- Which records a broker has a message about, and until when nobody publishes them again.
CREATE INDEX published ON records (queue, published_until) WHERE state = 'queued' AND published_until IS NOT NULL;
-- What beat and rescue read.
CREATE INDEX owned ON records (owner) WHERE owner IS NOT NULL;
-- At most one live record per (task, key).
CREATE UNIQUE INDEX live_keys ON records (task, key) WHERE key IS NOT NULL AND finished_at IS NULL;
-- What must stay when its own request is refused.
CREATE INDEX duplicates ON records (same_as) WHERE same_as IS NOT NULL;
-- What prune reads, and what a person looks for first.
CREATE INDEX expiring ON records (finished_at + retention) WHERE finished_at IS NOT NULL AND retention IS NOT NULL;
CREATE INDEX failed ON records (id) WHERE state = 'failed';

-- What still waits for what: a row lives as long as the record before it.
CREATE TABLE links (
    before     TEXT NOT NULL,
    after      TEXT NOT NULL,
    on_failure TEXT NOT NULL CHECK (on_failure IN ('cancel', 'run')),
    PRIMARY KEY (before, after)
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_after ON links (after);

-- Processes that own records. A worker is alive while it holds the lock on byte `number` of the lock file.
CREATE TABLE workers (
    number     INTEGER PRIMARY KEY AUTOINCREMENT CHECK (number BETWEEN 1 AND 1000000000),
    id         TEXT    NOT NULL UNIQUE,
    host       TEXT    NOT NULL,
    pid        INTEGER NOT NULL,
    durability TEXT    NOT NULL,                    -- of its commits, for `doctor`: 'full' or 'normal'
    started_at REAL    NOT NULL,
    stopping   INTEGER NOT NULL DEFAULT 0 CHECK (stopping IN (0, 1))
) STRICT;

CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
