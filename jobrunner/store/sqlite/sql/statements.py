"""Holds the SQL that changes jobs, one statement per transition."""

from jobrunner.store.sqlite.sql.bulk import Many

# The comments make the texts ours: the driver caches compiled statements by text, and a task that executes "COMMIT" on
# the lent connection must not get our compiled statement, which the authorizer has allowed.
BEGIN = "BEGIN IMMEDIATE -- jobrunner"
BEGIN_TO_READ = "BEGIN -- jobrunner"
COMMIT = "COMMIT -- jobrunner"
ROLLBACK = "ROLLBACK -- jobrunner"
SAVEPOINT = "SAVEPOINT jobrunner_item"
RELEASE = "RELEASE jobrunner_item"
ROLLBACK_TO = "ROLLBACK TO jobrunner_item"

# Written as in the partial indexes: SQLite uses a partial index only if the query contains the index's condition.
UNFINISHED = "(state = 'scheduled' OR state = 'queued' OR state = 'running' OR state = 'blocked')"
FINISHED = "(state = 'succeeded' OR state = 'cancelled' OR state = 'expired')"
WAITING = "(state = 'queued' OR state = 'scheduled')"
PLAIN = "state = 'queued' AND suspect = 0 AND lane IS NULL"
LANED = "state = 'queued' AND suspect = 0 AND lane IS NOT NULL"

FENCE = "WHERE seq = ? AND lease = ? AND worker = ?"

# Each row of VALUES finds its job, behind the fence.
SUCCEED = Many(
    """
UPDATE jobrunner_jobs SET state = 'succeeded', worker = NULL, suspect = 0, finished_at = column4 FROM (""",
    "(?, ?, ?, ?)",
    ") WHERE seq = column1 AND lease = column2 AND worker = column3",
)

SUCCEED_WITH_RESULT = Many(
    """
UPDATE jobrunner_jobs SET state = 'succeeded', worker = NULL, suspect = 0, finished_at = column4,
    result = column5, result_omitted = column6 FROM (""",
    "(?, ?, ?, ?, ?, ?)",
    ") WHERE seq = column1 AND lease = column2 AND worker = column3",
)

# No FENCE: a settled job has no worker. The lease still identifies the attempt.
KEEP_RESULT = """
UPDATE jobrunner_jobs SET result = ?, result_omitted = ?
WHERE seq = ? AND lease = ? AND state = 'succeeded' AND result_omitted = ?"""

RUN_AGAIN = f"""
UPDATE jobrunner_jobs SET state = ?, worker = NULL, run_at = ?, attempt = attempt - ?, suspect = min(suspect, ?)
{FENCE}"""

CANCEL = f"""
UPDATE jobrunner_jobs SET state = 'cancelled', worker = NULL, finished_at = ?
{FENCE}"""

# The first values are those of ``groups.burial``.
_BURY = """
INSERT INTO jobrunner_dead_letters (
    died_at, reason, error_type, error, traceback, fingerprint,
    seq, id, task, queue, args, priority, created_at, run_at, attempt,
    lease, started_at, first_started_at, key, tag, expires_at, max_attempts, timeout, crashes, replays, replay_of,
    schedule, scheduled_for, chain, after, trace, lane, ordered, batch, handed
)
SELECT ?, ?, ?, ?, ?, ?,
    seq, id, task, queue, args, priority, created_at, run_at, attempt,
    lease, started_at, first_started_at, key, tag, expires_at, max_attempts, timeout, crashes, replays, replay_of,
    schedule, scheduled_for, chain, after, trace, lane, ordered, batch, handed
FROM jobrunner_jobs """

BURY_RUNNING = f"{_BURY}{FENCE}"
BURY_WAITING = f"{_BURY}WHERE seq = ? AND state = 'queued'"

REMOVE = f"DELETE FROM jobrunner_jobs {FENCE}"

KEEP_ATTEMPT = "INSERT INTO jobrunner_attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

