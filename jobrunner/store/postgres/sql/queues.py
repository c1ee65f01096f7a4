"""Reads how many jobs wait and run in each queue, inside a read transaction."""

from collections.abc import Sequence
from typing import Any, Final

from jobrunner.core.model import QueueStats
from jobrunner.store.postgres.sql.states import LANED, PLAIN, SUSPECT
from jobrunner.store.postgres.sql.transaction import Transaction

COUNT_CAP: Final = 10_000
"""Counting stops at this number, so that a long queue does not make a page slower."""

_BY_QUEUE: Final = """
SELECT queue, count(*) FROM (SELECT queue FROM jobrunner.jobs WHERE {} LIMIT $1) few GROUP BY queue"""
_QUEUED: Final = f"""
SELECT count(*) FROM (
    SELECT FROM jobrunner.jobs WHERE {PLAIN} AND queue = $2
    UNION ALL SELECT FROM jobrunner.jobs WHERE {LANED} AND queue = $2 LIMIT $1
) few"""
# One index seek for each queue and task that has queued jobs, whatever is queued.
_PAIRS: Final = """
WITH RECURSIVE pairs (queue, task) AS (
    (SELECT queue, task FROM jobrunner.jobs WHERE {0} ORDER BY queue, task LIMIT 1)
    UNION ALL
    SELECT next.queue, next.task FROM pairs, LATERAL (
        SELECT queue, task FROM jobrunner.jobs WHERE {0} AND (queue, task) > (pairs.queue, pairs.task)
        ORDER BY queue, task LIMIT 1
    ) AS next
)
SELECT queue, task FROM pairs"""
# One seek for each priority: a job of lower priority that starves behind the first one must be found.
_OLDEST_PLAIN: Final = f"""
WITH RECURSIVE firsts (priority, run_at) AS (
    (SELECT priority, run_at FROM jobrunner.jobs WHERE {PLAIN} AND queue = $1 AND task = $2
        ORDER BY priority DESC, run_at LIMIT 1)
    UNION ALL
    SELECT next.priority, next.run_at FROM firsts, LATERAL (
        SELECT priority, run_at FROM jobrunner.jobs
        WHERE {PLAIN} AND queue = $1 AND task = $2 AND priority < firsts.priority
        ORDER BY priority DESC, run_at LIMIT 1
    ) AS next
)
SELECT min(run_at) FROM firsts"""
_OLDEST_LANED: Final = f"""
SELECT min(run_at) FROM (
    SELECT run_at FROM jobrunner.jobs WHERE {LANED} AND queue = $1 AND task = $2 LIMIT {COUNT_CAP}
) few"""


async def queues(tx: Transaction) -> Sequence[QueueStats]:
    """Return the queues that have unfinished jobs or are paused."""
    paused = await _by_name(tx, "SELECT queue, paused_at FROM jobrunner.paused_queues")
    running = await _by_name(
        tx, "SELECT queue, count(*) FROM jobrunner.jobs WHERE state = 'running' GROUP BY queue"
    )
    waiting = await waiting_tasks(tx)
    queued = {
        name: await tx.fetchval(_QUEUED, COUNT_CAP, name) for name in {name for name, *_ in waiting}
    }
    suspects = await _by_name(tx, _BY_QUEUE.format(SUSPECT), COUNT_CAP)
    scheduled = await _by_name(
        tx, _BY_QUEUE.format("state = 'scheduled' ORDER BY run_at"), COUNT_CAP
    )
    blocked = await _by_name(tx, _BY_QUEUE.format("state = 'blocked'"), COUNT_CAP)
    over_all = all(sum(one.values()) < COUNT_CAP for one in (suspects, scheduled, blocked))
    oldest: dict[str, int] = {}
    for name, _, due in waiting:
        oldest[name] = min(due, oldest.get(name, due))
    return [
        QueueStats(
            name,
            name in paused,
            queued.get(name, 0) + suspects.get(name, 0),
            scheduled.get(name, 0),
            blocked.get(name, 0),
            running.get(name, 0),
            oldest.get(name),
            over_all and queued.get(name, 0) < COUNT_CAP,
            paused.get(name),
        )
        for name in sorted({*paused}.union(running, queued, suspects, scheduled, blocked))
    ]


async def _by_name(tx: Transaction, statement: str, *values: object) -> dict[str, int]:
    rows: Sequence[Any] = await tx.fetch(statement, *values)
    return dict(map(tuple, rows))


async def waiting_tasks(tx: Transaction) -> Sequence[tuple[str, str, int]]:
    """Return ``(queue, task, due_since)`` for each pair with queued jobs."""
    suspects = await tx.fetch(
        f"SELECT queue, task, min(run_at) FROM jobrunner.jobs WHERE {SUSPECT} GROUP BY queue, task"
    )
    due_since: dict[tuple[str, str], int] = {(queue, task): due for queue, task, due in suspects}
    for condition, oldest in ((PLAIN, _OLDEST_PLAIN), (LANED, _OLDEST_LANED)):
        for queue, task in await tx.fetch(_PAIRS.format(condition)):
            due = await tx.fetchval(oldest, queue, task)
            due_since[queue, task] = min(due, due_since.get((queue, task), due))
    return [(queue, task, due) for (queue, task), due in sorted(due_since.items())]
