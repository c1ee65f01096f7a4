"""Replays, deletes and buries dead letters inside an open write transaction."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jobrunner.core.errors import AlreadyReplayed, JobNotFound, KeyTaken
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter
from jobrunner.store.job_protocol import Replayed, Slice
from jobrunner.store.sqlite.sql import chains, queries, statistics, walks
from jobrunner.store.sqlite.sql.groups import burial
from jobrunner.store.sqlite.sql.insert import insert_queued
from jobrunner.store.sqlite.sql.statements import (
    BURY_WAITING,
    FIND_BY_KEY,
    KEY_IS_TAKEN,
    RESCHEDULE,
    TAKEN_KEYS,
)
from jobrunner.store.sqlite.sql.walks import Position, Rows, Step

# The lease is kept and never decreases, so that the fence still refuses outcomes from before the death. The row keeps
# its seq, which the attempt rows refer to.
_PUT_BACK = f"""
INSERT INTO jobrunner_jobs (
    seq, id, task, queue, state, args, priority, created_at, run_at, attempt, lease, key, tag, max_attempts, timeout,
    replays, replay_of, schedule, scheduled_for, chain, after
)
SELECT seq, id, task, queue, 'queued', args, priority, created_at, ?, 0, lease, key, tag, max_attempts, timeout,
    replays + 1, replay_of, schedule, scheduled_for, chain, after
FROM jobrunner_dead_letters WHERE letter IN (SELECT value FROM json_each(?)) ORDER BY letter DESC{KEY_IS_TAKEN}
RETURNING seq, id, task, queue, state, created_at, run_at, attempt, chain, after"""

_KNOWN = "SELECT 1 FROM jobrunner_workers, json_each(tasks) WHERE key = ? LIMIT 1"


def replay(conn: sqlite3.Connection, id: str, now: int) -> Enqueued:
    """Put one dead letter back; see ``DeadLetterStore.replay``."""
    letter = _find(conn, id)
    made = _put_back(conn, [letter], now)
    if not made:
        raise _key_taken(conn, letter)
    return next(iter(made.values()))


def _find(conn: sqlite3.Connection, id: str) -> int:
    row = conn.execute(
        "SELECT letter, replayed_as FROM jobrunner_dead_letters WHERE id = ?", (id,)
    ).fetchone()
    if row is None:
        raise JobNotFound(f"no dead letter has the id {id}; it may have been replayed or deleted")
    letter, replayed_as = row
    if replayed_as is not None:
        raise AlreadyReplayed(
            f"dead letter {id} was replayed with other arguments, as job {replayed_as}"
        )
    return int(letter)


def _put_back(conn: sqlite3.Connection, letters: Sequence[int], now: int) -> dict[int, Enqueued]:
    """Put dead letters back, except those whose key is taken; return the jobs by ``seq``.

    The key may be taken by another of these dead letters: the one that died later is put back first.
    """
    rows = conn.execute(_PUT_BACK, (now, json.dumps(letters))).fetchall()
    gone = json.dumps([seq for seq, *_ in rows])
    conn.execute(
        "DELETE FROM jobrunner_dead_letters WHERE seq IN (SELECT value FROM json_each(?))", (gone,)
    )
    return {seq: Enqueued(id, True, *rest) for seq, id, *rest in rows}


def _key_taken(conn: sqlite3.Connection, letter: int) -> KeyTaken:
    task, key = conn.execute(
        "SELECT task, key FROM jobrunner_dead_letters WHERE letter = ?", (letter,)
    ).fetchone()
    return _key_error(conn, task, key)


def _key_error(conn: sqlite3.Connection, task: str, key: str) -> KeyTaken:
    holder = conn.execute(FIND_BY_KEY, (task, key)).fetchone()
    return KeyTaken(
        f"key {key!r} of task {task} belongs to job {holder[0] if holder else '?'}, which is not finished;"
        " wait for it or cancel it, then replay again"
    )


def replay_edited(conn: sqlite3.Connection, id: str, job: Enqueue) -> Enqueued:
    """Store ``job`` and mark the dead letter as replayed by it."""
    letter = _find(conn, id)
    made = insert_queued(conn, job)
    if not made.created:
        raise _key_error(conn, job.task, job.key or "")
    conn.execute(
        "UPDATE jobrunner_dead_letters SET replayed_as = ? WHERE letter = ?", (job.id, letter)
    )
    return made


def _replayable(conn: sqlite3.Connection, where: Filter, tasks: Collection[str] | None) -> Rows:
    """Return the rows to walk: dead letters of these tasks (None for all) that match ``where``."""
    rows = queries.letters(conn, where)
    if tasks is None:
        return rows
    return rows._replace(
        test=f"{rows.test} AND task IN (SELECT value FROM json_each(?))",
        values=(*rows.values, json.dumps(sorted(tasks))),
    )


class Pace(NamedTuple):
    """The due times of the jobs that one slice of a replay puts back."""

    now: int
    run_at: int
    """The due time of the first one."""
    spacing: int
    """The time from each to the next."""


def replay_all(
    conn: sqlite3.Connection,
    where: Filter,
    tasks: Collection[str] | None,
    before: int | None,
    limit: int,
    pace: Pace,
) -> Replayed:
    """Replay one slice of dead letters."""
    found = _slice(conn, _replayable(conn, where, tasks), before, limit)
    made = _put_back(conn, [letter for letter, _ in found.rows], pace.now)
    _spread(conn, [seq for _, seq in found.rows if seq in made], pace)
    return Replayed(len(made), len(found.rows) - len(made), found.cursor)


def _spread(conn: sqlite3.Connection, seqs: Sequence[int], pace: Pace) -> None:
    """Schedule those of the jobs that are due later than now."""
    due = [(pace.run_at + number * pace.spacing, seq) for number, seq in enumerate(seqs)]
    later = [("scheduled", run_at, seq) for run_at, seq in due if run_at > pace.now]
    conn.executemany(RESCHEDULE, later)


def keys(
    conn: sqlite3.Connection,
    where: Filter,
    tasks: Collection[str] | None,
    position: Position | None,
    limit: int,
    room: int,
) -> Step:
    """Run one step of a walk through the tasks and keys of dead letters."""
    rows = _replayable(conn, where, tasks)
    return walks.step(conn, rows, "task, key", position, limit=limit, room=room)


def taken(conn: sqlite3.Connection, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of a task and a key that an unfinished job holds."""
    return conn.execute(TAKEN_KEYS, (json.dumps(keys),)).fetchall()


