-- Schema 2: what is in hand, and what a person must learn of.

-- A file that was given to a worker and has no record yet. Written before the attempt: a file that kills the process is found here at the
-- next start. The row goes when the record comes.
CREATE TABLE attempt (
    path        TEXT PRIMARY KEY,                       -- as record.path
    size_bytes  INTEGER NOT NULL,                       -- a file with another size or date is another file
    mtime_ns    INTEGER NOT NULL,
    in_hand     INTEGER NOT NULL,                       -- 1: an attempt has begun and not ended
    crashes     INTEGER NOT NULL DEFAULT 0,             -- how often the process died of a signal meanwhile
    deaths      INTEGER NOT NULL DEFAULT 0              -- how often it ended otherwise: kill -9, a power cut
) WITHOUT ROWID;

-- The newest 1000 only.
CREATE TABLE event (
    id       INTEGER PRIMARY KEY,
    at       TEXT NOT NULL,
    code     TEXT NOT NULL,                             -- for programs, stable
    message  TEXT NOT NULL                              -- for people, with the next step
);

-- A first record may go only after those that repeat it; without an index each deletion would read the whole table.
CREATE INDEX record_duplicate_of ON record (duplicate_of) WHERE duplicate_of IS NOT NULL;

-- One row for each day that the agent knows to have passed, with the newest record of that moment: how old a record is must not hang on a
-- clock that somebody may set wrong (edge_agent/database/calendar.py).
CREATE TABLE day (
    number   INTEGER PRIMARY KEY,
    last_id  INTEGER NOT NULL
);