KEEP_SUCCESS = Many(
    "INSERT INTO jobrunner_attempts (job, lease, attempt, worker, started_at, finished_at, outcome)",
    "(?, ?, ?, ?, ?, ?, 'succeeded')",
)

KEY_IS_TAKEN = f" ON CONFLICT (task, key) WHERE key IS NOT NULL AND {UNFINISHED} DO NOTHING"

NEWEST = "SELECT id FROM jobrunner_jobs ORDER BY seq DESC LIMIT ?"

FIND_BY_KEY = f"""
SELECT id, task, queue, state, created_at, run_at, attempt, chain, after FROM jobrunner_jobs
WHERE task = ? AND key = ? AND {UNFINISHED}"""

TAKEN_KEYS = f"""
SELECT json_extract(wanted.value, '$[0]') AS its_task, json_extract(wanted.value, '$[1]') AS its_key
FROM json_each(?) wanted
WHERE EXISTS (SELECT 1 FROM jobrunner_jobs WHERE task = its_task AND key = its_key AND {UNFINISHED})"""

PROMOTE = """
UPDATE jobrunner_jobs SET state = 'queued' WHERE seq IN (
    SELECT seq FROM jobrunner_jobs WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?
)
RETURNING seq, lane"""

EXPIRE = f"""
UPDATE jobrunner_jobs SET state = 'expired', finished_at = ? WHERE seq IN (
    SELECT seq FROM jobrunner_jobs
    WHERE expires_at <= ? AND expires_at IS NOT NULL AND {WAITING}
    ORDER BY expires_at LIMIT ?
)
RETURNING id, chain, batch, queue, task, lane"""

# Unblocks the jobs behind these. They are due now at the earliest, so that they do not overtake jobs that were queued
# before. A blocked job that has run before has left its place in the chain: it waits for something else.
UNBLOCK = """
UPDATE jobrunner_jobs SET
    state = iif(run_at <= max(:now, created_at), 'queued', 'scheduled'), run_at = max(run_at, :now)
WHERE state = 'blocked' AND lease = 0 AND after IN (SELECT value FROM json_each(:ended))
RETURNING state, run_at, expires_at, seq, lane"""

CANCEL_REST = """
WITH RECURSIVE rest (seq, id) AS (
    SELECT seq, id FROM jobrunner_jobs
    WHERE state = 'blocked' AND lease = 0 AND after IN (SELECT value FROM json_each(:ended))
    UNION ALL
    SELECT job.seq, job.id FROM rest JOIN jobrunner_jobs job
    ON job.state = 'blocked' AND job.lease = 0 AND job.after = rest.id
    LIMIT :limit
)
UPDATE jobrunner_jobs SET state = 'cancelled', finished_at = :now WHERE seq IN (SELECT seq FROM rest)
RETURNING id, queue, task"""

# Those of these jobs whose death cancels the jobs behind them.
STOPPED_BY_DEATH = """
SELECT DISTINCT after FROM jobrunner_jobs
WHERE state = 'blocked' AND lease = 0 AND after IN (SELECT value FROM json_each(?)) AND on_dead = 'cancel'"""

STILL_BLOCKED = """
SELECT DISTINCT after FROM jobrunner_jobs
WHERE state = 'blocked' AND lease = 0 AND after IN (SELECT value FROM json_each(?))"""

# The jobs behind these in their chains, up to those that match a filter (the braces).
COUNT_REST = """
WITH RECURSIVE rest (seq, id) AS (
    SELECT seq, id FROM jobrunner_jobs
    WHERE state = 'blocked' AND lease = 0 AND after IN (SELECT value FROM json_each(?)) AND ({0}) IS NOT TRUE
    UNION ALL
    SELECT jobrunner_jobs.seq, jobrunner_jobs.id FROM rest JOIN jobrunner_jobs
    ON state = 'blocked' AND lease = 0 AND after = rest.id
    WHERE ({0}) IS NOT TRUE
)
SELECT count(*) FROM rest"""

