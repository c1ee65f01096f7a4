-- Jobs of a task with limits per key lie in a lane, `task[key]`. Only they have the new columns. What decides about a claim
-- are the running rows of a lane and its bucket: jobrunner_lanes is a list of where a claim should look, made from the
-- jobs, and may be emptied at any time.
ALTER TABLE jobrunner_jobs ADD COLUMN lane TEXT;
ALTER TABLE jobrunner_jobs ADD COLUMN ordered INTEGER; -- 1: runs only after all older jobs of its lane
ALTER TABLE jobrunner_dead_letters ADD COLUMN lane TEXT;
ALTER TABLE jobrunner_dead_letters ADD COLUMN ordered INTEGER;

-- Without the jobs in lanes, so that a hundred thousand of them behind a full lane cost the claim of others nothing.
DROP INDEX jobrunner_jobs_queued;
CREATE INDEX jobrunner_jobs_queued ON jobrunner_jobs (queue, task, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 0 AND lane IS NULL;
DROP INDEX jobrunner_jobs_claim;
CREATE INDEX jobrunner_jobs_claim ON jobrunner_jobs (queue, priority DESC, run_at)
    WHERE state = 'queued' AND suspect = 0 AND lane IS NULL;
-- In the conditions the lane comes first, which ends their test at once for rows without one.
CREATE INDEX jobrunner_jobs_laned ON jobrunner_jobs (queue, task, lane, priority DESC, run_at)
    WHERE lane IS NOT NULL AND state = 'queued' AND suspect = 0;
CREATE INDEX jobrunner_jobs_in_lane ON jobrunner_jobs (lane)
    WHERE lane IS NOT NULL AND state = 'running';
CREATE INDEX jobrunner_jobs_ordered ON jobrunner_jobs (lane)
    WHERE ordered = 1 AND (state = 'scheduled' OR state = 'queued' OR state = 'running');

-- With the queue and the task, so that running jobs are counted for limits without reading their rows.
DROP INDEX jobrunner_jobs_running;
CREATE INDEX jobrunner_jobs_running ON jobrunner_jobs (worker, queue, task) WHERE state = 'running';

-- The lanes with queued jobs, once for each of their queues.
CREATE TABLE jobrunner_lanes (
    id INTEGER PRIMARY KEY,
    lane TEXT NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    ordered INTEGER NOT NULL CHECK (ordered = 0 OR ordered = 1),
    priority INTEGER NOT NULL, -- of its next job
    turn INTEGER NOT NULL, -- lanes of one priority take turns: when its first job was due, then when a job last started
    state TEXT NOT NULL CHECK (
        state = 'open' -- a claim looks at it
        OR state = 'full' -- until a job of the lane ends or moves
        OR state = 'empty' -- its bucket, until `wake_at`
    ),
    wake_at INTEGER CHECK ((wake_at IS NOT NULL) = (state = 'empty')),
    UNIQUE (lane, queue)
) STRICT;

CREATE INDEX jobrunner_lanes_open ON jobrunner_lanes (queue, task, priority DESC, turn) WHERE state = 'open';
CREATE INDEX jobrunner_lanes_empty ON jobrunner_lanes (wake_at) WHERE state = 'empty';

-- Of a limit: 'queue' (its name), 'task' (its name), 'lanes' (a task: each of its lanes), 'lane' (this one).
-- The columns set_* were set at run time and count instead of those that the code declares.
CREATE TABLE jobrunner_limits (
    scope TEXT NOT NULL CHECK (scope = 'lane' OR scope = 'lanes' OR scope = 'queue' OR scope = 'task'),
    name TEXT NOT NULL,
    concurrency INTEGER CHECK (concurrency > 0),
    rate INTEGER CHECK (rate > 0),
    per INTEGER CHECK ((per IS NULL) = (rate IS NULL)),
    burst INTEGER CHECK ((burst IS NULL) = (rate IS NULL)),
    max_waiting INTEGER CHECK (max_waiting > 0),
    revision INTEGER, -- of the code that declares it; NULL if none does
    set_concurrency INTEGER CHECK (set_concurrency > 0),
    set_rate INTEGER CHECK (set_rate > 0),
    set_per INTEGER CHECK ((set_per IS NULL) = (set_rate IS NULL)),
    set_burst INTEGER CHECK ((set_burst IS NULL) = (set_rate IS NULL)),
    set_max_waiting INTEGER CHECK (set_max_waiting > 0),
    set_at INTEGER,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;

-- A rate's bucket is full again at `full_at`; one without a row is full.
CREATE TABLE jobrunner_buckets (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    full_at INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
