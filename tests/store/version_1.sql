BEGIN TRANSACTION;
CREATE TABLE jobrunner_attempts (
    job INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (
        outcome = 'succeeded' OR outcome = 'failed' OR outcome = 'timed_out' OR outcome = 'snoozed'
        OR outcome = 'cancelled' OR outcome = 'released' OR outcome = 'lost'
    ),
    error_type TEXT,
    error TEXT,
    traceback TEXT,
    PRIMARY KEY (job, lease)
) STRICT, WITHOUT ROWID;
INSERT INTO "jobrunner_attempts" VALUES(1,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(2,1,1,81985529216486895,1772600767000000,1772600767000000,'succeeded',NULL,NULL,NULL);
CREATE TABLE jobrunner_dead_letters (
    letter INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of death
    seq INTEGER NOT NULL UNIQUE,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    args TEXT NOT NULL,
    priority INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    started_at INTEGER,
    first_started_at INTEGER,
    key TEXT,
    tag TEXT,
    expires_at INTEGER,
    max_attempts INTEGER,
    timeout INTEGER,
    crashes INTEGER NOT NULL,
    replays INTEGER NOT NULL,
    replay_of TEXT,
    died_at INTEGER NOT NULL,
    reason TEXT NOT NULL CHECK (
        reason IN ('exhausted', 'buried', 'not_retryable', 'lost', 'unknown_task', 'invalid_args')
    ),
    error_type TEXT,
    error TEXT,
    traceback TEXT,
    replayed_as TEXT
) STRICT;
INSERT INTO "jobrunner_dead_letters" VALUES(1,1,'01936d2c-0000-7000-8000-000000000001','work','default','{"n":1}',0,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'exhausted','ValueError','no luck','Traceback: no luck',NULL);
CREATE TABLE jobrunner_jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused: a stale outcome must not find another job under its number
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL CHECK (
        state = 'queued' OR state = 'running' OR state = 'succeeded' OR state = 'scheduled'
        OR state = 'blocked' OR state = 'cancelled' OR state = 'expired'
    ),
    args TEXT NOT NULL,
    priority INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    lease INTEGER NOT NULL DEFAULT 0 CHECK (lease >= 0), -- one more at each claim, never less
    worker INTEGER CHECK ((worker IS NOT NULL) = (state = 'running')),
    started_at INTEGER,
    first_started_at INTEGER,
    finished_at INTEGER,
    result TEXT,
    result_omitted TEXT,
    key TEXT,
    tag TEXT,
    expires_at INTEGER,
    max_attempts INTEGER,
    timeout INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    crashes INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0 CHECK (suspect IN (0, 1)),
    replays INTEGER NOT NULL DEFAULT 0,
    replay_of TEXT
) STRICT;
INSERT INTO "jobrunner_jobs" VALUES(2,'01936d2c-0000-7000-8000-000000000002','work','default','succeeded','{}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,'"done"',NULL,NULL,'done',NULL,NULL,NULL,0,0,0,0,NULL);
INSERT INTO "jobrunner_jobs" VALUES(3,'01936d2c-0000-7000-8000-000000000003','work','default','queued','{"n":3}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'k',NULL,NULL,NULL,NULL,0,0,0,0,NULL);
INSERT INTO "jobrunner_jobs" VALUES(4,'01936d2c-0000-7000-8000-000000000004','work','default','scheduled','{}',0,1772600767000000,1772600827000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL);
CREATE TABLE jobrunner_meta (name TEXT PRIMARY KEY, value ANY) STRICT;
INSERT INTO "jobrunner_meta" VALUES('schema_version',1);
CREATE TABLE jobrunner_paused_queues (
    queue TEXT PRIMARY KEY,
    paused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "jobrunner_paused_queues" VALUES('side',1772600767000000);
CREATE TABLE jobrunner_workers (
    worker INTEGER PRIMARY KEY, -- random 63 bits per start
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    beat_at INTEGER NOT NULL,
    doorbell TEXT,
    queues TEXT NOT NULL, -- JSON: slots by queue
    tasks TEXT NOT NULL -- JSON: the names that it knows
) STRICT;
CREATE INDEX jobrunner_jobs_queued ON jobrunner_jobs (queue, task, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 0;
CREATE INDEX jobrunner_jobs_suspects ON jobrunner_jobs (queue, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 1;
CREATE INDEX jobrunner_jobs_scheduled ON jobrunner_jobs (run_at) WHERE state = 'scheduled';
CREATE INDEX jobrunner_jobs_running ON jobrunner_jobs (worker) WHERE state = 'running';
CREATE INDEX jobrunner_jobs_expiring ON jobrunner_jobs (expires_at)
    WHERE expires_at IS NOT NULL AND (state = 'queued' OR state = 'scheduled');
CREATE INDEX jobrunner_jobs_finished ON jobrunner_jobs (finished_at)
    WHERE state = 'succeeded' OR state = 'cancelled' OR state = 'expired';
CREATE UNIQUE INDEX jobrunner_jobs_key ON jobrunner_jobs (task, key)
    WHERE key IS NOT NULL
    AND (state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked');
CREATE INDEX jobrunner_dead_letters_died ON jobrunner_dead_letters (died_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobrunner_jobs',4);
INSERT INTO "sqlite_sequence" VALUES('jobrunner_dead_letters',1);
COMMIT;
