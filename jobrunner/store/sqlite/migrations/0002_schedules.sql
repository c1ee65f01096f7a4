-- Of the jobs, only those that a schedule made have the two new columns, so the index costs the others nothing.
ALTER TABLE jobrunner_jobs ADD COLUMN schedule TEXT;
ALTER TABLE jobrunner_jobs ADD COLUMN scheduled_for INTEGER;
ALTER TABLE jobrunner_dead_letters ADD COLUMN schedule TEXT;
ALTER TABLE jobrunner_dead_letters ADD COLUMN scheduled_for INTEGER;

CREATE INDEX jobrunner_jobs_schedule ON jobrunner_jobs (schedule)
    WHERE schedule IS NOT NULL
    AND (state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked');

CREATE TABLE jobrunner_schedules (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL CHECK (source = 'code' OR source = 'stored'),
    task TEXT NOT NULL,
    args TEXT NOT NULL,
    cron TEXT,
    timezone TEXT CHECK ((timezone IS NULL) = (cron IS NULL)),
    every INTEGER CHECK (every > 0),
    run_at INTEGER,
    start_at INTEGER,
    end_at INTEGER,
    options TEXT NOT NULL, -- JSON: the options of its jobs that differ from the task's
    misfire TEXT NOT NULL CHECK (misfire = 'latest' OR misfire = 'all' OR misfire = 'skip'),
    grace INTEGER,
    cap INTEGER NOT NULL,
    overlap TEXT NOT NULL CHECK (overlap = 'allow' OR overlap = 'skip'),
    jitter INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    edition INTEGER NOT NULL, -- one more with each change, but not with a tick
    paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
    disabled INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    created_at INTEGER NOT NULL,
    next INTEGER,
    last INTEGER, -- the last tick that was dealt with
    last_fired INTEGER,
    last_job TEXT,
    fired INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    CHECK ((cron IS NOT NULL) + (every IS NOT NULL) + (run_at IS NOT NULL) = 1)
) STRICT, WITHOUT ROWID;

-- The task leads, as with the jobs: a worker steps over schedules of tasks that it does not know in one seek.
CREATE INDEX jobrunner_schedules_next ON jobrunner_schedules (task, next)
    WHERE next IS NOT NULL AND paused = 0 AND disabled = 0;

-- The primary key is the promise that a tick fires once, however many processes look.
CREATE TABLE jobrunner_schedule_ticks (
    schedule TEXT NOT NULL,
    instant INTEGER NOT NULL,
    until INTEGER NOT NULL, -- a run of ticks that made no job is one row
    count INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (
        outcome = 'fired' OR outcome = 'missed' OR outcome = 'late' OR outcome = 'overlap' OR outcome = 'key'
    ),
    job TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY (schedule, instant)
) STRICT, WITHOUT ROWID;

CREATE INDEX jobrunner_schedule_ticks_at ON jobrunner_schedule_ticks (at);
