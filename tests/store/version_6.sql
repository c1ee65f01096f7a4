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
INSERT INTO "jobrunner_attempts" VALUES(2,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(3,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(4,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(5,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(6,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(7,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(9,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(10,1,1,81985529216486895,1772600767000000,1772600767000000,'succeeded',NULL,NULL,NULL);
INSERT INTO "jobrunner_attempts" VALUES(11,1,1,81985529216486895,1772600767000000,1772600767000000,'succeeded',NULL,NULL,NULL);
INSERT INTO "jobrunner_attempts" VALUES(12,1,1,81985529216486895,1772600767000000,1772600767000000,'succeeded',NULL,NULL,NULL);
INSERT INTO "jobrunner_attempts" VALUES(16,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(17,1,1,81985529216486895,1772600767000000,1772600767000000,'snoozed',NULL,NULL,NULL);
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
INSERT INTO "jobrunner_audit" VALUES(1,1772600767000000,'ada@example.org','dead_letters.replay','01936d2c-0000-7000-8000-000000000007',NULL,1,'the mail server is back');
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
, schedule TEXT, scheduled_for INTEGER, chain TEXT, after TEXT, fingerprint TEXT, trace TEXT) STRICT;
INSERT INTO "jobrunner_dead_letters" VALUES(1,1,'01936d2c-0000-7000-8000-000000000001','work','default','{"n":1}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'exhausted','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d','00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
INSERT INTO "jobrunner_dead_letters" VALUES(2,2,'01936d2c-0000-7000-8000-000000000002','work','default','{"n":2}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'buried','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d',NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(3,3,'01936d2c-0000-7000-8000-000000000003','work','default','{"n":3}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'not_retryable','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d',NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(4,4,'01936d2c-0000-7000-8000-000000000004','work','default','{"n":4}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'lost','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(5,5,'01936d2c-0000-7000-8000-000000000005','work','default','{"n":5}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'unknown_task','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(6,6,'01936d2c-0000-7000-8000-000000000006','work','default','{"n":6}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'invalid_args','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(7,7,'01936d2c-0000-7000-8000-000000000007','work','default','{"n":7}',0,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,0,0,NULL,1772600767000000,'exhausted','ValueError','no luck','Traceback: no luck','01936d2c-0000-7000-8000-000000000008',NULL,NULL,NULL,NULL,NULL,NULL);
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
, schedule TEXT, scheduled_for INTEGER, chain TEXT, after TEXT, trace TEXT) STRICT;
INSERT INTO "jobrunner_jobs" VALUES(8,'01936d2c-0000-7000-8000-000000000008','work','side','queued','{"n":8}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,'01936d2c-0000-7000-8000-000000000007',NULL,NULL,NULL,NULL,'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
INSERT INTO "jobrunner_jobs" VALUES(9,'01936d2c-0000-7000-8000-000000000009','work','again','queued','{"n":9}',0,1772600767000000,1772600767000000,0,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,1,NULL,NULL,NULL,NULL,NULL,'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
INSERT INTO "jobrunner_jobs" VALUES(10,'01936d2c-0000-7000-8000-000000000010','work','default','succeeded','{"n":10}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,'"done"',NULL,NULL,'done',NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
INSERT INTO "jobrunner_jobs" VALUES(11,'01936d2c-0000-7000-8000-000000000011','work','default','succeeded','{"n":11}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,NULL,'too large',NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(12,'01936d2c-0000-7000-8000-000000000012','work','default','succeeded','{"n":12}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(13,'01936d2c-0000-7000-8000-000000000013','work','default','cancelled','{"n":13}',0,1772600767000000,1772600827000000,0,0,NULL,NULL,NULL,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(14,'01936d2c-0000-7000-8000-000000000014','work','nobody','expired','{"n":14}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,1772600768000000,NULL,NULL,NULL,NULL,1772600768000000,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(15,'01936d2c-0000-7000-8000-000000000015','work','default','scheduled','{"n":15}',5,1772600767000000,1772600827000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,3,1000000,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(16,'01936d2c-0000-7000-8000-000000000016','work','default','scheduled','{"n":16}',0,1772600767000000,1772600827000000,1,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(17,'01936d2c-0000-7000-8000-000000000017','work','default','scheduled','{"n":17}',0,1772600767000000,1772600827000000,0,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(18,'01936d2c-0000-7000-8000-000000000018','work','default','running','{"n":18}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,'01936d2c-0000-7000-8000-000000000018',NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(19,'01936d2c-0000-7000-8000-000000000019','work','default','blocked','{"n":19}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,'01936d2c-0000-7000-8000-000000000018','01936d2c-0000-7000-8000-000000000018',NULL);
INSERT INTO "jobrunner_jobs" VALUES(20,'01936d2c-0000-7000-8000-000000000020','work','side','blocked','{"n":20}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,'01936d2c-0000-7000-8000-000000000018','01936d2c-0000-7000-8000-000000000019',NULL);
INSERT INTO "jobrunner_jobs" VALUES(21,'01936d2c-0000-7000-8000-000000000021','work','side','queued','{"n":21}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,'nightly',1772600767000000,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(22,'01936d2c-0000-7000-8000-000000000023','work','default','queued','{"n":23}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'k','waits',1772687167000000,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(23,'01936d2c-0000-7000-8000-000000000024','work','closed','queued','{"n":24}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(24,'01936d2c-0000-7000-8000-000000000025','work','run','running','{"n":25}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(25,'01936d2c-0000-7000-8000-000000000026','work','run','running','{"n":26}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(26,'01936d2c-0000-7000-8000-000000000027','work','run','queued','{"n":27}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,2,1,0,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(27,'01936d2c-0000-7000-8000-000000000028','work','run','running','{"n":28}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE jobrunner_meta (name TEXT PRIMARY KEY, value ANY) STRICT;
INSERT INTO "jobrunner_meta" VALUES('schema_version',6);
INSERT INTO "jobrunner_meta" VALUES('boot_id','00000000-0000-0000-0000-000000000000');
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
INSERT INTO "jobrunner_minutes" VALUES(1772600760000000,'','',3,7,7,X'00010A',X'28010A');
INSERT INTO "jobrunner_minutes" VALUES(1772600760000000,'','default',3,7,7,X'00010A',X'28010A');
INSERT INTO "jobrunner_minutes" VALUES(1772600760000000,'work','default',3,7,7,X'00010A',X'28010A');
CREATE TABLE jobrunner_paused_queues (
    queue TEXT PRIMARY KEY,
    paused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "jobrunner_paused_queues" VALUES('closed',1772600767000000);
CREATE TABLE jobrunner_progress (
    job INTEGER PRIMARY KEY, -- the job's seq
    lease INTEGER NOT NULL,
    value TEXT NOT NULL -- JSON: [done, total, message]
) STRICT;
INSERT INTO "jobrunner_progress" VALUES(18,1,'[3,10,"rendering"]');
INSERT INTO "jobrunner_progress" VALUES(24,1,'[3,10,"rendering"]');
INSERT INTO "jobrunner_progress" VALUES(25,1,'[3,10,"rendering"]');
INSERT INTO "jobrunner_progress" VALUES(27,1,'[3,10,"rendering"]');
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
INSERT INTO "jobrunner_schedule_ticks" VALUES('nightly',1772600467000000,1772600587000000,3,'missed',NULL,1772600767000000);
INSERT INTO "jobrunner_schedule_ticks" VALUES('nightly',1772600647000000,1772600647000000,1,'key',NULL,1772600767000000);
INSERT INTO "jobrunner_schedule_ticks" VALUES('nightly',1772600767000000,1772600767000000,1,'fired','01936d2c-0000-7000-8000-000000000021',1772600767000000);
INSERT INTO "jobrunner_schedule_ticks" VALUES('nightly',1772600827000000,1772600827000000,1,'overlap',NULL,1772600827000000);
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
INSERT INTO "jobrunner_schedules" VALUES('a','code','mail.send','{}','0 8 * * *','Europe/Berlin',NULL,NULL,1772600767000000,1772687167000000,'{"tag": "t"}','all',5,7,'skip',9,3,0,1,1,1772600767000000,1772600767000001,1772600766999999,1772600766999998,'job',4,5);
INSERT INTO "jobrunner_schedules" VALUES('launch','stored','work','{}',NULL,NULL,NULL,1772687167000000,NULL,NULL,'{}','latest',NULL,1,'allow',0,0,0,1,0,1772600767000000,1772687167000000,NULL,NULL,NULL,0,0);
INSERT INTO "jobrunner_schedules" VALUES('nightly','stored','work','{"n":1}',NULL,NULL,60000000,NULL,NULL,NULL,'{}','latest',NULL,1,'skip',0,0,0,0,0,1772600767000000,1772600887000000,1772600827000000,1772600767000000,'01936d2c-0000-7000-8000-000000000021',1,5);
CREATE TABLE jobrunner_watchers (
    watcher INTEGER PRIMARY KEY, -- random 63 bits per open runner
    doorbell TEXT NOT NULL,
    jobs TEXT NOT NULL, -- JSON: the ids of the jobs that it waits for
    beat_at INTEGER NOT NULL -- a process that was killed leaves its row, which is deleted when this is old
) STRICT;
INSERT INTO "jobrunner_watchers" VALUES(7,'gone','[]',1772600767000000);
CREATE TABLE jobrunner_workers (
    worker INTEGER PRIMARY KEY, -- random 63 bits per start
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    beat_at INTEGER NOT NULL,
    doorbell TEXT,
    queues TEXT NOT NULL, -- JSON: slots by queue
    tasks TEXT NOT NULL -- JSON: the names that it knows
, waits TEXT, revision INTEGER) STRICT;
INSERT INTO "jobrunner_workers" VALUES(81985529216486895,4711,'here',1772600767000000,1772600767000000,NULL,'{"default":20}','{"work":5}','{"look":1,"held":[]}',12);
CREATE INDEX jobrunner_jobs_queued ON jobrunner_jobs (queue, task, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 0;
CREATE INDEX jobrunner_jobs_suspects ON jobrunner_jobs (queue, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 1;
CREATE INDEX jobrunner_jobs_running ON jobrunner_jobs (worker) WHERE state = 'running';
CREATE INDEX jobrunner_jobs_expiring ON jobrunner_jobs (expires_at)
    WHERE expires_at IS NOT NULL AND (state = 'queued' OR state = 'scheduled');
CREATE INDEX jobrunner_jobs_finished ON jobrunner_jobs (finished_at)
    WHERE state = 'succeeded' OR state = 'cancelled' OR state = 'expired';
CREATE UNIQUE INDEX jobrunner_jobs_key ON jobrunner_jobs (task, key)
    WHERE key IS NOT NULL
    AND (state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked');
CREATE INDEX jobrunner_dead_letters_died ON jobrunner_dead_letters (died_at);
CREATE INDEX jobrunner_jobs_schedule ON jobrunner_jobs (schedule)
    WHERE schedule IS NOT NULL
    AND (state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked');
CREATE INDEX jobrunner_schedules_next ON jobrunner_schedules (task, next)
    WHERE next IS NOT NULL AND paused = 0 AND disabled = 0;
CREATE INDEX jobrunner_schedule_ticks_at ON jobrunner_schedule_ticks (at);
CREATE INDEX jobrunner_jobs_blocked ON jobrunner_jobs (after) WHERE state = 'blocked';
CREATE INDEX jobrunner_jobs_claim ON jobrunner_jobs (queue, priority DESC, run_at)
    WHERE state = 'queued' AND suspect = 0;
CREATE INDEX jobrunner_jobs_scheduled ON jobrunner_jobs (run_at, queue) WHERE state = 'scheduled';
CREATE INDEX jobrunner_jobs_by_tag ON jobrunner_jobs (tag) WHERE tag IS NOT NULL;
CREATE INDEX jobrunner_jobs_by_key ON jobrunner_jobs (key) WHERE key IS NOT NULL;
CREATE INDEX jobrunner_dead_letters_listed ON jobrunner_dead_letters (letter, task, queue, reason, tag, died_at)
    WHERE replayed_as IS NULL;
CREATE INDEX jobrunner_schedules_task ON jobrunner_schedules (task, id);
CREATE INDEX jobrunner_jobs_retrying ON jobrunner_jobs (run_at) WHERE state = 'scheduled' AND attempt > 0;
CREATE INDEX jobrunner_jobs_cancelled ON jobrunner_jobs (finished_at) WHERE state = 'cancelled';
CREATE INDEX jobrunner_jobs_expired ON jobrunner_jobs (finished_at) WHERE state = 'expired';
CREATE INDEX jobrunner_dead_letters_groups ON jobrunner_dead_letters (fingerprint, died_at)
    WHERE replayed_as IS NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobrunner_jobs',27);
INSERT INTO "sqlite_sequence" VALUES('jobrunner_dead_letters',8);
INSERT INTO "sqlite_sequence" VALUES('jobrunner_audit',1);
COMMIT;
