"""Reads jobs, dead letters and queues inside a transaction."""

from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.model import AttemptRow, Filter, JobRow, State
from jobrunner.store.job_protocol import Count, RowPage
from jobrunner.store.postgres.sql import walks
from jobrunner.store.postgres.sql.states import (
    FINISHED,
    LANED,
    PLAIN,
    RETRYING,
    SUSPECT,
    UNFINISHED,
    WAITING,
)
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.sql.walks import EVERYTHING, Condition, Found, Rows

FEW: Final = 2_000
"""If a state has at most this many jobs, a list reads them all; else it walks all jobs, and soon finds enough."""
PAGE_ROOM: Final = 4_000_000
"""Maximum characters of arguments, errors and tracebacks on a page."""
MOST_BESIDE: Final = 100
"""The jobs of a chain that are read on each side of one."""

_JOB: Final = f"""
    seq, id, task, queue, state, args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, finished_at, result, result_omitted, cancel_requested, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after, trace, lane,
    (SELECT value FROM jobrunner.progress WHERE job = seq AND lease = jobs.lease),
    (SELECT batches.id FROM jobrunner.batches WHERE batches.seq = jobs.batch), handed, {RETRYING}"""
_LISTED_JOB: Final = (
    _JOB.replace(" args,", " '',")
    .replace(" result,", " NULL::text,")
    .replace(" handed", " NULL::text")
    .partition(",")[2]
)
"""The columns after the key; without arguments and results, which may have a megabyte each."""
_NO_DEATH: Final = ", NULL::text" * 6

_LETTER: Final = """
    seq, id, task, queue, 'dead', args, created_at, run_at, attempt, priority, key, tag, expires_at, max_attempts,
    timeout, started_at, first_started_at, died_at, NULL::text, NULL::text, false, crashes, replays,
    replay_of, schedule, scheduled_for, chain, after, trace, lane,
    (SELECT value FROM jobrunner.progress WHERE job = seq AND lease = dead_letters.lease),
    (SELECT batches.id FROM jobrunner.batches WHERE batches.seq = dead_letters.batch), handed, false,
    reason, error_type, error, traceback, replayed_as, fingerprint"""

_BY_STATE: Final[Mapping[State | None, str]] = {
    # Each is a scan of the partial index of its state.
    "queued": f"SELECT seq FROM jobrunner.jobs WHERE {PLAIN} UNION ALL SELECT seq FROM jobrunner.jobs WHERE {LANED}"
    f" UNION ALL SELECT seq FROM jobrunner.jobs WHERE {SUSPECT}",
    **{
        state: f"SELECT seq FROM jobrunner.jobs WHERE state = '{state}'"
        for state in ("scheduled", "running", "blocked", "cancelled", "expired")
    },
}
_RETRYING: Final = f"SELECT seq FROM jobrunner.jobs WHERE {RETRYING}"
_FINISHED: Final = f"SELECT FROM jobrunner.jobs WHERE {FINISHED}"
_UNFINISHED: Final = " UNION ALL ".join(
    _BY_STATE[state] for state in ("queued", "scheduled", "running", "blocked")
)

# One statement, so of one snapshot: a job moves between the tables when it dies and when it is replayed.
_GET: Final = f"""
SELECT {_JOB}{_NO_DEATH} FROM jobrunner.jobs WHERE {{0}}
UNION ALL SELECT {_LETTER} FROM jobrunner.dead_letters WHERE {{0}}"""
_GET_BY_ID: Final = _GET.format("id = $1")
_LISTED_LETTER: Final = _LETTER.replace(" args,", " '',")
_GET_LISTED: Final = f"""
SELECT seq, {_LISTED_JOB}{_NO_DEATH} FROM jobrunner.jobs WHERE id = ANY ($1::text[])
UNION ALL SELECT {_LISTED_LETTER} FROM jobrunner.dead_letters WHERE id = ANY ($1::text[])"""


async def get(tx: Transaction, id: str) -> JobRow | None:
    """Return a job or dead letter by its id."""
    if "\0" in id:
        return None
    row = await tx.fetchrow(_GET_BY_ID, id)
    return None if row is None else JobRow(*row)


async def listed(tx: Transaction, ids: Sequence[str]) -> list[JobRow]:
    """Return jobs and dead letters by id, without arguments and results."""
    return [JobRow(*row) for row in await tx.fetch(_GET_LISTED, ids)]


async def everything(tx: Transaction) -> Sequence[JobRow]:
    """Return all jobs and dead letters, for the small stores of tests."""
    return [JobRow(*row) for row in await tx.fetch(_GET.format("true"))]


async def attempts(tx: Transaction, seq: int) -> Sequence[AttemptRow]:
    """Return a job's attempts, oldest first, the running one last."""
    rows = await tx.fetch(
        """
        SELECT attempt, lease, worker, started_at, finished_at, outcome, error_type, error, traceback
        FROM jobrunner.attempts WHERE job = $1
        UNION ALL
        SELECT attempt, lease, worker, started_at, NULL, NULL, NULL, NULL, NULL
        FROM jobrunner.jobs WHERE seq = $1 AND state = 'running'
        ORDER BY lease
        """,
        seq,
    )
    return [AttemptRow(*row) for row in rows]


# -- lists ---------------------------------------------------------------------------------------------


async def jobs(tx: Transaction, where: Filter, before: int | None, limit: int) -> RowPage:
    """Return a page of jobs, newest first, without arguments and results."""
    found = await walks.page(tx, await _jobs(tx, where), _LISTED_JOB, before, limit)
    return RowPage([JobRow(*row) for row in found.rows], found.next, found.complete)


async def count_jobs(tx: Transaction, where: Filter, cap: int, seconds: float | None) -> Count:
    """Count jobs."""
    return await walks.count(tx, await _jobs(tx, where), cap=cap, seconds=seconds)


