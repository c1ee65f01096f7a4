"""Inserts jobs inside an open transaction on any connection.

The order of the jobs is their age.  After an error the caller rolls back, wholly or to a savepoint.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from jobrunner.core.model import Enqueue, Enqueued, State
from jobrunner.store import rules
from jobrunner.store.sqlite.sql import lanes
from jobrunner.store.sqlite.sql.bulk import Many
from jobrunner.store.sqlite.sql.statements import FIND_BY_KEY, KEY_IS_TAKEN, NEWEST

_ALWAYS: Final = 7
"""Number of leading fields that every job sets; the others are options, nearly always None."""
_OPTIONS: Final = Enqueue._fields[_ALWAYS:]
_NO_OPTIONS: Final = (None,) * len(_OPTIONS)
_KEY: Final = 1 << _OPTIONS.index("key")
_LANE: Final = 1 << _OPTIONS.index("lane")

_SPARE_NULLS: Final = 12
"""Binding this many NULLs costs as much as another run of a statement (3 µs)."""

# A broken constraint, or a value that no column can hold: too long, too large a number, half of a surrogate pair.
ROW_ERRORS: Final = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)


def insert_all(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Store jobs and chains; for a taken key, return the unfinished job that holds it."""
    keyed = {job.chain for job in jobs if job.key is not None}
    keyed.discard(None)
    if not keyed:
        return _insert(conn, jobs, now)
    made: list[Enqueued] = []
    for chain, part in groupby(jobs, lambda job: job.chain if job.chain in keyed else None):
        made += (_insert if chain is None else _insert_keyed_chain)(conn, list(part), now)
    return made


def _insert_keyed_chain(
    conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int
) -> list[Enqueued]:
    """Store a chain row by row, skipping jobs whose key is taken.

    The job after a skipped one waits for the last stored job.
    """
    made: list[Enqueued] = []
    first = before = None
    for job in jobs:
        made += _insert(conn, [rules.link(job, first=first, before=before)], now)
        if made[-1].created:
            first, before = first or job.id, job.id
    return made


def insert_queued(conn: sqlite3.Connection, job: Enqueue) -> Enqueued:
    """Store a job as queued, even if it follows another job of a chain."""
    (made,) = _insert(conn, [job], job.run_at, state="queued")
    return made


def members(
    conn: sqlite3.Connection,
    jobs: Sequence[Enqueue],
    now: int,
    *,
    batch: int | None,
    blocked: Collection[str],
) -> list[Enqueued]:
    """Store members or callbacks of a batch; those with an id in ``blocked`` wait."""
    return _insert(conn, jobs, now, batch=batch, blocked=blocked)


def _insert(
    conn: sqlite3.Connection,
    jobs: Sequence[Enqueue],
    now: int,
    *,
    state: State | None = None,
    batch: int | None = None,
    blocked: Collection[str] = (),
) -> list[Enqueued]:
    made: list[Enqueued] = []
    for options, group in _groups(jobs):
        statement, values = _statement(options, in_batch=batch is not None)
        states = [state or rules.first_state(job, now) for job in group]
        if blocked:
            pairs = zip(group, states, strict=True)
            states = ["blocked" if job.id in blocked else first for job, first in pairs]
        more = () if batch is None else (batch,)
        rows = [(*values(job), first, *more) for job, first in zip(group, states, strict=True)]
        stored = statement.run(conn, rows)
        if options & _LANE:
            lanes.arrived_new(conn, [job.id for job in group if job.lane is not None])
        if stored == len(group):
            made += map(rules.enqueued, group, states)
            continue
        # The key of each missing job was taken, by a stored job or by an earlier one of this group.
        newest = {id for (id,) in conn.execute(NEWEST, (stored,))}
        made += (
            rules.enqueued(job, first) if job.id in newest else _holder(conn, job)
            for job, first in zip(group, states, strict=True)
        )
    return made


def _groups(jobs: Sequence[Enqueue]) -> Iterator[tuple[int, list[Enqueue]]]:
    """Group consecutive jobs; yield each group with its options, one bit per option.

    Each bound value costs time, and each statement too. So neighbours with different options share a statement while
    the extra NULLs are cheaper than another run.
    """
    columns, group = 0, list[Enqueue]()
    for options, run in groupby(jobs, _options):
        more = list(run)
        spare = len(group) * (options & ~columns).bit_count()
        spare += len(more) * (columns & ~options).bit_count()
        if group and spare > _SPARE_NULLS:
            yield columns, group
            columns, group = 0, []
        columns |= options
        group += more
    if group:
        yield columns, group


def _options(job: Enqueue) -> int:
    options = job[_ALWAYS:]
    if options == _NO_OPTIONS:
        return 0
    return sum(1 << place for place, value in enumerate(options) if value is not None)


@lru_cache(maxsize=128)
def _statement(
    options: int, *, in_batch: bool
) -> tuple[Many, Callable[[Enqueue], tuple[Any, ...]]]:
    """Return the INSERT for jobs with these options, and a getter of their values.

    With ``in_batch`` the number of the batch follows the state: members of one call share it.
    """
    places = [place for place, _ in enumerate(_OPTIONS) if options & 1 << place]
    columns = [*Enqueue._fields[:_ALWAYS], *(_OPTIONS[place] for place in places), "state"]
    if in_batch:
        columns.append("batch")
    statement = Many(
        f"INSERT INTO jobrunner_jobs ({', '.join(columns)})",
        f"({', '.join('?' * len(columns))})",
        KEY_IS_TAKEN if options & _KEY else "",
    )
    return statement, itemgetter(*range(_ALWAYS), *(_ALWAYS + place for place in places))


def _holder(conn: sqlite3.Connection, job: Enqueue) -> Enqueued:
    """Return the unfinished job that holds a job's key."""
    row = conn.execute(FIND_BY_KEY, (job.task, job.key)).fetchone()
    return Enqueued(row[0], False, *row[1:])
