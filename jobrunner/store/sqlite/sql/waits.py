"""Finds the limits that hold queued jobs back, inside a read transaction."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.limits import Limit, LimitScope, Wait, task_of_lane
from jobrunner.core.model import JobRow
from jobrunner.store.sqlite.sql.laned import OWN, RUNNING
from jobrunner.store.sqlite.sql.limits import Limits, limit_of

_OLDEST: Final = """
SELECT seq, id FROM jobrunner_jobs INDEXED BY jobrunner_jobs_ordered
WHERE lane = ? AND ordered = 1 AND (state = 'scheduled' OR state = 'queued' OR state = 'running')
ORDER BY seq LIMIT 1"""


def waits_of(conn: sqlite3.Connection, jobs: Sequence[JobRow], now: int) -> Mapping[int, Wait]:
    """Return what holds queued jobs back; see ``LimitStore.waits``."""
    search = _Search(conn, now)
    found = ((job.seq, search.wait_of(job)) for job in jobs)
    return {seq: wait for seq, wait in found if wait is not None}


class _Search:
    """The limits of several jobs, each counted once."""

    def __init__(self, conn: sqlite3.Connection, now: int) -> None:
        self._conn = conn
        self._now = now
        self._limits = Limits(conn, now)
        self._lanes: dict[str, tuple[Limit, int, tuple[int, str] | None]] = {}
        """Of each lane its limit, the number of its running jobs, and the oldest of its ordered jobs."""

    def wait_of(self, job: JobRow) -> Wait | None:
        oldest = None
        counted: list[tuple[LimitScope, str, Limit]] = [
            ("queue", job.queue, self._limits.shared("queue", job.queue)),
            ("task", job.task, self._limits.shared("task", job.task)),
        ]
        if job.lane is not None:
            limit, _, oldest = self._lane(job.lane)
            counted.append(("lane", job.lane, limit))
        if oldest is not None and oldest[0] < job.seq:
            return Wait("order", oldest[1])
        for scope, name, limit in counted:
            if limit.concurrency is not None:
                running = self._running(scope, name)
                if running >= limit.concurrency:
                    return Wait("limit", _text(scope, name), running, limit.concurrency)
        for scope, name, limit in counted:
            if limit.rate is not None:
                bucket = self._limits.buckets.of(scope, name, limit.rate)
                if bucket.tokens <= 0:
                    return Wait("rate", _text(scope, name), next_at=bucket.next_at)
        return None

    def _running(self, scope: LimitScope, name: str) -> int:
        return self._lane(name)[1] if scope == "lane" else self._limits.running(scope, name)

    def _lane(self, lane: str) -> tuple[Limit, int, tuple[int, str] | None]:
        found = self._lanes.get(lane)
        if found is None:
            limit = self._limits.lanes.get(task_of_lane(lane), Limit())
            own = self._conn.execute(OWN, (lane,)).fetchone()
            if own is not None:
                limit = limit.overridden(limit_of(*own))
            (running,) = self._conn.execute(RUNNING.format("?"), (lane,)).fetchone()
            oldest = self._conn.execute(_OLDEST, (lane,)).fetchone()
            found = self._lanes[lane] = limit, running, oldest
        return found


def _text(scope: LimitScope, name: str) -> str:
    return name if scope == "lane" else f"{scope} {name}"
