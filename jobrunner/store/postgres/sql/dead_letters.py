"""Replays, deletes and buries dead letters inside an open transaction."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from jobrunner.core.errors import AlreadyReplayed, JobNotFound, KeyTaken
from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.model import DeadReason, Enqueue, Enqueued, Filter
from jobrunner.store.effects import Effects
from jobrunner.store.job_protocol import LetterArguments, Replayed, Slice
from jobrunner.store.postgres.sql import (
    batch_locks,
    ends,
    history,
    lanes,
    queries,
    replays,
    statistics,
    steps,
    walks,
)
from jobrunner.store.postgres.sql.ends import End
from jobrunner.store.postgres.sql.history import storable
from jobrunner.store.postgres.sql.insert import FIND_BY_KEY, KEY_IS_TAKEN, insert_queued, lock_lanes
from jobrunner.store.postgres.sql.queries import PAGE_ROOM
from jobrunner.store.postgres.sql.settle import MOVED
from jobrunner.store.postgres.sql.states import UNFINISHED
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.sql.walks import Found, Rows
from jobrunner.store.workflow_rules import require_memos

# The lease is kept and never decreases, so that the fence still refuses outcomes from before the death. The row keeps
# its seq, which the attempt rows refer to.
_PUT_BACK: Final = f"""
INSERT INTO jobrunner.jobs (
    seq, id, task, queue, state, args, priority, created_at, run_at, attempt, lease, key, tag, max_attempts, timeout,
    replays, replay_of, schedule, scheduled_for, chain, after, trace, lane, ordered,
    batch, handed, on_dead
)
SELECT seq, id, task, queue, 'queued', args, priority, created_at, $1, 0, lease, key, tag, max_attempts, timeout,
    replays + 1, replay_of, schedule, scheduled_for, chain, after, trace, lane, ordered, batch, handed, on_dead
