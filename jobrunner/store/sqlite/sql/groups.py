"""Groups dead letters by the fingerprint of their failure."""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final

from jobrunner.core.clock import SECOND_US, now_s
from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import DeadReason
from jobrunner.store.groups import HOURS, RECENT_US, RETRYING_CAP, GroupRow, Groups
from jobrunner.store.sqlite.sql import walks
from jobrunner.store.sqlite.sql.walks import MAX_INTEGER

FEW_RECENT: Final = 50
JOBS_PER_LOOK: Final = 50

HOUR_US: Final = 3600 * SECOND_US

INDEX: Final = "INDEXED BY jobrunner_dead_letters_groups"
_CURRENT: Final = f"FROM jobrunner_dead_letters {INDEX} WHERE replayed_as IS NULL"
_IN_GROUP: Final = f"{_CURRENT} AND fingerprint = :group"

LETTERS: Final = f"SELECT letter {_CURRENT} AND fingerprint = ?"
"""The dead letters of a group."""
FEW: Final = 10_000
"""A list reads at most this many dead letters of a group; of more it walks all, and soon finds enough."""

_UNGROUPED: Final = f"SELECT count(*) {_CURRENT} AND fingerprint IS NULL"

# One index seek for each group, however many dead letters it has.
_NEXT: Final = f"""
SELECT died_at, fingerprint {_CURRENT} AND fingerprint < ? ORDER BY fingerprint DESC, died_at DESC LIMIT 1"""
_ABOVE_ALL: Final = "g"
"""Above every hex digit."""

_NEWEST: Final = f"""
SELECT task, error_type, error, (SELECT min(died_at) {_IN_GROUP}), died_at, id
FROM jobrunner_dead_letters
WHERE letter = (SELECT letter {_IN_GROUP} ORDER BY died_at DESC, letter DESC LIMIT 1)"""

_OLDER: Final = f"SELECT count(*) {_IN_GROUP} AND died_at < :since"
# A death after ``now`` counts in the last hour: it came in since, or the clock was set back.
_RECENT: Final = f"""
SELECT min((died_at - :since) / :length, {HOURS - 1}) {_IN_GROUP} AND died_at >= :since LIMIT {FEW_RECENT}"""
_BY_HOUR: Final = f"""
WITH RECURSIVE hour (n, begins) AS (
    SELECT 1, :since UNION ALL SELECT n + 1, begins + :length FROM hour WHERE n < {HOURS}
)
SELECT (
    SELECT count(*) {_IN_GROUP}
    AND died_at >= begins AND died_at < iif(n < {HOURS}, begins + :length, {MAX_INTEGER})
) FROM hour"""

_COUNT: Final = f"SELECT count(*) {_IN_GROUP} AND died_at >= :begin AND died_at < :end"
_FIRST: Final = f"SELECT min(died_at) {_IN_GROUP} AND died_at >= :begin"

# The lease of a waiting job is that of its last attempt.
_RETRYING: Final = """
SELECT run_at, seq, task, outcome, finished_at, error_type, error, traceback FROM (
    SELECT run_at, seq, task, lease FROM jobrunner_jobs INDEXED BY jobrunner_jobs_retrying
    WHERE state = 'scheduled' AND attempt > 0 AND (run_at, seq) > (?, ?) ORDER BY run_at, seq LIMIT ?
) waiting
LEFT JOIN jobrunner_attempts last ON last.job = waiting.seq AND last.lease = waiting.lease
ORDER BY run_at, seq"""

_WITHOUT: Final = (
    f"SELECT letter, task, error_type, error, traceback {_CURRENT} AND fingerprint IS NULL LIMIT ?"
)
_FILL: Final = "UPDATE jobrunner_dead_letters SET fingerprint = ? WHERE letter = ?"


def burial(
    task: str,
    at: int,
    reason: DeadReason,
    error_type: str | None,
    error: str | None,
    traceback: str | None,
) -> tuple[str | int | None, ...]:
    """Return the values of a death, with its fingerprint, as the statements take them."""
    group = fingerprint(task, error_type, error, traceback)
    return (at, reason, error_type, error, traceback, group)


def is_small(conn: sqlite3.Connection, group: str) -> bool:
    """Return whether the group has few dead letters."""
    few = f"SELECT count(*) FROM ({LETTERS} LIMIT {FEW + 1})"
    return bool(conn.execute(few, (group,)).fetchone()[0] <= FEW)


