-- Members of a batch have its number; jobs that are in none have NULL in the new columns and no entry in the new indexes.
ALTER TABLE jobrunner_jobs ADD COLUMN batch INTEGER; -- the seq of its batch: shorter than the id, since it is in index entries
ALTER TABLE jobrunner_jobs ADD COLUMN handed TEXT; -- JSON: the job, or list of jobs, whose result each parameter takes
ALTER TABLE jobrunner_jobs ADD COLUMN on_dead TEXT; -- 'cancel': cancelled if the job before it in its chain dies
ALTER TABLE jobrunner_dead_letters ADD COLUMN batch INTEGER;
ALTER TABLE jobrunner_dead_letters ADD COLUMN handed TEXT;

-- A claim writes to none of the three: a member costs an entry in the first and, until it has ended, one in the second.
CREATE INDEX jobrunner_jobs_batch ON jobrunner_jobs (batch) WHERE batch IS NOT NULL;
CREATE INDEX jobrunner_jobs_batch_unfinished ON jobrunner_jobs (batch)
    WHERE batch IS NOT NULL
    AND (state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked');
CREATE INDEX jobrunner_jobs_batch_stopped ON jobrunner_jobs (batch)
    WHERE batch IS NOT NULL AND (state = 'cancelled' OR state = 'expired');
CREATE INDEX jobrunner_dead_letters_batch ON jobrunner_dead_letters (batch)
    WHERE batch IS NOT NULL AND replayed_as IS NULL;

CREATE TABLE jobrunner_batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused: a late outcome must not end another batch
    id TEXT NOT NULL UNIQUE,
    name TEXT,
    state TEXT NOT NULL CHECK (
        state = 'running' OR state = 'succeeded' OR state = 'failed' OR state = 'cancelled'
    ),
    created_at INTEGER NOT NULL,
    ended_at INTEGER, -- set by the commit that ends its last member; NULL again once a dead member is replayed
    cancelled_at INTEGER, -- set at once by a cancel; its waiting members are cancelled in slices
    parent TEXT, -- the id of the job that made it and waits for it
    deleted INTEGER NOT NULL DEFAULT 0, -- its dead letters that were deleted: it can never succeed
    CHECK ((ended_at IS NULL) = (state = 'running'))
) STRICT;

CREATE INDEX jobrunner_batches_parent ON jobrunner_batches (parent) WHERE parent IS NOT NULL;
CREATE INDEX jobrunner_batches_ended ON jobrunner_batches (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobrunner_batches_running ON jobrunner_batches (cancelled_at, state) WHERE state = 'running'; -- with the state, so that it alone answers counts
CREATE INDEX jobrunner_batches_name ON jobrunner_batches (name) WHERE name IS NOT NULL;

-- A blocked or parked job starts once no edge of it is open or broken. The state of an edge follows from what has become of
-- the thing that it needs, never from the order in which that was noticed.
CREATE TABLE jobrunner_edges (
    job TEXT NOT NULL, -- the id of the job that waits
    needs TEXT NOT NULL, -- the id of a job or a batch, or '!' and the name of a signal
    need TEXT NOT NULL CHECK (need = 'success' OR need = 'end' OR need = 'failure'),
    state INTEGER NOT NULL CHECK (
        state = -1 -- void: the job was cancelled on request or expired, whatever becomes of what it needs
        OR state = 0 -- met
        OR state = 1 -- open
        OR state = 2 -- broken: the job is cancelled, until what it needs is replayed
    ),
    PRIMARY KEY (job, needs)
) STRICT, WITHOUT ROWID;

CREATE INDEX jobrunner_edges_needs ON jobrunner_edges (needs, state);
CREATE INDEX jobrunner_edges_unmet ON jobrunner_edges (job) WHERE state > 0;

-- What one transaction left to later ones, since it would have held the write lock for too long; nearly always empty.
CREATE TABLE jobrunner_followups (
    id TEXT PRIMARY KEY, -- a job that has ended or was replayed while others wait for it, or a batch that was cancelled
    batch INTEGER -- the seq of the batch that does not end before this is done
) STRICT, WITHOUT ROWID;

CREATE INDEX jobrunner_followups_batch ON jobrunner_followups (batch) WHERE batch IS NOT NULL;

-- What a job remembers over its attempts. The kind is part of the key, so that a signal cannot pass for a step.
CREATE TABLE jobrunner_steps (
    job INTEGER NOT NULL, -- its seq, which a dead letter and its replay keep
    kind TEXT NOT NULL CHECK (
        kind = 'step' OR kind = 'signal' OR kind = 'sleep' OR kind = 'batch' OR kind = 'cursor'
    ),
    name TEXT NOT NULL,
    value TEXT, -- JSON; NULL in a signal that never came: the wait for it has timed out
    at INTEGER NOT NULL,
    PRIMARY KEY (job, kind, name)
) STRICT, WITHOUT ROWID;