async def _jobs(tx: Transaction, where: Filter) -> Rows:
    """Return the rows to walk: jobs that match ``where``."""
    rows = Rows("jobrunner.jobs", "seq", job_test(where))
    if where.batch is not None or where.key is not None or where.tag is not None:
        return rows._replace(window=EVERYTHING)
    if where.retrying:
        return await _if_few(tx, rows, _RETRYING) or rows
    if where.state in _BY_STATE:
        return await _if_few(tx, rows, _BY_STATE[where.state]) or rows
    return rows


async def unfinished(tx: Transaction, where: Filter, before: int | None, limit: int) -> Found:
    """Return a page of unfinished jobs: seq, id, state and chain."""
    rows = Rows("jobrunner.jobs", "seq", job_test(where, UNFINISHED))
    among = _RETRYING if where.retrying else _BY_STATE.get(where.state, _UNFINISHED)
    few = None if where.batch is not None else await _if_few(tx, rows, among)
    if few is not None:
        rows = few
    elif where.batch is not None or where.key is not None or where.tag is not None:
        rows = rows._replace(window=EVERYTHING)
    return await walks.page(tx, rows, "id, state, chain", before, limit)


async def waiting(tx: Transaction, seqs: Sequence[int], where: Filter) -> list[JobRow]:
    """Return those of these jobs that wait and match a filter; arguments are left out."""
    test = job_test(where, WAITING, first=2)
    rows = await tx.fetch(
        f"SELECT seq, {_LISTED_JOB} FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]) AND {test.text}",
        *(seqs, *test.values),
    )
    return [JobRow(*row) for row in rows]


async def _if_few(tx: Transaction, rows: Rows, among: str) -> Rows | None:
    """Restrict a walk to the jobs of a statement; None if it has more than ``FEW``."""
    few = await tx.fetch(f"{among} LIMIT {FEW + 1}")
    if len(few) > FEW:
        return None
    rows.where.add("seq = ANY ({}::bigint[])", [seq for (seq,) in few])
    return rows._replace(window=EVERYTHING)


async def dead_letters(tx: Transaction, where: Filter, before: int | None, limit: int) -> RowPage:
    """Return a page of dead letters, most recent death first."""
    found = await walks.page(tx, letters(where), _LETTER, before, limit, PAGE_ROOM)
    return RowPage([JobRow(*tuple(row)[1:]) for row in found.rows], found.next, found.complete)


async def count_dead_letters(
    tx: Transaction, where: Filter, cap: int, seconds: float | None
) -> Count:
    """Count dead letters."""
    return await walks.count(tx, letters(where), cap=cap, seconds=seconds)


def letters(where: Filter) -> Rows:
    """Return the rows to walk: dead letters that match ``where`` and were not replayed."""
    condition = _test(where, "replayed_as IS NULL", since="died_at")
    rows = Rows("jobrunner.dead_letters", "letter", condition)
    # The indexes of batches and of groups have the dead letters of one.
    if where.batch is None and where.group is None:
        return rows
    return rows._replace(window=EVERYTHING)


def job_test(where: Filter, *tests: str, first: int = 1) -> Condition:
    """Return a condition on the columns of jobs for a filter, with its values."""
    return _test(where, *tests, since="created_at", first=first)


def _test(where: Filter, *tests: str, since: str, first: int = 1) -> Condition:
    tests = (*tests, *((RETRYING,) if where.retrying else ()))
    condition = Condition(*tests, first=first)
    asked = {
        "task = {}": where.task,
        "queue = {}": where.queue,
        "state = {}": where.state,
        "reason = {}": where.reason,
        "tag = {}": where.tag,
        "key = {}": where.key,
        "fingerprint = {}": where.group,
        f"{since} >= {{}}": where.since,
        f"{since} < {{}}": where.until,
    }
    for test, value in asked.items():
        if value is not None:
            condition.add(test, value)
    if where.batch is not None:
        in_batch = "batch = (SELECT batches.seq FROM jobrunner.batches WHERE batches.id = {})"
        condition.add(f"batch IS NOT NULL AND {in_batch}", where.batch)
    return condition


async def chain(tx: Transaction, job: JobRow) -> Sequence[JobRow]:
    """Return the jobs stored in the chain of a job, in their order.

    They were inserted together, so their numbers are neighbours; an index of chains would cost each one an entry.
    """
    if job.chain is None:
        return []
    found: list[JobRow] = []
    for columns, table in (
        (f"seq, {_LISTED_JOB}", "jobrunner.jobs"),
        (_LISTED_LETTER, "jobrunner.dead_letters"),
    ):
        rows = await tx.fetch(
            f"SELECT {columns} FROM {table} WHERE chain = $1 AND seq BETWEEN $2 AND $3",
            *(job.chain, job.seq - MOST_BESIDE, job.seq + MOST_BESIDE),
        )
        found += [JobRow(*row) for row in rows]
    return sorted(found, key=lambda row: row.seq)


# -- counts --------------------------------------------------------------------------------------------


async def counts(tx: Transaction, cap: int) -> dict[str, int]:
    """Count the jobs in each state but ``dead``, and the retrying ones."""

    async def count(select: str, most: int) -> int:
        return int(await tx.fetchval(f"SELECT count(*) FROM ({select} LIMIT $1) few", most))

    found = {str(state): await count(select, cap) for state, select in _BY_STATE.items()}
    # Only the other finished jobs have no index of their own, so what remains of all finished ones is counted.
    other = found["cancelled"] + found["expired"]
    finished = await count(_FINISHED, cap + other)
    return found | {
        "retrying": await count(_RETRYING, cap),
        "succeeded": min(finished - other, cap),
    }