class _Slice(NamedTuple):
    rows: list[tuple[int, int]]
    """``(letter, seq)`` of each dead letter."""
    cursor: int | None


def _slice(conn: sqlite3.Connection, rows: Rows, before: int | None, limit: int) -> _Slice:
    """Find one slice in a single short step, since other writers wait meanwhile."""
    position = None if before is None else Position(before)
    found = walks.step(conn, rows, "seq", position, limit=limit)
    return _Slice(found.rows, found.position.before if found.position is not None else None)


def delete(conn: sqlite3.Connection, id: str) -> bool:
    """Delete a dead letter and its history; return False if there is none."""
    rows = conn.execute(
        "DELETE FROM jobrunner_dead_letters WHERE id = ? RETURNING seq", (id,)
    ).fetchall()
    conn.executemany("DELETE FROM jobrunner_attempts WHERE job = ?", rows)
    return bool(rows)


def delete_all(conn: sqlite3.Connection, where: Filter, before: int | None, limit: int) -> Slice:
    """Delete one slice of the dead letters that match ``where``, with their histories."""
    found = _slice(conn, queries.letters(conn, where), before, limit)
    conn.executemany(
        "DELETE FROM jobrunner_dead_letters WHERE letter = ?",
        [(letter,) for letter, _ in found.rows],
    )
    conn.executemany(
        "DELETE FROM jobrunner_attempts WHERE job = ?", [(seq,) for _, seq in found.rows]
    )
    return Slice(len(found.rows), found.cursor)


def bury_waiting(
    conn: sqlite3.Connection,
    queue: str,
    task: str,
    due_before: int,
    reason: DeadReason,
    error: str,
    now: int,
    limit: int,
) -> Sequence[str]:
    """Bury queued jobs due before ``due_before`` if no worker knows their task; return their ids."""
    if conn.execute(_KNOWN, (task,)).fetchone() is not None:
        return []
    seqs: list[tuple[int]] = []
    # Each of the two conditions has its own partial index.
    for suspect in ("suspect = 0", "suspect = 1"):
        seqs += conn.execute(
            f"""
            SELECT seq FROM jobrunner_jobs
            WHERE state = 'queued' AND {suspect} AND queue = ? AND task = ? AND run_at < ? LIMIT ?
            """,
            (queue, task, due_before, limit - len(seqs)),
        ).fetchall()
    death = burial(task, now, reason, None, error, None)
    conn.executemany(BURY_WAITING, [(*death, seq) for (seq,) in seqs])
    buried: list[tuple[str, str | None]] = []
    for (seq,) in seqs:
        buried += conn.execute(
            "DELETE FROM jobrunner_jobs WHERE seq = ? RETURNING id, chain", (seq,)
        )
    chains.follow(conn, now, done=[id for id, chain in buried if chain is not None])
    if buried:
        statistics.add_dead(conn, {(queue, task): len(buried)}, now)
    return [id for id, _ in buried]
