"""Keeps ``max_waiting``: counts the jobs that are due and wait in a queue, in the transaction that adds some.

Enqueues into a queue with such a limit take turns behind its lock, from before the count until the commit.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.errors import QueueFull
from jobrunner.core.model import Enqueue, Enqueued
from jobrunner.store.postgres import locks
from jobrunner.store.postgres.sql.states import LANED, PLAIN, SUSPECT
from jobrunner.store.postgres.sql.transaction import Transaction

_MOST: Final = """
SELECT name, coalesce(set_max_waiting, max_waiting) FROM jobrunner.limits
WHERE scope = 'queue' AND coalesce(set_max_waiting, max_waiting) IS NOT NULL"""

_COUNT: Final = "SELECT " + " + ".join(
    f"(SELECT count(*) FROM (SELECT FROM jobrunner.jobs WHERE {condition} AND queue = $1 LIMIT $2) few)"
    for condition in (PLAIN, LANED, SUSPECT)
)


class Waiting:
    """The numbers of jobs that wait in limited queues, in one transaction."""

    def __init__(self, most: Mapping[str, int]) -> None:
        self._most = most
        self._waiting = Counter[str]()

    @classmethod
    async def of(cls, tx: Transaction, jobs: Sequence[Enqueue]) -> "Waiting | None":
        """Count before jobs are added; return None if none of their queues has a limit."""
        most = dict(map(tuple, await tx.fetch(_MOST)))
        limited = {job.queue for job in jobs} & most.keys() if most else set()
        if not limited:
            return None
        await locks.lock_all(tx.connection, map(locks.of_queue, limited))
        self = cls({queue: most[queue] for queue in limited})
        for queue, limit in self._most.items():
            self._waiting[queue] = await tx.fetchval(_COUNT, queue, limit + len(jobs))
        return self

    def fits(self, jobs: Sequence[Enqueue]) -> bool:
        """Return whether there is room for the jobs, if all are due."""
        added = Counter(job.queue for job in jobs)
        return all(
            self._waiting[queue] + added[queue] <= most for queue, most in self._most.items()
        )

    def add(self, stored: Sequence[Enqueued]) -> None:
        """Count the jobs of one call after they were stored.

        Raises:
            QueueFull: Too many would wait: the jobs must go again.
        """
        added = Counter(one.queue for one in stored if one.created and one.state == "queued")
        for queue, most in self._most.items():
            if added[queue] and self._waiting[queue] + added[queue] > most:
                raise QueueFull(
                    f"the call adds {added[queue]:,} job(s) to queue {queue!r}, where {self._waiting[queue]:,} wait"
                    f" and {most:,} may: try again later, or write `await jobs.limits.set(queue={queue!r},"
                    f" max_waiting={2 * most})`"
                )
        self._waiting.update(added)
