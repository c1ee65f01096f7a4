-- Of the jobs, only those of a chain have the two new columns; the index holds only those that wait for another one,
-- under the job that they wait for.
ALTER TABLE jobrunner_jobs ADD COLUMN chain TEXT; -- the id of its first job
ALTER TABLE jobrunner_jobs ADD COLUMN after TEXT; -- the id of the job before it
ALTER TABLE jobrunner_dead_letters ADD COLUMN chain TEXT;
ALTER TABLE jobrunner_dead_letters ADD COLUMN after TEXT;

CREATE INDEX jobrunner_jobs_blocked ON jobrunner_jobs (after) WHERE state = 'blocked';
