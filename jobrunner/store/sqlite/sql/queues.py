"""Reads how many jobs wait and run in each queue, inside a read transaction."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from jobrunner.core.clock import now_s
from jobrunner.core.model import QueueStats
from jobrunner.store.sqlite.sql import walks
from jobrunner.store.sqlite.sql.statements import (
    LANED,
    LANED_BEHIND,
    LANED_OF_TASK,
    PLAIN,
    WAITING_LANED_TASKS,
    WAITING_TASKS,
)

COUNT_CAP: Final = 10_000
"""Counting stops at this number, so that a long queue does not make a page slower."""
LANES_READ: Final = 1_000
"""The lanes of a task in which the oldest job is searched."""
COUNT_S: Final = 0.01
"""Counting stops after this time, however many queues there are."""
_CAPS: Final = (100, 1_000, COUNT_CAP)
"""Every queue is counted up to the first cap; then, as long as there is time, up to the next ones."""

SHORT: Final = 1_000
"""A reading counts up to this number in each queue; more is a long count."""
FIRST_LONG: Final = 20
"""The most long counts of a reading that no earlier one made; each takes about a millisecond."""
LONG_AGAIN: Final = 2
"""The most long counts of a reading that an earlier one made already."""
REMEMBERED_S: Final = 300.0
"""A long count of an earlier reading is of use for this time."""

# Without the name of the queue, which would be read and copied for each row.
_QUEUED = f"""
SELECT 1 FROM jobrunner_jobs WHERE {PLAIN} AND queue = :queue
UNION ALL SELECT 1 FROM jobrunner_jobs WHERE {LANED} AND queue = :queue"""
_SUSPECTS = "SELECT queue FROM jobrunner_jobs WHERE state = 'queued' AND suspect = 1"
_SCHEDULED = "SELECT queue FROM jobrunner_jobs WHERE state = 'scheduled' ORDER BY run_at"
_BLOCKED = "SELECT queue FROM jobrunner_jobs WHERE state = 'blocked'"


_CountKey = tuple[str, str | None]
"""Names what is counted: its statement, and the queue if it is one."""


class _Count:
    """Counts rows by queue, up to a cap."""

    def __init__(self, select: str, queue: str | None = None) -> None:
        """``queue`` is the only one of the rows; None: sort them by queue, which takes six times as long."""
        self.by_queue: Mapping[str, int] = {}
        self.complete = False
        self.key: _CountKey = (select, queue)
        self._select = select
        self._counted = (
            "SELECT queue, count(*) FROM ({} LIMIT :cap) GROUP BY queue"
            if queue is None
            else "SELECT :queue, count(*) FROM ({} LIMIT :cap)"
        ).format(select)
        self._queue = queue

    def up_to(self, conn: sqlite3.Connection, cap: int) -> None:
        """Count to the end or to ``cap``."""
        self.by_queue = dict(conn.execute(self._counted, {"queue": self._queue, "cap": cap}))
        self.complete = sum(self.by_queue.values()) < cap

    def reaches(self, conn: sqlite3.Connection, number: int) -> bool:
        """Return whether there are so many rows, in half the time of a count."""
        found = conn.execute(
            f"SELECT 1 FROM ({self._select}) LIMIT 1 OFFSET :before",
            {"queue": self._queue, "before": number - 1},
        ).fetchone()
        return found is not None


Counting = Callable[[sqlite3.Connection, Sequence[_Count]], None]
"""Makes the counts, each as far as the caller wants it."""


def while_there_is_time(conn: sqlite3.Connection, counts: Sequence[_Count]) -> None:
    """Count up to the smallest cap, then to larger ones while there is time."""
    first, *larger = _CAPS
    for count in counts:
        count.up_to(conn, first)
    with walks.interrupted(conn, now_s() + COUNT_S):
        for cap in larger:
            for count in counts:
                if not count.complete:
                    count.up_to(conn, cap)


class _Remembered(NamedTuple):
    by_queue: Mapping[str, int]
    complete: bool
    counted_s: float


class InTurns:
    """Counts for a caller that reads again and again: short queues each time, long ones in turns.

    Each reading so takes a few milliseconds however many queues are long, and the number of a long queue is one that it
    had a few readings ago. With a time limit instead, it would jump between the caps with the load of the machine.

    One instance must not be called by two threads at once.
    """

    def __init__(self) -> None:
        self._long: dict[_CountKey, _Remembered] = {}
        """Long counts, the oldest first."""

    def __call__(self, conn: sqlite3.Connection, counts: Sequence[_Count]) -> None:
        """Make the counts."""
        since_s = now_s() - REMEMBERED_S
        by_key = {count.key: count for count in counts}
        kept = {
            key: one
            for key, one in self._long.items()
            if one.counted_s >= since_s and key in by_key
        }
        again = [*kept][:LONG_AGAIN]
        for key in again:
            del kept[key]
            by_key[key].up_to(conn, COUNT_CAP)
        first: list[_CountKey] = []
        for key, count in by_key.items():
            if key in again:
                continue
            if key in kept and count.reaches(conn, SHORT):
                count.by_queue, count.complete = kept[key].by_queue, kept[key].complete
                continue
            kept.pop(key, None)
            count.up_to(conn, SHORT)
            if not count.complete and len(first) < FIRST_LONG:
                first.append(key)
        for key in first:
            by_key[key].up_to(conn, COUNT_CAP)
        for key in (*again, *first):
            count = by_key[key]
            if sum(count.by_queue.values()) >= SHORT:
                kept[key] = _Remembered(count.by_queue, count.complete, now_s())
        self._long = kept


def queues(
    conn: sqlite3.Connection, counting: Counting = while_there_is_time
) -> Sequence[QueueStats]:
    """Return the queues that have unfinished jobs or are paused."""
    paused = dict(conn.execute("SELECT queue, paused_at FROM jobrunner_paused_queues"))
    running = dict(
        conn.execute(
            "SELECT queue, count(*) FROM jobrunner_jobs WHERE state = 'running' GROUP BY queue"
        )
    )
    queued = {name: _Count(_QUEUED, name) for name in _queues_with_queued(conn)}
    suspects, scheduled, blocked = _Count(_SUSPECTS), _Count(_SCHEDULED), _Count(_BLOCKED)
    over_all = (suspects, scheduled, blocked)
    # The scheduled ones last, since they take longest: they are sorted by queue.
    counting(conn, [suspects, blocked, *queued.values(), scheduled])
    oldest: dict[str, int] = {}
    for name, _, due in waiting_tasks(conn):
        oldest[name] = min(due, oldest.get(name, due))
    names = sorted({*paused}.union(running, queued, *(count.by_queue for count in over_all)))
    found: list[QueueStats] = []
    for name in names:
        waiting = (suspects, queued[name]) if name in queued else (suspects,)
        found.append(
            QueueStats(
                name,
                name in paused,
                sum(count.by_queue.get(name, 0) for count in waiting),
                scheduled.by_queue.get(name, 0),
                blocked.by_queue.get(name, 0),
                running.get(name, 0),
                oldest.get(name),
                all(count.complete for count in (*waiting, scheduled, blocked)),
                paused.get(name),
            )
        )
    return found


def _queues_with_queued(conn: sqlite3.Connection) -> list[str]:
    return sorted(
        {
            name
            for condition in (PLAIN, LANED)
            for (name,) in conn.execute(
                f"""
                WITH RECURSIVE waiting (queue) AS (
                    SELECT min(queue) FROM jobrunner_jobs WHERE {condition}
                    UNION ALL
                    SELECT (SELECT min(queue) FROM jobrunner_jobs WHERE {condition} AND queue > waiting.queue)
                    FROM waiting WHERE waiting.queue IS NOT NULL
                )
                SELECT queue FROM waiting WHERE queue IS NOT NULL
                """
            )
        }
    )


def waiting_tasks(conn: sqlite3.Connection) -> Sequence[tuple[str, str, int]]:
    """Return ``(queue, task, due_since)`` for each pair with queued jobs."""
    due_since: dict[tuple[str, str], int] = {
        (queue, task): due
        for queue, task, due in conn.execute(
            """
            SELECT queue, task, min(run_at) FROM jobrunner_jobs
            WHERE state = 'queued' AND suspect = 1 GROUP BY queue, task
            """
        )
    }
    for queue in _queues_with_queued(conn):
        for (task,) in conn.execute(WAITING_TASKS, {"queue": queue}):
            due = _oldest_due(conn, queue, task)
            due_since[queue, task] = min(due, due_since.get((queue, task), due))
        for (task,) in conn.execute(WAITING_LANED_TASKS, {"queue": queue}):
            due = _oldest_laned(conn, queue, task)
            due_since[queue, task] = min(due, due_since.get((queue, task), due))
    return [(queue, task, due) for (queue, task), due in sorted(due_since.items())]


def _oldest_due(conn: sqlite3.Connection, queue: str, task: str) -> int:
    """Return the earliest due time of the task's queued jobs; one seek per priority.

    The first job in claim order is not enough: a job of lower priority that starves behind it must be found.
    """
    firsts: list[int] = []
    priority = walks.MAX_INTEGER
    while True:
        row = conn.execute(
            f"""
            SELECT priority, run_at FROM jobrunner_jobs
            WHERE {PLAIN} AND queue = ? AND task = ? AND priority < ?
            ORDER BY priority DESC, run_at LIMIT 1
            """,
            (queue, task, priority),
        ).fetchone()
        if row is None:
            return min(firsts)
        priority, due = row
        firsts.append(due)


def _oldest_laned(conn: sqlite3.Connection, queue: str, task: str) -> int:
    """Return the earliest due time of the first jobs of the task's lanes.

    One seek per lane, for the first ``LANES_READ`` of them.
    """
    (due,) = conn.execute(
        f"""
        WITH RECURSIVE first (lane, run_at) AS (
            SELECT * FROM (
                SELECT lane, run_at FROM jobrunner_jobs
                WHERE {LANED_OF_TASK} ORDER BY lane, priority DESC, run_at LIMIT 1
            )
            UNION ALL
            SELECT job.lane, job.run_at FROM first JOIN jobrunner_jobs job ON job.seq = (
                SELECT seq FROM jobrunner_jobs
                WHERE {LANED_BEHIND.format("first.lane")}
                ORDER BY lane, priority DESC, run_at LIMIT 1
            )
            LIMIT :lanes
        )
        SELECT min(run_at) FROM first
        """,
        {"queue": queue, "task": task, "lanes": LANES_READ},
    ).fetchone()
    return int(due)
