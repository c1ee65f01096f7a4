"""Reads limits and counts running jobs and tokens, in the transaction of a claim."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from jobrunner.core.limits import Limit, LimitScope, RateLimit
from jobrunner.core.model import Claimed, Outcome
from jobrunner.store.limits import NO_ROOM_LIMIT, Bucket

# Not those of single lanes, of which there may be thousands: a claim reads them lane by lane.
_SHARED: Final = """
SELECT scope, name, coalesce(set_concurrency, concurrency), iif(set_rate IS NULL, rate, set_rate),
    iif(set_rate IS NULL, per, set_per), iif(set_rate IS NULL, burst, set_burst)
FROM jobrunner_limits WHERE scope > 'lane'"""

_RUNNING: Final = """
SELECT queue, task FROM jobrunner_jobs INDEXED BY jobrunner_jobs_running WHERE state = 'running'"""

_FULL_AT: Final = "SELECT full_at FROM jobrunner_buckets WHERE scope = ? AND name = ?"
_STORE: Final = """
INSERT INTO jobrunner_buckets VALUES (?, ?, ?) ON CONFLICT (scope, name) DO UPDATE SET full_at = excluded.full_at"""


def limit_of(
    concurrency: int | None, rate: int | None, per: int | None, burst: int | None
) -> Limit:
    """Return a limit from its columns."""
    if rate is None or per is None or burst is None:
        return Limit(concurrency)
    return Limit(concurrency, RateLimit(rate, per, burst))


class Buckets:
    """The buckets that one claim reads and takes from."""

    def __init__(self, conn: sqlite3.Connection, now: int) -> None:
        self._conn = conn
        self._now = now
        self._found: dict[tuple[LimitScope, str], Bucket] = {}

    def of(self, scope: LimitScope, name: str, rate: RateLimit) -> Bucket:
        """Return a bucket as it is now."""
        bucket = self._found.get((scope, name))
        if bucket is None:
            row = self._conn.execute(_FULL_AT, (scope, name)).fetchone()
            bucket = self._found[scope, name] = Bucket(rate, row and row[0], self._now)
        return bucket

    def store(self) -> None:
        """Write the buckets that have changed."""
        changed = [
            (*name, bucket.full_at) for name, bucket in self._found.items() if bucket.changed
        ]
        if changed:
            self._conn.executemany(_STORE, changed)


class Limits:
    """The limits of queues, tasks and lanes, as one claim applies them.

    They are read anew for each claim, so that a change holds at once in every process.
    """

    def __init__(self, conn: sqlite3.Connection, now: int) -> None:
        self._conn = conn
        self.buckets = Buckets(conn, now)
        self.lanes: dict[str, Limit] = {}
        """The limit of each lane, by task."""
        self._shared: dict[tuple[str, str], Limit] = {}
        self._rooms: dict[tuple[str, str], int] = {}
        for scope, name, *numbers in conn.execute(_SHARED):
            limit = limit_of(*numbers)
            if scope == "lanes":
                self.lanes[name] = limit
            elif limit != Limit():
                self._shared[scope, name] = limit
        self._running: Counter[tuple[str, str]] | None = None

    def shared(self, scope: LimitScope, name: str) -> Limit:
        """Return the limit of a queue or task."""
        return self._shared.get((scope, name), Limit())

    def running(self, scope: LimitScope, name: str) -> int:
        """Return how many jobs run in a queue or of a task."""
        return self._count_running()[scope, name]

    def room(self, scope: LimitScope, name: str) -> int:
        """Return how many jobs may still start in a queue or of a task."""
        if not self._shared:
            return NO_ROOM_LIMIT
        limit = self._shared.get((scope, name))
        if limit is None:
            return NO_ROOM_LIMIT
        room = self._rooms.get((scope, name))
        if room is None:
            room = NO_ROOM_LIMIT
            if limit.concurrency is not None:
                room = limit.concurrency - self._count_running()[scope, name]
            if limit.rate is not None:
                room = min(room, self.buckets.of(scope, name, limit.rate).tokens)
            self._rooms[scope, name] = room = max(0, room)
        return room

    def with_room(self, tasks: frozenset[str]) -> frozenset[str]:
        """Return the tasks without those of which no job may start."""
        full = {name for name, room in self.rooms(tasks).items() if room == 0}
        return tasks - full if full else tasks

    def take(self, jobs: Iterable[Claimed]) -> None:
        """Count jobs that the claim starts."""
        if not self._shared:
            return
        for job in jobs:
            self._take("queue", job.queue)
            self._take("task", job.task)

    def _take(self, scope: LimitScope, name: str) -> None:
        limit = self._shared.get((scope, name))
        if limit is not None:
            self._rooms[scope, name] = self.room(scope, name) - 1
            if limit.rate is not None:
                self.buckets.of(scope, name, limit.rate).take(1)

    def next_token_at(self) -> int | None:
        """Return when the first empty bucket of a queue or task has tokens again."""
        empty = [
            self.buckets.of(scope, name, limit.rate)  # type: ignore[arg-type]
            for (scope, name), limit in self._shared.items()
            if limit.rate is not None and self._rooms.get((scope, name)) == 0
        ]
        return min((bucket.next_at for bucket in empty if bucket.tokens <= 0), default=None)

    def rooms(self, tasks: frozenset[str]) -> dict[str, int]:
        """Return how many jobs may still start of each limited task."""
        limited = [name for scope, name in self._shared if scope == "task" and name in tasks]
        return {name: self.room("task", name) for name in limited}

    def freed(self, outcomes: Sequence[Outcome]) -> int:
        """Return how many outcomes have freed a place in a limited queue or task."""
        limited = {name for name, limit in self._shared.items() if limit.concurrency is not None}
        if not limited:
            return 0
        return sum(
            ("queue", one.job.queue) in limited or ("task", one.job.task) in limited
            for one in outcomes
        )

    def _count_running(self) -> Counter[tuple[str, str]]:
        if self._running is None:
            self._running = Counter()
            for queue, task in self._conn.execute(_RUNNING):
                self._running["queue", queue] += 1
                self._running["task", task] += 1
        return self._running
