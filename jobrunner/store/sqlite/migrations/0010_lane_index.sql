-- Without the task, with which the name of a lane begins: entries are shorter, and found with fewer comparisons.
DROP INDEX jobrunner_jobs_laned;
CREATE INDEX jobrunner_jobs_laned ON jobrunner_jobs (queue, lane, priority DESC, run_at)
    WHERE lane IS NOT NULL AND state = 'queued' AND suspect = 0;
