"""Replays, deletes and buries dead letters inside an open write transaction."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from jobrunner.core.errors import AlreadyReplayed, JobNotFound, KeyTaken
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter
from jobrunner.store.effects import Effects
from jobrunner.store.job_protocol import Replayed, Slice
from jobrunner.store.sqlite.sql import (
    ends,
    history,
    lanes,
    queries,
    replays,
    statistics,
    steps,
    walks,
)
from jobrunner.store.sqlite.sql.ends import End
from jobrunner.store.sqlite.sql.groups import burial
from jobrunner.store.sqlite.sql.insert import insert_queued
from jobrunner.store.sqlite.sql.statements import (
    BURY_WAITING,
    FIND_BY_KEY,
    KEY_IS_TAKEN,
    LANED_OF_TASK,
    PLAIN,
    RESCHEDULE,
    TAKEN_KEYS,
)
from jobrunner.store.sqlite.sql.walks import Position, Rows, Step
from jobrunner.store.workflow_rules import require_memos

# The lease is kept and never decreases, so that the fence still refuses outcomes from before the death. The row keeps
# its seq, which the attempt rows refer to.
_PUT_BACK = f"""
INSERT INTO jobrunner_jobs (
    seq, id, task, queue, state, args, priority, created_at, run_at, attempt, lease, key, tag, max_attempts, timeout,
    replays, replay_of, schedule, scheduled_for, chain, after, trace, lane, ordered, batch, handed
)
SELECT seq, id, task, queue, 'queued', args, priority, created_at, ?, 0, lease, key, tag, max_attempts, timeout,
    replays + 1, replay_of, schedule, scheduled_for, chain, after, trace, lane, ordered, batch, handed