# Waits for another attempt. A parked job may have failed before; its last lease has left no attempt in the history.
RETRYING = """state = 'scheduled' AND attempt > 0 AND EXISTS (
    SELECT 1 FROM jobrunner_attempts last WHERE last.job = jobrunner_jobs.seq AND last.lease = jobrunner_jobs.lease
)"""

# NOT INDEXED: the rows are found by their number, whatever the filter (the braces) names.
CANCEL_SLICE = """
UPDATE jobrunner_jobs NOT INDEXED SET state = 'cancelled', finished_at = ?
WHERE seq IN (SELECT value FROM json_each(?))
    AND (state = 'scheduled' OR state = 'queued' OR state = 'blocked') AND {}
RETURNING id, chain, batch, queue, task, lane"""

REQUEST_SLICE = """
UPDATE jobrunner_jobs NOT INDEXED SET cancel_requested = 1
WHERE seq IN (SELECT value FROM json_each(?)) AND state = 'running' AND {}
RETURNING seq"""

RESCHEDULE = "UPDATE jobrunner_jobs SET state = ?, run_at = ? WHERE seq = ?"

NEXT_DUE = f"""
SELECT min(due) FROM (
    SELECT min(run_at) AS due FROM jobrunner_jobs WHERE state = 'scheduled'
    UNION ALL
    SELECT min(expires_at) FROM jobrunner_jobs
    WHERE expires_at IS NOT NULL AND {WAITING}
    UNION ALL
    SELECT min(wake_at) FROM jobrunner_lanes WHERE state = 'empty'
    UNION ALL
    SELECT 0 WHERE EXISTS (SELECT 1 FROM jobrunner_followups)
)"""

# Each step of the recursion is one index seek to the next task. So the cost grows with the number of waiting tasks, not
# of waiting jobs, and a task that no worker here knows costs one seek instead of a scan of its rows.
WAITING_TASKS = f"""
WITH RECURSIVE waiting (task) AS (
    SELECT min(task) FROM jobrunner_jobs WHERE {PLAIN} AND queue = :queue
    UNION ALL
    SELECT (SELECT min(task) FROM jobrunner_jobs WHERE {PLAIN} AND queue = :queue AND task > waiting.task)
    FROM waiting WHERE waiting.task IS NOT NULL
)
SELECT task FROM waiting WHERE task IS NOT NULL"""

# Behind the lanes of a task, `task[key]`: the backslash follows the bracket.
WAITING_LANED_TASKS = f"""
WITH RECURSIVE waiting (task) AS (
    SELECT (SELECT task FROM jobrunner_jobs WHERE {LANED} AND queue = :queue ORDER BY lane LIMIT 1)
    UNION ALL
    SELECT (
        SELECT task FROM jobrunner_jobs
        WHERE {LANED} AND queue = :queue AND lane >= waiting.task || '\\' ORDER BY lane LIMIT 1
    )
    FROM waiting WHERE waiting.task IS NOT NULL
)
SELECT task FROM waiting WHERE task IS NOT NULL"""

# The jobs of one task in lanes, whose names are next to each other: all of them, and those behind one lane. With both
# lower bounds SQLite might seek the first one, and read all lanes before the other.
_BEFORE_NEXT_TASK = "lane < :task || '\\'"
LANED_OF_TASK = f"{LANED} AND queue = :queue AND lane >= :task || '[' AND {_BEFORE_NEXT_TASK}"
LANED_BEHIND = f"{LANED} AND queue = :queue AND lane > {{}} AND {_BEFORE_NEXT_TASK}"

PAUSED = "SELECT queue FROM jobrunner_paused_queues"

