"""Finds waiting jobs that lie in other lanes than the application's code computes: its ``by`` was changed."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from jobrunner.core.errors import InvalidArguments, StoreError
from jobrunner.store.findings import Finding
from jobrunner.store.sqlite.connection import read_snapshot
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.maintenance.read_only import open_read_only
from jobrunner.store.sqlite.sql import queues
from jobrunner.store.sqlite.sql.statements import LANED_OF_TASK, PLAIN

LaneOf = Callable[[str], str | None]
"""Computes the lane of a job from its stored arguments."""

_FIRST: Final = 1_000
"""Jobs of each queue and task that are compared."""
_LANES_SINCE: Final = 8

_WAITING: Final = " UNION ALL ".join(
    f"SELECT * FROM (SELECT args, lane FROM jobrunner_jobs WHERE {which} AND queue = :queue AND task = :task LIMIT :n)"
    for which in (PLAIN, LANED_OF_TASK)
)


def findings(path: Path, lanes: Mapping[str, LaneOf]) -> Iterator[Finding]:
    """Compare the lanes of waiting jobs with those that the code computes.

    Args:
        path: the database file.
        lanes: of each task, by its stored names, the function that computes a lane.
    """
    try:
        with open_read_only(path) as conn:
            if migrate.version(conn) < _LANES_SINCE:
                return
            for queue, task, _ in read_snapshot(conn, queues.waiting_tasks):
                if task in lanes:
                    yield from _of_task(conn, queue, task, lanes[task])
    except StoreError:
        return  # the checks of the file say it


def _of_task(conn: sqlite3.Connection, queue: str, task: str, lane_of: LaneOf) -> Iterator[Finding]:
    waiting = conn.execute(_WAITING, {"queue": queue, "task": task, "n": _FIRST}).fetchall()
    changed: list[tuple[str | None, str | None]] = []
    for args, lane in waiting:
        try:
            now = lane_of(args)
        except InvalidArguments:
            continue  # such a job dies when it starts, and says why
        if _key(lane) != _key(now):
            changed.append((lane, now))
    if changed:
        lane, now = changed[0]
        yield Finding(
            "warning",
            "limits",
            f"{len(changed):,} of the first {len(waiting):,} jobs of {task} that wait in queue {queue} are counted in"
            f" other lanes than by= says now, such as {_text(lane)} instead of {_text(now)}",
            "let them run out, since jobs keep the lanes in which they were enqueued; or write the old by= again",
        )


def _key(lane: str | None) -> str | None:
    """Return a lane without its task, which may have another name by now."""
    return None if lane is None else lane.partition("[")[2]


def _text(lane: str | None) -> str:
    return "none" if lane is None else lane
