-- What waits in a queue in the order in which it is claimed, whatever its task: a claim reads its first rows. The index
-- that leads with the task stays: it finds the tasks that a worker knows behind many rows of others.
CREATE INDEX jobrunner_jobs_claim ON jobrunner_jobs (queue, priority DESC, run_at)
    WHERE state = 'queued' AND suspect = 0;