FROM jobrunner.dead_letters WHERE letter = ANY ($2::bigint[]) ORDER BY letter DESC{KEY_IS_TAKEN}
RETURNING batch, lane, seq, id, task, queue, state, created_at, run_at, attempt, chain, after"""

_FIND: Final = """
SELECT letter, replayed_as, task, key, batch, handed FROM jobrunner.dead_letters WHERE id = $1 FOR UPDATE"""

_KNOWN: Final = "SELECT FROM jobrunner.workers WHERE tasks::jsonb ? $1 LIMIT 1"

_TAKEN: Final = f"""
SELECT wanted.task, wanted.key FROM unnest($1::text[], $2::text[]) AS wanted (task, key)
WHERE EXISTS (
    SELECT FROM jobrunner.jobs WHERE task = wanted.task AND key = wanted.key AND key IS NOT NULL AND {UNFINISHED}
)"""

_BURY_WAITING: Final = f"""
WITH gone AS (
    DELETE FROM jobrunner.jobs WHERE state = 'queued' AND seq = ANY (ARRAY(
        SELECT seq FROM jobrunner.jobs WHERE state = 'queued' AND queue = $1 AND task = $2 AND run_at < $3
        ORDER BY seq LIMIT $4 FOR UPDATE SKIP LOCKED
    ))
    RETURNING *
)
INSERT INTO jobrunner.dead_letters ({MOVED}, died_at, reason, error, fingerprint)
SELECT {MOVED}, $5, $6, $7, $8 FROM gone ORDER BY seq
RETURNING id, chain, batch, lane"""
_GONE: Final = "seq, id, batch, replayed_as"


class _Letter(NamedTuple):
    """A dead letter that is locked."""

    number: int
    task: str
    key: str | None
    batch: int | None
    handed: str | None


async def _find(tx: Transaction, id: str) -> _Letter:
    """Lock a dead letter that was not replayed, after its batch."""
    row = None
    if "\0" not in id:
        await batch_locks.hold_of_letter(tx, id)
        row = await tx.fetchrow(_FIND, id)
    if row is None:
        raise JobNotFound(f"no dead letter has the id {id}; it may have been replayed or deleted")
    letter, replayed_as, *rest = row
    if replayed_as is not None:
        raise AlreadyReplayed(
            f"dead letter {id} was replayed with other arguments, as job {replayed_as}"
        )
    return _Letter(letter, *rest)


async def replay(tx: Transaction, id: str, now: int, forget: Sequence[str] = ()) -> Enqueued:
    """Put one dead letter back; see ``DeadLetterStore.replay``."""
    letter = await _find(tx, id)
    made = await _put_back(tx, [letter.number], now)
    if not made:
        raise await _key_error(tx, letter.task, letter.key or "")
    ((seq, job),) = made.items()
    if forget:
        require_memos(job.id, await steps.names(tx, seq), forget)
        await steps.forget(tx, seq, forget)
    return job


async def _put_back(tx: Transaction, letters: Sequence[int], now: int) -> dict[int, Enqueued]:
    """Put dead letters back, except those whose key is taken; return the jobs by ``seq``.

    The key may be taken by another of these dead letters: the one that died later is put back first.
    """
    rows = await tx.fetch(_PUT_BACK, now, letters)
    gone = [seq for _, _, seq, *_ in rows]
    await lanes.arrived(tx, [seq for _, lane, seq, *_ in rows if lane is not None])
    # Of the attempts before the death: the job begins again.
    await tx.execute("DELETE FROM jobrunner.progress WHERE job = ANY ($1::bigint[])", gone)
    await tx.execute("DELETE FROM jobrunner.dead_letters WHERE seq = ANY ($1::bigint[])", gone)
    members = [(id, batch) for batch, _, _, id, *_ in rows if batch is not None]
    if members:
        await replays.replayed(tx, members, now, Effects())
    return {seq: Enqueued(id, True, *rest) for _, _, seq, id, *rest in rows}


async def _key_error(tx: Transaction, task: str, key: str) -> KeyTaken:
    holder = await tx.fetchrow(FIND_BY_KEY, task, key)
    return KeyTaken(
        f"key {key!r} of task {task} belongs to job {holder[0] if holder else '?'}, which is not finished;"
        " wait for it or cancel it, then replay again"
    )


async def replay_edited(tx: Transaction, id: str, job: Enqueue) -> Enqueued:
    """Store ``job`` and mark the dead letter as replayed by it."""
    await lock_lanes(tx, [job])
    letter = await _find(tx, id)
    batch = letter.batch if await replays.takes_replays(tx, letter.batch) else None
    handed = letter.handed if job.handed is None else job.handed
    made = await insert_queued(tx, job._replace(batch=batch, handed=handed))
    if not made.created:
        raise await _key_error(tx, job.task, job.key or "")
    await tx.execute(
        "UPDATE jobrunner.dead_letters SET replayed_as = $1 WHERE letter = $2",
        *(job.id, letter.number),
    )
    if batch is not None:
        await replays.replaced(tx, id, job.id, batch, job.run_at, Effects())
    elif letter.batch is None:
        await replays.replaced_callback(tx, id, job.id)
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

    def rows(self) -> Rows:
        """Return the rows to walk."""
        rows = queries.letters(self.where)
        if self.tasks is not None:
            rows.where.add("task = ANY ({}::text[])", sorted(self.tasks))
        if self.without:
            rows.where.add("letter <> ALL ({}::bigint[])", sorted(self.without))
        if self.down_to is not None:
            rows.where.add("letter >= {}", self.down_to)
        return rows


class Pace(NamedTuple):
    """The due times of the jobs that one slice of a replay puts back."""

    now: int
    run_at: int
    """The due time of the first one."""
    spacing: int
    """The time from each to the next."""


async def replay_all(
    tx: Transaction, meant: Meant, before: int | None, limit: int, pace: Pace
) -> Replayed:
    """Replay one slice of dead letters."""
    found = await walks.page(tx, meant.rows(), "seq", before, limit)
    cursor = found.next
    if cursor is not None and meant.down_to is not None and cursor <= meant.down_to:
        cursor = None
    await batch_locks.hold_of_letters(tx, [letter for letter, _ in found.rows])
    # Another process may replay the same ones.
    locked = {
        letter
        for (letter,) in await tx.fetch(
            "SELECT letter FROM jobrunner.dead_letters WHERE letter = ANY ($1::bigint[]) AND replayed_as IS NULL"
            " ORDER BY letter FOR UPDATE",
            [letter for letter, _ in found.rows],
        )
    }
    rows = [(letter, seq) for letter, seq in found.rows if letter in locked]
    made = await _put_back(tx, [letter for letter, _ in rows], pace.now)
    await _spread(tx, [seq for _, seq in rows if seq in made], pace)
    return Replayed(len(made), len(rows) - len(made), cursor)


async def _spread(tx: Transaction, seqs: Sequence[int], pace: Pace) -> None:
    """Schedule those of the jobs that are due later than now."""
    due = [(pace.run_at + number * pace.spacing, seq) for number, seq in enumerate(seqs)]
    later = [(run_at, seq) for run_at, seq in due if run_at > pace.now]
    if later:
        await tx.execute(
            "UPDATE jobrunner.jobs job SET state = 'scheduled', run_at = d.run_at"
            " FROM unnest($1::bigint[], $2::bigint[]) AS d (run_at, seq) WHERE job.seq = d.seq",
            *zip(*later, strict=True),
        )


async def keys(tx: Transaction, meant: Meant, before: int | None, limit: int) -> Found:
    """Return a page of the tasks and keys of dead letters."""
    return await walks.page(tx, meant.rows(), "task, key", before, limit)


async def arguments(
    tx: Transaction, meant: Meant, before: int | None, limit: int
) -> LetterArguments:
    """Return a page of the tasks and arguments of dead letters."""
    found = await walks.page(tx, meant.rows(), "task, args, handed", before, limit, PAGE_ROOM)
    return LetterArguments([tuple(row) for row in found.rows], found.next)


async def taken(tx: Transaction, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs of a task and a key that an unfinished job holds."""
    rows = await tx.fetch(_TAKEN, [task for task, _ in keys], [key for _, key in keys])
    return {(task, key) for task, key in rows}


