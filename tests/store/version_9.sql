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
INSERT INTO "jobrunner_attempts" VALUES(30,1,1,81985529216486895,1772600767000000,1772600767000000,'succeeded',NULL,NULL,NULL);
INSERT INTO "jobrunner_attempts" VALUES(31,1,1,81985529216486895,1772600767000000,1772600767000000,'failed','ValueError','no luck','Traceback: no luck');
INSERT INTO "jobrunner_attempts" VALUES(36,1,1,81985529216486895,1772600767000000,1772600767000000,'succeeded',NULL,NULL,NULL);
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
INSERT INTO "jobrunner_batches" VALUES(1,'01936d2c-0000-7000-8000-000000000045','five','running',1772600767000000,NULL,NULL,NULL,0);
INSERT INTO "jobrunner_batches" VALUES(2,'01936d2c-0000-7000-8000-000000000050',NULL,'succeeded',1772600767000000,1772600767000000,NULL,NULL,0);
INSERT INTO "jobrunner_batches" VALUES(3,'01936d2c-0000-7000-8000-000000000057',NULL,'running',1772600767000000,NULL,NULL,'01936d2c-0000-7000-8000-000000000055',0);
CREATE TABLE jobrunner_buckets (
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    full_at INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "jobrunner_buckets" VALUES('lane','drip[1]',1772604367000000);
INSERT INTO "jobrunner_buckets" VALUES('task','mail.send',1772600768000000);
CREATE TABLE jobrunner_counters (
    counter INTEGER PRIMARY KEY, -- the order in which they were first added to
    name TEXT NOT NULL, -- see jobrunner/store/counters.py
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    number INTEGER NOT NULL,
    UNIQUE (name, queue, task)
) STRICT;
INSERT INTO "jobrunner_counters" VALUES(1,'dead:exhausted','side','work',3);
INSERT INTO "jobrunner_counters" VALUES(2,'attempts:failed','batch','work',1);
INSERT INTO "jobrunner_counters" VALUES(3,'dead:exhausted','batch','work',1);
INSERT INTO "jobrunner_counters" VALUES(4,'batches:succeeded','','',1);
INSERT INTO "jobrunner_counters" VALUES(5,'jobs:cancelled','after','otherwise',1);
INSERT INTO "jobrunner_counters" VALUES(6,'parked','steps','work',2);
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
, schedule TEXT, scheduled_for INTEGER, chain TEXT, after TEXT, fingerprint TEXT, trace TEXT, lane TEXT, ordered INTEGER, batch INTEGER, handed TEXT) STRICT;
INSERT INTO "jobrunner_dead_letters" VALUES(1,1,'01936d2c-0000-7000-8000-000000000001','work','default','{"n":1}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'exhausted','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d','00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01','work[1]',1,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(2,2,'01936d2c-0000-7000-8000-000000000002','work','default','{"n":2}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'buried','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(3,3,'01936d2c-0000-7000-8000-000000000003','work','default','{"n":3}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'not_retryable','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(4,4,'01936d2c-0000-7000-8000-000000000004','work','default','{"n":4}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'lost','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(5,5,'01936d2c-0000-7000-8000-000000000005','work','default','{"n":5}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'unknown_task','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(6,6,'01936d2c-0000-7000-8000-000000000006','work','default','{"n":6}',1,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,'dead',NULL,NULL,NULL,0,0,NULL,1772600767000000,'invalid_args','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(7,7,'01936d2c-0000-7000-8000-000000000007','work','default','{"n":7}',0,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,0,0,NULL,1772600767000000,'exhausted','ValueError','no luck','Traceback: no luck','01936d2c-0000-7000-8000-000000000008',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_dead_letters" VALUES(9,31,'01936d2c-0000-7000-8000-000000000043','work','batch','{}',0,1772600767000000,1772600767000000,1,1,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,0,0,NULL,1772600767000000,'exhausted','ValueError','no luck','Traceback: no luck',NULL,NULL,NULL,NULL,NULL,'0a79cb3e8930f46d',NULL,NULL,NULL,1,NULL);
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
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000041','01936d2c-0000-7000-8000-000000000040','success',1);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000046','01936d2c-0000-7000-8000-000000000045','success',1);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000047','01936d2c-0000-7000-8000-000000000045','failure',1);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000048','01936d2c-0000-7000-8000-000000000045','end',1);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000051','01936d2c-0000-7000-8000-000000000050','success',0);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000052','01936d2c-0000-7000-8000-000000000050','failure',2);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000053','01936d2c-0000-7000-8000-000000000050','end',0);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000054','!approved','end',1);
INSERT INTO "jobrunner_edges" VALUES('01936d2c-0000-7000-8000-000000000055','01936d2c-0000-7000-8000-000000000057','end',1);
CREATE TABLE jobrunner_followups (
    id TEXT PRIMARY KEY, -- a job that has ended or was replayed while others wait for it, or a batch that was cancelled
    batch INTEGER -- the seq of the batch that does not end before this is done
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
, schedule TEXT, scheduled_for INTEGER, chain TEXT, after TEXT, trace TEXT, lane TEXT, ordered INTEGER, batch INTEGER, handed TEXT, on_dead TEXT) STRICT;
INSERT INTO "jobrunner_jobs" VALUES(8,'01936d2c-0000-7000-8000-000000000008','work','side','queued','{"n":8}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,'01936d2c-0000-7000-8000-000000000007',NULL,NULL,NULL,NULL,'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01','work[8]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(9,'01936d2c-0000-7000-8000-000000000009','work','again','queued','{"n":9}',0,1772600767000000,1772600767000000,0,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,1,NULL,NULL,NULL,NULL,NULL,'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(10,'01936d2c-0000-7000-8000-000000000010','work','default','succeeded','{"n":10}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,'"done"',NULL,NULL,'done',NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(11,'01936d2c-0000-7000-8000-000000000011','work','default','succeeded','{"n":11}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,NULL,'too large',NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(12,'01936d2c-0000-7000-8000-000000000012','work','default','succeeded','{"n":12}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(13,'01936d2c-0000-7000-8000-000000000013','work','default','cancelled','{"n":13}',0,1772600767000000,1772600827000000,0,0,NULL,NULL,NULL,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(14,'01936d2c-0000-7000-8000-000000000014','work','nobody','expired','{"n":14}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,1772600768000000,NULL,NULL,NULL,NULL,1772600768000000,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(15,'01936d2c-0000-7000-8000-000000000015','work','default','scheduled','{"n":15}',5,1772600767000000,1772600827000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,3,1000000,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(16,'01936d2c-0000-7000-8000-000000000016','work','default','scheduled','{"n":16}',0,1772600767000000,1772600827000000,1,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(17,'01936d2c-0000-7000-8000-000000000017','work','default','scheduled','{"n":17}',0,1772600767000000,1772600827000000,0,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(18,'01936d2c-0000-7000-8000-000000000018','work','default','running','{"n":18}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,'01936d2c-0000-7000-8000-000000000018',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(19,'01936d2c-0000-7000-8000-000000000019','work','default','blocked','{"n":19}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,'01936d2c-0000-7000-8000-000000000018','01936d2c-0000-7000-8000-000000000018',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(20,'01936d2c-0000-7000-8000-000000000020','work','side','blocked','{"n":20}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,'01936d2c-0000-7000-8000-000000000018','01936d2c-0000-7000-8000-000000000019',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(21,'01936d2c-0000-7000-8000-000000000021','work','side','queued','{"n":21}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,'nightly',1772600767000000,NULL,NULL,NULL,'work[21]',1,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(22,'01936d2c-0000-7000-8000-000000000023','work','default','queued','{"n":23}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'k','waits',1772687167000000,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(23,'01936d2c-0000-7000-8000-000000000024','work','closed','queued','{"n":24}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(24,'01936d2c-0000-7000-8000-000000000025','work','run','running','{"n":25}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'work[25]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(25,'01936d2c-0000-7000-8000-000000000026','work','run','running','{"n":26}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(26,'01936d2c-0000-7000-8000-000000000027','work','run','queued','{"n":27}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,2,1,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(27,'01936d2c-0000-7000-8000-000000000028','work','run','running','{"n":28}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(28,'01936d2c-0000-7000-8000-000000000040','work','batch','running','{}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(29,'01936d2c-0000-7000-8000-000000000041','work','batch','blocked','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(30,'01936d2c-0000-7000-8000-000000000042','work','batch','succeeded','{}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,'"done"',NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(32,'01936d2c-0000-7000-8000-000000000044','work','batch','running','{}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(33,'01936d2c-0000-7000-8000-000000000046','then','after','blocked','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(34,'01936d2c-0000-7000-8000-000000000047','otherwise','after','blocked','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(35,'01936d2c-0000-7000-8000-000000000048','at_end','after','blocked','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(36,'01936d2c-0000-7000-8000-000000000049','work','batch2','succeeded','{}',0,1772600767000000,1772600767000000,1,1,NULL,1772600767000000,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,2,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(37,'01936d2c-0000-7000-8000-000000000051','then','after','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(38,'01936d2c-0000-7000-8000-000000000052','otherwise','after','cancelled','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(39,'01936d2c-0000-7000-8000-000000000053','at_end','after','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(40,'01936d2c-0000-7000-8000-000000000054','work','steps','scheduled','{}',0,1772600767000000,1772600827000000,0,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(41,'01936d2c-0000-7000-8000-000000000055','work','steps','blocked','{}',0,1772600767000000,1772600767000000,0,1,NULL,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(42,'01936d2c-0000-7000-8000-000000000056','work','batch','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,3,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(43,'01936d2c-0000-7000-8000-000000000058','sync','lanes','running','{}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'sync[full]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(44,'01936d2c-0000-7000-8000-000000000059','sync','lanes','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'sync[full]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(45,'01936d2c-0000-7000-8000-000000000060','sync','lanes','running','{}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'sync[order]',1,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(46,'01936d2c-0000-7000-8000-000000000061','drip','lanes','running','{}',0,1772600767000000,1772600767000000,1,1,81985529216486895,1772600767000000,1772600767000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'drip[1]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(47,'01936d2c-0000-7000-8000-000000000062','drip','lanes','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'drip[1]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(48,'01936d2c-0000-7000-8000-000000000063','open','lanes','queued','{}',1,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'open[a]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(49,'01936d2c-0000-7000-8000-000000000064','open','lanes','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'open[b]',NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_jobs" VALUES(50,'01936d2c-0000-7000-8000-000000000065','open','lanes','queued','{}',0,1772600767000000,1772600767000000,0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'open[b]',NULL,NULL,NULL,NULL);
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
INSERT INTO "jobrunner_lanes" VALUES(1,'work[8]','side','work',0,0,1772600767000000,'open',NULL);
INSERT INTO "jobrunner_lanes" VALUES(2,'work[21]','side','work',1,0,1772600767000000,'open',NULL);
INSERT INTO "jobrunner_lanes" VALUES(3,'sync[full]','lanes','sync',0,0,1772600767000001,'full',NULL);
INSERT INTO "jobrunner_lanes" VALUES(4,'drip[1]','lanes','drip',0,0,1772600767000001,'empty',1772604366950000);
INSERT INTO "jobrunner_lanes" VALUES(5,'open[a]','lanes','open',0,1,1772600767000000,'open',NULL);
INSERT INTO "jobrunner_lanes" VALUES(6,'open[b]','lanes','open',0,0,1772600767000000,'open',NULL);
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
INSERT INTO "jobrunner_limits" VALUES('lanes','drip',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1,3600000000,1,NULL,1772600767000000);
INSERT INTO "jobrunner_limits" VALUES('lanes','sync',NULL,NULL,NULL,NULL,NULL,NULL,1,NULL,NULL,NULL,NULL,1772600767000000);
INSERT INTO "jobrunner_limits" VALUES('lanes','work',2,NULL,NULL,NULL,NULL,12,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobrunner_limits" VALUES('task','mail.send',NULL,5,1000000,5,NULL,NULL,NULL,7,1000000,7,NULL,1772600767000000);
CREATE TABLE jobrunner_meta (name TEXT PRIMARY KEY, value ANY) STRICT;
INSERT INTO "jobrunner_meta" VALUES('schema_version',9);
INSERT INTO "jobrunner_meta" VALUES('boot_id','7de4165e-8c1f-4031-90e3-c937e8056547');
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
INSERT INTO "jobrunner_steps" VALUES(40,'step','charge','7',1772600767000000);
INSERT INTO "jobrunner_steps" VALUES(41,'batch','pages','"01936d2c-0000-7000-8000-000000000057"',1772600767000000);
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
CREATE INDEX jobrunner_jobs_suspects ON jobrunner_jobs (queue, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 1;
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
CREATE INDEX jobrunner_jobs_queued ON jobrunner_jobs (queue, task, priority DESC, run_at, seq)
    WHERE state = 'queued' AND suspect = 0 AND lane IS NULL;
CREATE INDEX jobrunner_jobs_claim ON jobrunner_jobs (queue, priority DESC, run_at)
    WHERE state = 'queued' AND suspect = 0 AND lane IS NULL;
CREATE INDEX jobrunner_jobs_laned ON jobrunner_jobs (queue, task, lane, priority DESC, run_at)
    WHERE lane IS NOT NULL AND state = 'queued' AND suspect = 0;
CREATE INDEX jobrunner_jobs_in_lane ON jobrunner_jobs (lane)
    WHERE lane IS NOT NULL AND state = 'running';
CREATE INDEX jobrunner_jobs_ordered ON jobrunner_jobs (lane)
    WHERE ordered = 1 AND (state = 'scheduled' OR state = 'queued' OR state = 'running');
CREATE INDEX jobrunner_jobs_running ON jobrunner_jobs (worker, queue, task) WHERE state = 'running';
CREATE INDEX jobrunner_lanes_open ON jobrunner_lanes (queue, task, priority DESC, turn) WHERE state = 'open';
CREATE INDEX jobrunner_lanes_empty ON jobrunner_lanes (wake_at) WHERE state = 'empty';
CREATE INDEX jobrunner_jobs_batch ON jobrunner_jobs (batch) WHERE batch IS NOT NULL;
CREATE INDEX jobrunner_jobs_batch_unfinished ON jobrunner_jobs (batch)
    WHERE batch IS NOT NULL
    AND (state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked');
CREATE INDEX jobrunner_jobs_batch_stopped ON jobrunner_jobs (batch)
    WHERE batch IS NOT NULL AND (state = 'cancelled' OR state = 'expired');
CREATE INDEX jobrunner_dead_letters_batch ON jobrunner_dead_letters (batch)
    WHERE batch IS NOT NULL AND replayed_as IS NULL;
CREATE INDEX jobrunner_batches_parent ON jobrunner_batches (parent) WHERE parent IS NOT NULL;
CREATE INDEX jobrunner_batches_ended ON jobrunner_batches (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX jobrunner_batches_running ON jobrunner_batches (cancelled_at, state) WHERE state = 'running';
CREATE INDEX jobrunner_batches_name ON jobrunner_batches (name) WHERE name IS NOT NULL;
CREATE INDEX jobrunner_edges_needs ON jobrunner_edges (needs, state);
CREATE INDEX jobrunner_edges_unmet ON jobrunner_edges (job) WHERE state > 0;
CREATE INDEX jobrunner_followups_batch ON jobrunner_followups (batch) WHERE batch IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobrunner_jobs',50);
INSERT INTO "sqlite_sequence" VALUES('jobrunner_dead_letters',9);
INSERT INTO "sqlite_sequence" VALUES('jobrunner_audit',1);
INSERT INTO "sqlite_sequence" VALUES('jobrunner_batches',3);
COMMIT;
