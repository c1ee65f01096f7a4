"""Keeps the list of lanes with queued jobs, inside an open write transaction.

Every statement that makes a job of a lane claimable is followed by ``arrived``, and every one that ends or moves such a
job by ``left``, so the commit that frees a lane also opens it.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from jobrunner.store.sqlite.sql.statements import LANED

WOKEN_PER_ROUND: Final = 500
"""Maximum number of lanes that a round opens because their buckets have tokens again."""

_LISTED: Final = """
    SELECT lane, queue, task, coalesce(ordered, 0), priority, run_at, 'open' FROM jobrunner_jobs"""
# An open lane keeps its place unless the new job comes before all others of the lane.
_ARRIVED: Final = f"""
INSERT INTO jobrunner_lanes (lane, queue, task, ordered, priority, turn, state)
{_LISTED} WHERE {{}} AND {LANED} ORDER BY seq
ON CONFLICT (lane, queue) DO UPDATE SET
    priority = max(priority, excluded.priority), ordered = max(ordered, excluded.ordered){{}}
RETURNING state = 'open'"""
# A job that was there before may be the oldest of its lane; a new one is not.
_BY_SEQ: Final = _ARRIVED.format(
    "seq IN (SELECT value FROM json_each(?))",
    ", state = iif(ordered = 1 AND state = 'full', 'open', state)",
)
_BY_ID: Final = _ARRIVED.format("id IN (SELECT value FROM json_each(?))", "")

_LEFT: Final = """
UPDATE jobrunner_lanes SET state = 'open' WHERE state = 'full' AND lane IN (SELECT value FROM json_each(?))"""

_ANY_OPEN: Final = "SELECT 1 FROM jobrunner_lanes WHERE state = 'open' LIMIT 1"

_WAKE: Final = """
UPDATE jobrunner_lanes SET state = 'open', wake_at = NULL WHERE id IN (
    SELECT id FROM jobrunner_lanes WHERE state = 'empty' AND wake_at <= ? ORDER BY wake_at LIMIT ?
)"""


def arrived(conn: sqlite3.Connection, seqs: Sequence[int]) -> int:
    """List the lanes of those jobs that are queued in one; return the number that may be claimed."""
    return _arrived(conn, _BY_SEQ, seqs) if seqs else 0


def arrived_new(conn: sqlite3.Connection, ids: Sequence[str]) -> int:
    """List the lanes of new jobs, as ``arrived`` does."""
    return _arrived(conn, _BY_ID, ids) if ids else 0


def _arrived(conn: sqlite3.Connection, statement: str, keys: Sequence[int] | Sequence[str]) -> int:
    return sum(is_open for (is_open,) in conn.execute(statement, (json.dumps(keys),)).fetchall())


def left(conn: sqlite3.Connection, lanes: Collection[str | None]) -> int:
    """Open the full ones of these lanes; return their number.

    A job of each has ended or moved.

    None stands for a job without a lane.
    """
    names = [lane for lane in lanes if lane is not None]
    return conn.execute(_LEFT, (json.dumps(names),)).rowcount if names else 0


def is_any_open(conn: sqlite3.Connection) -> bool:
    """Return whether a claim finds a lane to visit."""
    return conn.execute(_ANY_OPEN).fetchone() is not None


def wake(conn: sqlite3.Connection, now: int) -> int:
    """Open lanes whose buckets have tokens again; return their number."""
    return conn.execute(_WAKE, (now, WOKEN_PER_ROUND)).rowcount


# -- repair --------------------------------------------------------------------------------------------

# The next lane of a queue with queued jobs, else that of the next queue. If both columns were compared at once, SQLite
# would read all rows of the first lane.
_NEXT: Final = f"""
coalesce(
    (SELECT seq FROM jobrunner_jobs WHERE {LANED} AND queue = {{0}}queue AND lane > {{0}}lane
        ORDER BY lane LIMIT 1),
    (SELECT seq FROM jobrunner_jobs WHERE {LANED} AND queue > {{0}}queue ORDER BY queue, lane LIMIT 1)
)"""
_UNLISTED: Final = f"""
WITH RECURSIVE waiting (seq, queue, lane) AS (
    SELECT seq, queue, lane FROM jobrunner_jobs WHERE seq = {_NEXT.format(":")}
    UNION ALL
    SELECT job.seq, job.queue, job.lane FROM waiting JOIN jobrunner_jobs job
    ON job.seq = {_NEXT.format("waiting.")}
    LIMIT :limit
)
SELECT seq, queue, lane,
    EXISTS (SELECT 1 FROM jobrunner_lanes listed WHERE listed.lane = waiting.lane AND listed.queue = waiting.queue)
