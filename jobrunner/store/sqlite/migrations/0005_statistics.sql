-- What operators ask first, each from an index of its own: the jobs that wait for another attempt, and the last ones that
-- were cancelled or expired. A job that succeeds at its first attempt never has an entry here.
CREATE INDEX jobrunner_jobs_retrying ON jobrunner_jobs (run_at) WHERE state = 'scheduled' AND attempt > 0;
CREATE INDEX jobrunner_jobs_cancelled ON jobrunner_jobs (finished_at) WHERE state = 'cancelled';
CREATE INDEX jobrunner_jobs_expired ON jobrunner_jobs (finished_at) WHERE state = 'expired';

-- Groups dead letters that failed in the same way. NULL in letters of older versions until a chore has filled it in.
ALTER TABLE jobrunner_dead_letters ADD COLUMN fingerprint TEXT;
CREATE INDEX jobrunner_dead_letters_groups ON jobrunner_dead_letters (fingerprint, died_at)
    WHERE replayed_as IS NULL;

-- What ended in each minute, and in each hour. Workers add to the minutes about once a second, so a process that is killed
-- loses the statistics of its last second. Minutes before `rolled_up_until` in jobrunner_meta are part of their hours.
--
-- A row with an empty task is the sum of its queue's tasks, and the one with an empty queue too the sum of all: they are the
-- first rows of each minute, so that a chart does not read a row for each task.
CREATE TABLE jobrunner_minutes (
    start INTEGER NOT NULL, -- the first microsecond
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL, -- attempts, not jobs
    dead INTEGER NOT NULL,
    wait BLOB NOT NULL, -- histogram of the time from due to started
    run BLOB NOT NULL, -- histogram of the time from started to ended
    PRIMARY KEY (start, task, queue)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobrunner_hours (
    start INTEGER NOT NULL,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    wait BLOB NOT NULL,
    run BLOB NOT NULL,
    PRIMARY KEY (start, task, queue)
) STRICT, WITHOUT ROWID;

-- Who changed something over HTTP, on a page or on the command line.
CREATE TABLE jobrunner_audit (
    entry INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of the changes
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT, -- the id of a job or schedule, or the name of a queue
    filter TEXT, -- JSON: which jobs or dead letters it changed
    count INTEGER, -- how many it changed; NULL until it has ended
    reason TEXT CHECK (length(reason) <= 500)
) STRICT;

ALTER TABLE jobrunner_workers ADD COLUMN revision INTEGER;
