-- What has happened since this migration, by queue and task, or with both empty by all workers. The numbers only grow, and no
-- row is deleted, so that a monitoring system can take the difference of two readings, also over a restart.
CREATE TABLE jobrunner_counters (
    counter INTEGER PRIMARY KEY, -- the order in which they were first added to
    name TEXT NOT NULL, -- see jobrunner/store/counters.py
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    number INTEGER NOT NULL,
    UNIQUE (name, queue, task)
) STRICT;
