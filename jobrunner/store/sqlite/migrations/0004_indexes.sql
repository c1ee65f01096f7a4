-- What waits in a queue in the order in which it is claimed, whatever its task: a claim reads its first rows. The index
-- that leads with the task stays: it finds the tasks that a worker knows behind many rows of others.
CREATE INDEX jobrunner_jobs_claim ON jobrunner_jobs (queue, priority DESC, run_at)
    WHERE state = 'queued' AND suspect = 0;

-- With the queue behind the instant the jobs of each are counted without a look at their rows, which are far apart.
DROP INDEX jobrunner_jobs_scheduled;
CREATE INDEX jobrunner_jobs_scheduled ON jobrunner_jobs (run_at, queue) WHERE state = 'scheduled';

-- For lists. Jobs without a tag or a key, nearly all of them, have no entry here, so they cost nothing.
CREATE INDEX jobrunner_jobs_by_tag ON jobrunner_jobs (tag) WHERE tag IS NOT NULL;
CREATE INDEX jobrunner_jobs_by_key ON jobrunner_jobs (key) WHERE key IS NOT NULL;

-- What a filter asks of a dead letter, in the order of lists: the rows themselves are long, since they hold a traceback.
CREATE INDEX jobrunner_dead_letters_listed ON jobrunner_dead_letters (letter, task, queue, reason, tag, died_at)
    WHERE replayed_as IS NULL;

CREATE INDEX jobrunner_schedules_task ON jobrunner_schedules (task, id);

-- JSON: its attempts that wait for other jobs, told while they fill a queue. In the row, so that they go with the worker.
ALTER TABLE jobrunner_workers ADD COLUMN waits TEXT;