FROM jobrunner_dead_letters WHERE letter IN (SELECT value FROM json_each(?)) ORDER BY letter DESC{KEY_IS_TAKEN}
RETURNING batch, lane, seq, id, task, queue, state, created_at, run_at, attempt, chain, after"""

# Of the attempts before the death: the job begins again.
_FORGET_PROGRESS = "DELETE FROM jobrunner_progress WHERE job IN (SELECT value FROM json_each(?))"

_KNOWN = "SELECT 1 FROM jobrunner_workers, json_each(tasks) WHERE key = ? LIMIT 1"


_LAST_WORKERS: Final = """
SELECT worker, count(*) AS number FROM jobrunner_dead_letters letter
JOIN jobrunner_attempts last ON last.job = letter.seq AND last.lease = letter.lease
WHERE letter.seq IN (SELECT value FROM json_each(?))
GROUP BY worker ORDER BY number DESC, worker"""


def last_workers(conn: sqlite3.Connection, letters: Sequence[int]) -> Mapping[int, int]:
    """Count these dead letters by the worker of their last attempt."""
    return dict(conn.execute(_LAST_WORKERS, (json.dumps(list(letters)),)).fetchall())


def replay(conn: sqlite3.Connection, id: str, now: int, forget: Sequence[str] = ()) -> Enqueued:
    """Put one dead letter back; see ``DeadLetterStore.replay``."""
    letter = _find(conn, id)
    made = _put_back(conn, [letter], now)
    if not made:
        raise _key_taken(conn, letter)
    ((seq, job),) = made.items()
    if forget:
        require_memos(job.id, steps.names(conn, seq), forget)
        steps.forget(conn, seq, forget)
    return job


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
    gone = json.dumps([seq for _, _, seq, *_ in rows])
    lanes.arrived(conn, [seq for _, lane, seq, *_ in rows if lane is not None])
    conn.execute(_FORGET_PROGRESS, (gone,))
    conn.execute(
        "DELETE FROM jobrunner_dead_letters WHERE seq IN (SELECT value FROM json_each(?))", (gone,)
    )
    members = [(id, batch) for batch, _, _, id, *_ in rows if batch is not None]
    if members:
        replays.replayed(conn, members, now, Effects())
    return {seq: Enqueued(id, True, *rest) for _, _, seq, id, *rest in rows}


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
    batch, handed = conn.execute(
        "SELECT batch, handed FROM jobrunner_dead_letters WHERE letter = ?", (letter,)
    ).fetchone()
    stays = replays.takes_replays(conn, batch)
    handed = handed if job.handed is None else job.handed
    made = insert_queued(conn, job._replace(batch=batch if stays else None, handed=handed))
    if not made.created:
        raise _key_error(conn, job.task, job.key or "")
    conn.execute(
        "UPDATE jobrunner_dead_letters SET replayed_as = ? WHERE letter = ?", (job.id, letter)
    )
    if stays:
        replays.replaced(conn, id, job.id, batch, job.run_at, Effects())
    elif batch is None:
        replays.replaced_callback(conn, id, job.id)
    return made


class Meant(NamedTuple):
    """The dead letters of a replay by filter."""

    where: Filter
    tasks: Collection[str] | None
    """Only of these tasks; None for all."""
    without: Collection[int] = ()
    """Numbers of dead letters that stay."""
    down_to: int | None = None
    """The lowest number."""

    def rows(self, conn: sqlite3.Connection) -> Rows:
        """Return the rows to walk."""
        rows = queries.letters(conn, self.where)
        test, values = rows.test, rows.values
        if self.tasks is not None:
            test += " AND task IN (SELECT value FROM json_each(?))"
            values = (*values, json.dumps(sorted(self.tasks)))
        if self.without:
            test += " AND letter NOT IN (SELECT value FROM json_each(?))"
            values = (*values, json.dumps(sorted(self.without)))
        if self.down_to is not None:
            test += " AND letter >= ?"
            values = (*values, self.down_to)
        return rows._replace(test=test, values=values)


class Pace(NamedTuple):
    """The due times of the jobs that one slice of a replay puts back."""

    now: int
    run_at: int
    """The due time of the first one."""
    spacing: int
    """The time from each to the next."""


def replay_all(
    conn: sqlite3.Connection, meant: Meant, before: int | None, limit: int, pace: Pace
) -> Replayed:
    """Replay one slice of dead letters."""
    found = _slice(conn, meant.rows(conn), before, limit)
    cursor = found.cursor
    if cursor is not None and meant.down_to is not None and cursor <= meant.down_to:
        cursor = None
    made = _put_back(conn, [letter for letter, _ in found.rows], pace.now)
    _spread(conn, [seq for _, seq in found.rows if seq in made], pace)
    return Replayed(len(made), len(found.rows) - len(made), cursor)


def _spread(conn: sqlite3.Connection, seqs: Sequence[int], pace: Pace) -> None:
    """Schedule those of the jobs that are due later than now."""
    due = [(pace.run_at + number * pace.spacing, seq) for number, seq in enumerate(seqs)]
    later = [("scheduled", run_at, seq) for run_at, seq in due if run_at > pace.now]
    conn.executemany(RESCHEDULE, later)


def keys(
    conn: sqlite3.Connection, meant: Meant, position: Position | None, limit: int, room: int
) -> Step:
    """Run one step of a walk through the tasks and keys of dead letters."""
    return walks.step(conn, meant.rows(conn), "task, key", position, limit=limit, room=room)


def arguments(
    conn: sqlite3.Connection, meant: Meant, position: Position | None, limit: int, room: int
) -> Step:
    """Run one step of a walk through tasks, arguments and ``handed`` of dead letters."""
    return walks.step(
        conn, meant.rows(conn), "task, args, handed", position, limit=limit, room=room
    )


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
        f"DELETE FROM jobrunner_dead_letters WHERE id = ? RETURNING {_GONE}", (id,)
    ).fetchall()
    _forget(conn, rows)
    return bool(rows)


_GONE = "seq, id, batch, replayed_as"


def _forget(
    conn: sqlite3.Connection, rows: Sequence[tuple[int, str, int | None, str | None]]
) -> None:
    """Delete the histories of deleted dead letters, and note it in their batches."""
    history.delete(conn, [(seq,) for seq, *_ in rows])
    replays.deleted(conn, [(id, batch, replayed_as) for _, id, batch, replayed_as in rows])


def delete_all(conn: sqlite3.Connection, where: Filter, before: int | None, limit: int) -> Slice:
    """Delete one slice of the dead letters that match ``where``, with their histories."""
    found = _slice(conn, queries.letters(conn, where), before, limit)
    rows = conn.execute(
        "DELETE FROM jobrunner_dead_letters WHERE letter IN (SELECT value FROM json_each(?))"
        f" RETURNING {_GONE}",
        (json.dumps([letter for letter, _ in found.rows]),),
    ).fetchall()
    _forget(conn, rows)
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
    # Each of the conditions has its own partial index.
    for condition in (PLAIN, LANED_OF_TASK, "state = 'queued' AND suspect = 1"):
        seqs += conn.execute(
            f"""
            SELECT seq FROM jobrunner_jobs
            WHERE {condition} AND queue = :queue AND task = :task AND run_at < :due LIMIT :limit
            """,
            {"queue": queue, "task": task, "due": due_before, "limit": limit - len(seqs)},
        ).fetchall()
    death = burial(task, now, reason, None, error, None)
    conn.executemany(BURY_WAITING, [(*death, seq) for (seq,) in seqs])
    buried: list[tuple[str, str | None, int | None, str | None]] = []
    for (seq,) in seqs:
        buried += conn.execute(
            "DELETE FROM jobrunner_jobs WHERE seq = ? RETURNING id, chain, batch, lane", (seq,)
        )
    lanes.left(conn, {lane for *_, lane in buried})
    dead = [End(id, chain, batch, "dead") for id, chain, batch, _ in buried]
    ends.follow(conn, now, dead, Effects())
    if buried:
        statistics.add_dead(conn, {(queue, task): len(buried)}, reason, now)
    return [id for id, *_ in buried]