FROM waiting"""

# A turn that lies ahead was stored before the clock was set back, and so was the end of the wait for a bucket.
_STALE: Final = f"""
SELECT id, (
    state = 'full'
    AND NOT EXISTS (
        SELECT 1 FROM jobrunner_jobs WHERE lane = listed.lane AND state = 'running' AND lane IS NOT NULL
    )
    AND (ordered = 0 OR NOT EXISTS (
        SELECT 1 FROM jobrunner_jobs head WHERE head.seq = (
            SELECT min(seq) FROM jobrunner_jobs WHERE lane = listed.lane AND ordered = 1
                AND (state = 'scheduled' OR state = 'queued' OR state = 'running')
        ) AND NOT (head.queue = listed.queue AND {LANED})
    ))
) OR turn > :now + 1000000 OR (state = 'empty' AND wake_at <= :now)
FROM jobrunner_lanes listed WHERE id > :after ORDER BY id LIMIT :limit"""

_OPEN: Final = """
UPDATE jobrunner_lanes SET state = 'open', wake_at = NULL, turn = min(turn, ?)
WHERE id IN (SELECT value FROM json_each(?))"""


class Place(NamedTuple):
    """The progress of a repair: first through the jobs, then through the list."""

    queue: str = ""
    lane: str = ""
    after: int | None = None
    """The last checked row of the list; None while the jobs are searched."""


class Faults(NamedTuple):
    """The faults that one slice of a repair has found."""

    unlisted: Sequence[int] = ()
    """``seq`` of a queued job of each lane that the list lacks."""
    stale: Sequence[int] = ()
    """Rows of the list that wait for nothing."""
    place: Place | None = None
    """The start of the next slice; None at the end."""


def faults(conn: sqlite3.Connection, place: Place, now: int, limit: int) -> Faults:
    """Find the faults of one slice of the list, without changing anything.

    Args:
        conn: a connection to read with.
        place: the start of the slice.
        now: the current time.
        limit: maximum number of lanes in the slice.
    """
    if place.after is None:
        where = {"queue": place.queue, "lane": place.lane, "limit": limit}
        rows = conn.execute(_UNLISTED, where).fetchall()
        unlisted = [seq for seq, _, _, listed in rows if not listed]
        return Faults(unlisted, (), Place(*rows[-1][1:3]) if len(rows) == limit else Place(after=0))
    given = {"after": place.after, "now": now, "limit": limit}
    found = conn.execute(_STALE, given).fetchall()
    stale = [id for id, is_stale in found if is_stale]
    return Faults((), stale, Place(after=found[-1][0]) if len(found) == limit else None)


def repair(conn: sqlite3.Connection, found: Faults, now: int) -> int:
    """List lanes that are missing and open those that are stale; return their number."""
    opened = conn.execute(_OPEN, (now, json.dumps(found.stale))).rowcount if found.stale else 0
    return opened + arrived(conn, found.unlisted)


def open_lanes_of(conn: sqlite3.Connection, first: str, end: str) -> int:
    """Open the lanes with a name from ``first`` to below ``end``; return their number."""
    return conn.execute(
        "UPDATE jobrunner_lanes SET state = 'open', wake_at = NULL"
        " WHERE lane >= ? AND lane < ? AND state <> 'open'",
        (first, end),
    ).rowcount
