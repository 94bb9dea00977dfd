-- Schema 1. One row is one arrival and what became of it: the record of edge_agent/records.py, with the same names.
-- JSON stands in scores, findings and quality. Times are RFC 3339 in UTC with all six digits, so that text order is time order.

CREATE TABLE record (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, also not after a deletion
    source          TEXT NOT NULL,
    path            TEXT NOT NULL,                      -- relative to the inbox; bytes that are not UTF-8 as \xff
    sha256          TEXT NOT NULL,                      -- '' where the file could not be read at all
    received_at     TEXT NOT NULL,
    finished_at     TEXT NOT NULL,
    status          TEXT NOT NULL CHECK (status IN ('done', 'rejected')),
    reason_code     TEXT,
    reason_message  TEXT,
    model_name      TEXT,
    model_version   TEXT,
    model_digest    TEXT,
    scores          TEXT NOT NULL,
    label           TEXT,
    findings        TEXT NOT NULL,
    decision        TEXT CHECK (decision IN ('positive', 'negative', 'review')),
    novelty         REAL,
    quality         TEXT NOT NULL,
    duplicate_of    INTEGER REFERENCES record (id),
    queue_ms        REAL,
    decode_ms       REAL,
    preprocess_ms   REAL,
    invoke_ms       REAL,
    head_ms         REAL,
    commit_ms       REAL,
    total_ms        REAL,

    -- The file that arrived, as lstat saw it: how it is known again after a crash.
    path_bytes      BLOB,                               -- its true path, only where that is not UTF-8
    size_bytes      INTEGER NOT NULL,
    mtime_ns        INTEGER NOT NULL,
    ctime_ns        INTEGER NOT NULL,
    inode           INTEGER NOT NULL,
    disposed        INTEGER NOT NULL DEFAULT 0          -- 1: moved, deleted or kept, as the configuration says
);

CREATE INDEX record_sha256 ON record (sha256);
CREATE INDEX record_path ON record (path);
CREATE INDEX record_finished_at ON record (finished_at);
CREATE INDEX record_undisposed ON record (id) WHERE disposed = 0;

-- What the agent notes for itself and for `edge-agent status`.
CREATE TABLE note (
    name   TEXT PRIMARY KEY,
    value  TEXT NOT NULL
) WITHOUT ROWID;