async def last_workers(tx: Transaction, seqs: Sequence[int]) -> Mapping[int, int]:
    """Count dead letters by the worker of their last attempt, most frequent first."""
    rows = await tx.fetch(
        "SELECT worker, count(*) FROM (SELECT DISTINCT ON (job) worker FROM jobrunner.attempts"
        " WHERE job = ANY ($1::bigint[]) ORDER BY job, lease DESC) last GROUP BY worker ORDER BY 2 DESC, 1",
        seqs,
    )
    return dict(map(tuple, rows))


async def delete(tx: Transaction, id: str) -> bool:
    """Delete a dead letter and its history; return False if there is none."""
    if "\0" in id:
        return False
    await batch_locks.hold_of_letter(tx, id)
    rows = await tx.fetch(f"DELETE FROM jobrunner.dead_letters WHERE id = $1 RETURNING {_GONE}", id)
    await _forget(tx, rows)
    return bool(rows)


async def _forget(tx: Transaction, rows: Sequence[Any]) -> None:
    """Delete the histories of deleted dead letters, and note it in their batches."""
    if rows:
        await history.delete(tx, [seq for seq, *_ in rows])
        await replays.deleted(tx, [(id, batch, replayed_as) for _, id, batch, replayed_as in rows])


async def delete_all(tx: Transaction, where: Filter, before: int | None, limit: int) -> Slice:
    """Delete one slice of the dead letters that match ``where``, with their histories."""
    found = await walks.page(tx, queries.letters(where), "seq", before, limit)
    letters = [letter for letter, _ in found.rows]
    await batch_locks.hold_of_letters(tx, letters)
    gone = await tx.fetch(
        f"DELETE FROM jobrunner.dead_letters WHERE letter = ANY ($1::bigint[]) RETURNING {_GONE}",
        letters,
    )
    await _forget(tx, gone)
    return Slice(len(gone), found.next)


async def bury_waiting(
    tx: Transaction,
    queue: str,
    task: str,
    *,
    due_before: int,
    reason: DeadReason,
    error: str,
    now: int,
    limit: int,
) -> Sequence[str]:
    """Bury queued jobs due before ``due_before`` if no worker knows their task; return their ids."""
    if await tx.fetchrow(_KNOWN, task) is not None:
        return []
    buried = await tx.fetch(
        _BURY_WAITING,
        *(queue, task, due_before, limit, now, reason, storable(error)),
        fingerprint(task, None, error, None),
    )
    await lanes.left(tx, {lane for *_, lane in buried})
    dead = [End(id, chain, batch, "dead") for id, chain, batch, _ in buried]
    await ends.follow(tx, now, dead, Effects())
    if buried:
        statistics.add_dead(tx, {(queue, task): len(buried)}, reason, now)
    return [id for id, *_ in buried]
