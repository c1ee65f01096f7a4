-- The trace context of the code that enqueued the job, as its callers' propagator writes it (W3C: traceparent, tracestate).
-- Only jobs that were enqueued inside a trace have one.
ALTER TABLE jobrunner_jobs ADD COLUMN trace TEXT;
ALTER TABLE jobrunner_dead_letters ADD COLUMN trace TEXT;

-- What attempts report about their progress. A table beside the jobs: a report is written twice a second, and must not
-- write the job's arguments again, which may have a megabyte. The lease names the attempt, so a row of an earlier attempt
-- counts no longer, and a claim need not remove it.
CREATE TABLE jobrunner_progress (
    job INTEGER PRIMARY KEY, -- the job's seq
    lease INTEGER NOT NULL,
    value TEXT NOT NULL -- JSON: [done, total, message]
) STRICT;

-- The processes that wait for changes of jobs, beside those whose worker has a row: others that only enqueue wait too.
CREATE TABLE jobrunner_watchers (
    watcher INTEGER PRIMARY KEY, -- random 63 bits per open runner
    doorbell TEXT NOT NULL,
    jobs TEXT NOT NULL, -- JSON: the ids of the jobs that it waits for
    beat_at INTEGER NOT NULL -- a process that was killed leaves its row, which is deleted when this is old
) STRICT;
