"""New rows, one or many, in the order given, which is their age; on any connection, inside an open transaction.

None of them undoes anything: after an error the caller rolls back, all of it or to a savepoint.
"""

import sqlite3
from collections.abc import Sequence
from enum import Enum, auto
from itertools import groupby
from typing import Final

from jobrunner.model import Enqueue, Enqueued, State
from jobrunner.store.sqlite.statements import (
    FIND_BY_KEY,
    INSERT,
    INSERT_KEYED,
    INSERT_PLAIN,
)

_PLAIN: Final = 7
"""How many fields of a job without options, key or chain are stored: the others are all None."""
_NO_OPTIONS: Final = (None,) * (len(Enqueue._fields) - _PLAIN)

# A constraint broken, and what no column can hold: too long, too large a number, half of a surrogate pair.
ROW_ERRORS: Final = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeEncodeError)


def insert_all(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Store jobs, chains among them: runs of plain ones in bulk, the others one by one."""
    made: list[Enqueued] = []
    for kind, group in groupby(jobs, _kind):
        if kind is _Kind.PLAIN:
            made.extend(_insert_plain(conn, list(group), now))
        elif kind is _Kind.SINGLE:
            made.extend(insert(conn, job, now) for job in group)
        else:
            made.extend(_insert_chain(conn, list(group), now))
    return made


def insert(conn: sqlite3.Connection, job: Enqueue, now: int) -> Enqueued:
    """Store one job, or find the unfinished one that holds its key."""
    state = _first_state(job, now)
    if job.key is None:
        conn.execute(INSERT, (*job, state))
    elif not conn.execute(INSERT_KEYED, (*job, state)).rowcount:
        row = conn.execute(FIND_BY_KEY, (job.task, job.key)).fetchone()
        return Enqueued(row[0], False, *row[2:])
    return _made(job, state)


class _Kind(Enum):
    """How a job that is in no chain is stored."""

    PLAIN = auto()
    SINGLE = auto()


def _kind(job: Enqueue) -> _Kind | str:
    """Return what tells runs of jobs apart: the chain, or the kind of one that is in none."""
    if job[_PLAIN:] == _NO_OPTIONS:
        return _Kind.PLAIN
    return _Kind.SINGLE if job.chain is None else job.chain


def _insert_plain(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    states = [_first_state(job, now) for job in jobs]
    INSERT_PLAIN.run(
        conn, [(*job[:_PLAIN], state) for job, state in zip(jobs, states, strict=True)]
    )
    return list(map(_made, jobs, states))


def _insert_chain(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    made: list[Enqueued] = []
    first = before = None
    for job in jobs:
        # A call whose key is taken stores nothing: who comes after it waits for the last one that was stored.
        stored = insert(conn, job._replace(chain=first or job.id, after=before), now)
        made.append(stored)
        if stored.created:
            first, before = first or job.id, job.id
    return made


def _first_state(job: Enqueue, now: int) -> State:
    if job.after is not None:
        return "blocked"
    # A job that is due from the start stays so when the clock steps back before its round.
    return "queued" if job.run_at <= max(now, job.created_at) else "scheduled"


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