class Search:
    """Finds the groups in short steps, the most recent death first."""

    def __init__(self, now: int, limit: int, *, end_s: float) -> None:
        """Ends at ``end_s``, a time of the clock, with the groups found so far."""
        self._now = now
        self._since = now - HOURS * HOUR_US
        self._limit = limit
        self._end_s = end_s
        self._work: Iterator[None] | None = None
        self._has_all = False
        """True if ``_rows`` has every group with a dead letter."""
        self._complete = False
        self._ungrouped = 0
        self._rows: list[GroupRow] = []
        self._retrying: dict[str, GroupRow] = {}
        self._retrying_left = RETRYING_CAP
        """The number of jobs still to count; negative if there are too many."""

    def step(self, conn: sqlite3.Connection) -> bool:
        """Search until the step's time is up; return whether the search has ended."""
        if self._work is None:
            self._work = self._search(conn)
        step_end_s = now_s() + walks.STEP_S
        with walks.interrupted(conn, self._end_s):
            for _ in self._work:
                now = now_s()
                if now >= self._end_s:
                    break
                if now >= step_end_s:
                    return False
            else:
                self._complete = self._has_all and self._retrying_left >= 0
        return True

    def groups(self) -> Groups:
        """Return the groups that were found."""
        others = dict(self._retrying)
        rows = [_with_retrying(row, others.pop(row.fingerprint, None)) for row in self._rows]
        rows.sort(key=lambda row: row.last_died_at or 0, reverse=True)
        if self._has_all:
            rows += sorted(others.values(), key=lambda row: (-row.retrying, row.fingerprint))
        complete = self._complete and len(rows) <= self._limit
        return Groups(rows[: self._limit], self._ungrouped, complete)

    def _search(self, conn: sqlite3.Connection) -> Iterator[None]:
        (self._ungrouped,) = conn.execute(_UNGROUPED).fetchone()
        found: list[tuple[int, str]] = []
        # Groups without details are worth nothing, so finding them may take half of the time.
        find_until_s = (now_s() + self._end_s) / 2
        found_all = False
        while not found_all and now_s() < find_until_s:
            row = conn.execute(_NEXT, (found[-1][1] if found else _ABOVE_ALL,)).fetchone()
            if row is None:
                found_all = True
            else:
                found.append(row)
            yield
        found.sort(reverse=True)
        for _, group in found[: self._limit]:
            self._read(conn, group)
            yield
        self._has_all = found_all and len(found) <= self._limit
        yield from self._find_retrying(conn)

    def _read(self, conn: sqlite3.Connection, group: str) -> None:
        values: dict[str, int | str] = {
            "group": group,
            "since": self._since,
            "length": HOUR_US,
        }
        newest = conn.execute(_NEWEST, values).fetchone()
        if newest is None:
            return  # its dead letters were replayed or deleted since the last step
        task, error_type, error, first, last, id = newest
        row = GroupRow(group, task, error_type, error, 1, first, last, id)
        # Stored before it is counted: the group with the most dead letters may be where the time is up.
        self._rows.append(row)
        (older,) = conn.execute(_OLDER, values).fetchone()
        if last < self._since:
            self._rows[-1] = row._replace(letters=older, since=last)
            return
        hours = _hours(conn, values)
        recent, before = _recent(conn, group, self._now)
        self._rows[-1] = row._replace(
            letters=older + sum(hours),
            hours=hours,
            recent=recent,
            before=before,
            since=_series(conn, group, last, self._since),
        )

    def _find_retrying(self, conn: sqlite3.Connection) -> Iterator[None]:
        after = (-MAX_INTEGER, 0)
        while self._retrying_left >= 0:
            limit = min(JOBS_PER_LOOK, self._retrying_left + 1)
            jobs = conn.execute(_RETRYING, (*after, limit)).fetchall()
            for run_at, seq, task, outcome, at, *failure in jobs[: self._retrying_left]:
                after = (run_at, seq)
                # A job that has snoozed does not wait for a retry.
                if outcome in ("failed", "timed_out"):
                    self._add_retrying(task, at, *failure)
            self._retrying_left -= len(jobs)
            if len(jobs) < limit:
                return
            yield

    def _add_retrying(
        self, task: str, at: int, error_type: str | None, error: str | None, traceback: str | None
    ) -> None:
        group = fingerprint(task, error_type, error, traceback)
        row = self._retrying.get(group) or GroupRow(group, task, error_type, error, since=at)
        since = at if row.since is None else min(at, row.since)
        self._retrying[group] = row._replace(retrying=row.retrying + 1, since=since)


def _with_retrying(row: GroupRow, retrying: GroupRow | None) -> GroupRow:
    """Return a group of dead letters with its retrying jobs."""
    if retrying is None:
        return row
    since, failed_at = row.since, retrying.since
    if since is not None and failed_at is not None and failed_at >= since - HOUR_US:
        since = min(since, failed_at)
    return row._replace(retrying=retrying.retrying, since=since)


def _recent(conn: sqlite3.Connection, group: str, now: int) -> tuple[int, int]:
    """Return the deaths of the last minutes, and of the hour before these."""
    recently = now - RECENT_US
    found = [
        conn.execute(_COUNT, {"group": group, "begin": begin, "end": end}).fetchone()[0]
        for begin, end in ((recently, MAX_INTEGER), (recently - HOUR_US, recently))
    ]
    return found[0], found[1]


def _series(conn: sqlite3.Connection, group: str, last: int, earliest: int) -> int:
    """Return the first death of the series that ends with the last one.

    Each step is one index seek, and goes back by up to ``RECENT_US``.
    """
    first = last
    while first > earliest:
        begin = {"group": group, "begin": first - RECENT_US}
        (before,) = conn.execute(_FIRST, begin).fetchone()
        if before is None or before >= first:
            break
        first = before
    return first


def _hours(conn: sqlite3.Connection, values: Mapping[str, int | str]) -> tuple[int, ...]:
    """Count the deaths of a group in each hour; one seek if they are few, else one for each hour."""
    recent = conn.execute(_RECENT, values).fetchall()
    if len(recent) == FEW_RECENT:
        return tuple(number for (number,) in conn.execute(_BY_HOUR, values))
    counts = Counter(hour for (hour,) in recent)
    return tuple(counts[hour] for hour in range(HOURS))


def without_group(conn: sqlite3.Connection, limit: int) -> Sequence[tuple[str, int]]:
    """Return ``(fingerprint, letter)`` of some dead letters of older versions.

    Ends after a step's time, since a row may have a megabyte.
    """
    found: list[tuple[str, int]] = []
    end_s = now_s() + walks.STEP_S
    with closing(conn.execute(_WITHOUT, (limit,))) as cursor:
        for letter, *failure in cursor:
            found.append((fingerprint(*failure), letter))
            if now_s() >= end_s:
                break
    return found


def fill(conn: sqlite3.Connection, found: Sequence[tuple[str, int]]) -> None:
    """Store fingerprints; a dead letter that is gone by now is skipped."""
    conn.executemany(_FILL, found)
