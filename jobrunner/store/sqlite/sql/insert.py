"""Inserts jobs, one or many, in the order given, which is their age, inside an open transaction on any connection.

None of them undoes anything: after an error the caller rolls back, all of it or to a savepoint.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from jobrunner.core.model import Enqueue, Enqueued, State
from jobrunner.store import rules
from jobrunner.store.sqlite.sql.bulk import Many
from jobrunner.store.sqlite.sql.statements import FIND_BY_KEY, KEY_IS_TAKEN, NEWEST

_ALWAYS: Final = 7
"""How many fields every job has; the others are its options, and None in nearly all."""
_OPTIONS: Final = Enqueue._fields[_ALWAYS:]
_NO_OPTIONS: Final = (None,) * len(_OPTIONS)
_KEY: Final = 1 << _OPTIONS.index("key")

_SPARE_NULLS: Final = 12
"""To bind so many NULLs costs what another run of a statement does (3 µs)."""

# A constraint broken, and what no column can hold: too long, too large a number, half of a surrogate pair.
ROW_ERRORS: Final = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)


def insert_all(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Store jobs, chains among them; find the unfinished ones that hold their keys."""
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
    """Store a chain row by row: a call whose key is taken stores nothing, and the one after it waits for another."""
    made: list[Enqueued] = []
    first = before = None
    for job in jobs:
        made += _insert(conn, [rules.link(job, first=first, before=before)], now)
        if made[-1].created:
            first, before = first or job.id, job.id
    return made


def insert_queued(conn: sqlite3.Connection, job: Enqueue) -> Enqueued:
    """Store a job as queued, whatever its place in a chain."""
    (made,) = _insert(conn, [job], job.run_at, state="queued")
    return made


def _insert(
    conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int, *, state: State | None = None
) -> list[Enqueued]:
    made: list[Enqueued] = []
    for options, group in _groups(jobs):
        statement, values = _statement(options)
        states = [state or rules.first_state(job, now) for job in group]
        rows = [(*values(job), first) for job, first in zip(group, states, strict=True)]
        stored = statement.run(conn, rows)
        if stored == len(group):
            made += map(_made, group, states)
            continue
        # Those that are missing found their keys taken, by stored jobs or by one of these.
        newest = {id for (id,) in conn.execute(NEWEST, (stored,))}
        made += (
            _made(job, first) if job.id in newest else _holder(conn, job)
            for job, first in zip(group, states, strict=True)
        )
    return made


def _groups(jobs: Sequence[Enqueue]) -> Iterator[tuple[int, list[Enqueue]]]:
    """Return runs of jobs with the options that any of them has, one bit each.

    A value that is bound has its price, a statement too: neighbours with other options join a run while the NULLs that
    this takes are the cheaper.
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
def _statement(options: int) -> tuple[Many, Callable[[Enqueue], tuple[Any, ...]]]:
    """Return the statement that stores jobs with these options, and a getter of a job's values for it."""
    places = [place for place, _ in enumerate(_OPTIONS) if options & 1 << place]
    columns = [*Enqueue._fields[:_ALWAYS], *(_OPTIONS[place] for place in places), "state"]
    statement = Many(
        f"INSERT INTO jobrunner_jobs ({', '.join(columns)})",
        f"({', '.join('?' * len(columns))})",
        KEY_IS_TAKEN if options & _KEY else "",
    )
    return statement, itemgetter(*range(_ALWAYS), *(_ALWAYS + place for place in places))


def _made(job: Enqueue, state: State) -> Enqueued:
    return Enqueued(
        job.id,
        True,
        job.task,
        job.queue,
        state,
        job.created_at,
        job.run_at,
        0,
        job.chain,
        job.after,
    )


def _holder(conn: sqlite3.Connection, job: Enqueue) -> Enqueued:
    """Return the unfinished job that holds a job's key."""
    row = conn.execute(FIND_BY_KEY, (job.task, job.key)).fetchone()
    return Enqueued(row[0], False, *row[1:])