# One statement for what nearly always does not exist: three of them would cost a claim of one job a tenth.
EXCEPTIONS = """
SELECT EXISTS (SELECT 1 FROM jobrunner_paused_queues), EXISTS (SELECT 1 FROM jobrunner_limits WHERE scope > 'lane')
    OR EXISTS (SELECT 1 FROM jobrunner_lanes WHERE state = 'open')
    OR EXISTS (SELECT 1 FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 1 AND lane IS NOT NULL)"""

_CLAIMED = """
    seq, lease, worker, id, task, queue, args, attempt, started_at, first_started_at, created_at, run_at,
    priority, max_attempts, timeout, suspect, scheduled_for, chain, trace, lane, batch, handed"""

RUNNING = f"SELECT {_CLAIMED} FROM jobrunner_jobs WHERE state = 'running' AND worker = ?"

# The attempt is counted here, before any code of the task runs, so that it also counts if the job kills its process.
START = """
UPDATE jobrunner_jobs SET state = 'running', worker = ?, attempt = attempt + 1, lease = lease + 1, started_at = ?,
    first_started_at = coalesce(first_started_at, ?)
WHERE seq IN (SELECT value FROM json_each(?))"""

# A row as it will be after START: reading it before is cheaper than RETURNING.
_AS_STARTED = """
    job.seq, lease + 1, ?, job.id, {}, job.queue, args, attempt + 1, ?, coalesce(first_started_at, ?), created_at,
    run_at, job.priority, max_attempts, timeout, suspect, scheduled_for, chain, trace, job.lane, batch, handed"""

LISTED = f"SELECT {_AS_STARTED.format('task')} FROM jobrunner_jobs job WHERE seq IN (SELECT value FROM json_each(?))"

# An expired job has no task here and in the next statements, so that one comparison in Python excludes it.
UNEXPIRED = _AS_STARTED.format("iif(expires_at <= ?, NULL, job.task)")

# INDEXED BY, since with the other index each of the next three statements would be correct but slow.
_IN_ORDER = f"""
SELECT {UNEXPIRED}
FROM jobrunner_jobs job INDEXED BY jobrunner_jobs_claim
WHERE {PLAIN} AND queue = ? {{}}
ORDER BY priority DESC, run_at, seq"""

FIRST_IN_ORDER = _IN_ORDER.format("")
REST_OF_PRIORITY = _IN_ORDER.format("AND priority = ? AND (run_at, seq) >= (?, ?)")
LOWER_PRIORITIES = _IN_ORDER.format("AND priority < ?")

_RUNNABLE = f"{PLAIN} AND queue = :queue AND (expires_at IS NULL OR expires_at > :now)"
_FIRST_OF_TASK = f"""
    SELECT seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_queued
    WHERE {_RUNNABLE} {{}} ORDER BY task, priority DESC, run_at, seq LIMIT 1"""

# One seek per waiting task, as WAITING_TASKS, to the task's first row.
FIRST_OF_TASKS = f"""
WITH RECURSIVE first (seq, task, priority, run_at) AS (
    SELECT seq, task, priority, run_at FROM jobrunner_jobs WHERE seq = ({_FIRST_OF_TASK.format("")})
    UNION ALL
    SELECT job.seq, job.task, job.priority, job.run_at FROM first
    JOIN jobrunner_jobs job ON job.seq = ({_FIRST_OF_TASK.format("AND task > first.task")})
)
SELECT -priority, run_at, seq, task FROM first"""

RANK = f"""
SELECT -priority, run_at, seq FROM jobrunner_jobs INDEXED BY jobrunner_jobs_queued
WHERE {_RUNNABLE} AND task = :task
ORDER BY priority DESC, run_at, seq LIMIT :limit"""

SUSPECTS = """
SELECT seq, task, lane FROM jobrunner_jobs
WHERE state = 'queued' AND suspect = 1 AND queue = ? AND (expires_at IS NULL OR expires_at > ?)
ORDER BY priority DESC, run_at, seq"""

CANCEL_REQUESTS = """
SELECT seq, lease FROM jobrunner_jobs WHERE state = 'running' AND cancel_requested = 1 AND worker = ?"""
