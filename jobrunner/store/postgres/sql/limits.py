"""Reads limits and counts running jobs and tokens, in the transaction of a claim.

What is counted is locked before, by an earlier statement: the count then sees what the last holder has committed.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from jobrunner.core.limits import Limit, LimitScope, RateLimit
from jobrunner.core.model import Claimed, Outcome
from jobrunner.store.limits import NO_ROOM_LIMIT, Bucket
from jobrunner.store.postgres.sql.transaction import Transaction

# Held until the commit: the next claim under the limit waits for it. A claim takes these locks last of all that it
# waits for, and in this order, so no two claims wait for each other.
_LOCK: Final = """
SELECT FROM jobrunner.limits
WHERE coalesce(set_concurrency, concurrency, set_rate, rate) IS NOT NULL
    AND (scope = 'queue' AND name = ANY ($1::text[]) OR scope = 'task' AND name = ANY ($2::text[]))
ORDER BY scope, name FOR NO KEY UPDATE"""

# Not those of single lanes, of which there may be thousands: a claim reads them lane by lane.
_SHARED: Final = """
SELECT scope, name, coalesce(set_concurrency, concurrency),
    CASE WHEN set_rate IS NULL THEN rate ELSE set_rate END, CASE WHEN set_rate IS NULL THEN per ELSE set_per END,
    CASE WHEN set_rate IS NULL THEN burst ELSE set_burst END
FROM jobrunner.limits WHERE scope > 'lane'"""

_RUNNING: Final = """
SELECT queue, task, count(*) FROM jobrunner.jobs WHERE state = 'running' GROUP BY queue, task"""

_FULL_AT: Final = """
SELECT name, full_at FROM jobrunner.buckets WHERE scope = $1 AND name = ANY ($2::text[])"""
_STORE: Final = """
INSERT INTO jobrunner.buckets (scope, name, full_at) SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
ON CONFLICT (scope, name) DO UPDATE SET full_at = excluded.full_at"""


def limit_of(
    concurrency: int | None, rate: int | None, per: int | None, burst: int | None
) -> Limit:
    """Return a limit from its columns."""
    if rate is None or per is None or burst is None:
        return Limit(concurrency)
    return Limit(concurrency, RateLimit(rate, per, burst))


class Buckets:
    """The buckets that one claim reads and takes from."""

    def __init__(self, tx: Transaction, now: int) -> None:
        self._tx = tx
        self._now = now
        self._found: dict[tuple[LimitScope, str], Bucket] = {}

    async def load(self, scope: LimitScope, rates: Mapping[str, RateLimit]) -> None:
        """Read buckets, as they are now."""
        wanted = [name for name in rates if (scope, name) not in self._found]
        if wanted:
            full_at = dict(map(tuple, await self._tx.fetch(_FULL_AT, scope, wanted)))
            for name in wanted:
                self._found[scope, name] = Bucket(rates[name], full_at.get(name), self._now)

    def of(self, scope: LimitScope, name: str) -> Bucket:
        """Return a bucket that was loaded."""
        return self._found[scope, name]

    async def store(self) -> None:
        """Write the buckets that have changed."""
        changed = [
            (*name, bucket.full_at)
            for name, bucket in sorted(self._found.items())
            if bucket.changed
        ]
        if changed:
            await self._tx.execute(_STORE, *zip(*changed, strict=True))


class Limits:
    """The limits of queues, tasks and lanes, as one claim applies them."""

    def __init__(self, tx: Transaction, now: int) -> None:
        self.buckets = Buckets(tx, now)
        self.lanes: dict[str, Limit] = {}
        """The limit of each lane, by task."""
        self._shared: dict[tuple[LimitScope, str], Limit] = {}
        self._rooms: dict[tuple[LimitScope, str], int] = {}
        self._running = Counter[tuple[LimitScope, str]]()

    @classmethod
    async def locked(
        cls, tx: Transaction, now: int, queues: Collection[str], tasks: Collection[str]
    ) -> "Limits":
        """Lock the limits of these queues and tasks, and read all."""
        await tx.execute(_LOCK, list(queues), list(tasks))
        return await cls.read(tx, now)

    @classmethod
    async def read(cls, tx: Transaction, now: int) -> "Limits":
        """Read all limits but those of single lanes, with what runs and the buckets."""
        self = cls(tx, now)
        for scope, name, *numbers in await tx.fetch(_SHARED):
            limit = limit_of(*numbers)
            if scope == "lanes":
                self.lanes[name] = limit
            elif limit != Limit():
                self._shared[scope, name] = limit
        if any(limit.concurrency is not None for limit in self._shared.values()):
            for queue, task, number in await tx.fetch(_RUNNING):
                self._running["queue", queue] += number
                self._running["task", task] += number
        scopes: Sequence[LimitScope] = ("queue", "task")
        for scope in scopes:
            rates = {
                name: limit.rate
                for (of, name), limit in self._shared.items()
                if of == scope and limit.rate is not None
            }
            await self.buckets.load(scope, rates)
        return self

    def shared(self, scope: LimitScope, name: str) -> Limit:
        """Return the limit of a queue or a task; an empty one if it has none."""
        return self._shared.get((scope, name), Limit())

    def running(self, scope: LimitScope, name: str) -> int:
        """Return the number of running jobs of a limited queue or task."""
        return self._running[scope, name]

    def room(self, scope: LimitScope, name: str) -> int:
        """Return how many more jobs of a queue or a task may start now."""
        limit = self._shared.get((scope, name))
        if limit is None:
            return NO_ROOM_LIMIT
        room = self._rooms.get((scope, name))
        if room is None:
            room = NO_ROOM_LIMIT
            if limit.concurrency is not None:
                room = limit.concurrency - self._running[scope, name]
            if limit.rate is not None:
                room = min(room, self.buckets.of(scope, name).tokens)
            room = self._rooms[scope, name] = max(room, 0)
        return room

    def with_room(self, tasks: frozenset[str]) -> frozenset[str]:
        """Return those of the tasks of which a job may start."""
        full = {name for name, room in self.rooms(tasks).items() if room == 0}
        return tasks - full if full else tasks

    def take(self, jobs: Iterable[Claimed]) -> None:
        """Count jobs that the claim starts."""
        for job in jobs if self._shared else ():
            self._take("queue", job.queue)
            self._take("task", job.task)

    def _take(self, scope: LimitScope, name: str) -> None:
        limit = self._shared.get((scope, name))
        if limit is not None:
            self._rooms[scope, name] = self.room(scope, name) - 1
            if limit.rate is not None:
                self.buckets.of(scope, name).take(1)

    def next_token_at(self) -> int | None:
        """Return when the first empty bucket of a queue or task has tokens again."""
        empty = [
            self.buckets.of(*name)
            for name, limit in self._shared.items()
            if limit.rate is not None and self._rooms.get(name) == 0
        ]
        return min((bucket.next_at for bucket in empty if bucket.tokens <= 0), default=None)

    def rooms(self, tasks: frozenset[str]) -> dict[str, int]:
        """Return how many jobs may still start of each limited task."""
        limited = [name for scope, name in self._shared if scope == "task" and name in tasks]
        return {name: self.room("task", name) for name in limited}

    def freed(self, outcomes: Sequence[Outcome]) -> int:
        """Return how many outcomes have freed a place in a limited queue or task."""
        limited: set[Any] = {
            name for name, limit in self._shared.items() if limit.concurrency is not None
        }
        if not limited:
            return 0
        return sum(
            ("queue", one.job.queue) in limited or ("task", one.job.task) in limited
            for one in outcomes
        )
