"""Keeps ``max_waiting``: counts the jobs that are due and wait in a queue, in the transaction that adds some."""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.errors import QueueFull
from jobrunner.core.model import Enqueue, Enqueued
from jobrunner.store.sqlite.sql.statements import LANED, PLAIN

_MOST: Final = """
SELECT name, coalesce(set_max_waiting, max_waiting) FROM jobrunner_limits
WHERE scope = 'queue' AND coalesce(set_max_waiting, max_waiting) IS NOT NULL"""

_COUNT: Final = " UNION ALL ".join(
    f"SELECT count(*) FROM (SELECT 1 FROM jobrunner_jobs WHERE {condition} AND queue = :queue LIMIT :most)"
    for condition in (PLAIN, LANED, "state = 'queued' AND suspect = 1")
)


class Waiting:
    """The numbers of jobs that wait in limited queues, in one transaction."""

    def __init__(self, conn: sqlite3.Connection, most: Mapping[str, int], spare: int) -> None:
        self._most = most
        self._waiting: Counter[str] = Counter()
        for queue, limit in most.items():
            counts = conn.execute(_COUNT, {"queue": queue, "most": limit + spare}).fetchall()
            self._waiting[queue] = sum(count for (count,) in counts)

    @classmethod
    def of(cls, conn: sqlite3.Connection, jobs: Sequence[Enqueue]) -> "Waiting | None":
        """Count before jobs are added; return None if none of their queues has a limit."""
        most = dict(conn.execute(_MOST).fetchall())
        if not most:
            return None
        limited = {job.queue for job in jobs} & most.keys()
        if not limited:
            return None
        return cls(conn, {queue: most[queue] for queue in limited}, len(jobs))

    def fits(self, jobs: Sequence[Enqueue]) -> bool:
        """Return whether there is room for the jobs, if all are due."""
        added = Counter(job.queue for job in jobs)
        return all(
            self._waiting[queue] + added[queue] <= most for queue, most in self._most.items()
        )

    def add(self, stored: Sequence[Enqueued]) -> QueueFull | None:
        """Count the jobs of one call after they were stored; return the error if they must go again."""
        added = _due(stored)
        for queue, most in self._most.items():
            if added[queue] and self._waiting[queue] + added[queue] > most:
                return QueueFull(
                    f"the call adds {added[queue]:,} job(s) to queue {queue!r}, where {self._waiting[queue]:,} wait"
                    f" and {most:,} may: try again later, or write `await jobs.limits.set(queue={queue!r},"
                    f" max_waiting={2 * most})`"
                )
        self._waiting.update(added)
        return None

    def without(self, stored: Sequence[Enqueued]) -> "Waiting":
        """Take jobs out of the count that were stored before it."""
        self._waiting.subtract(_due(stored))
        return self


def exceeded(
    conn: sqlite3.Connection, jobs: Sequence[Enqueue], stored: Sequence[Enqueued]
) -> QueueFull | None:
    """Return the error if too many jobs wait now that these are stored; the caller rolls back."""
    waiting = Waiting.of(conn, jobs)
    return None if waiting is None else waiting.without(stored).add(stored)


def _due(stored: Sequence[Enqueued]) -> Counter[str]:
    return Counter(one.queue for one in stored if one.created and one.state == "queued")
