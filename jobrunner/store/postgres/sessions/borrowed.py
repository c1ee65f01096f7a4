"""Writes jobs and outcomes in a transaction on the application's own connection.

Each call is inside a savepoint: an error of ours would otherwise abort the application's transaction.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from jobrunner.core.errors import InvalidSession
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo, Outcome, Succeeded
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.effects import Effects
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.sql import batch_locks, batches, steps
from jobrunner.store.postgres.sql.insert import insert_all, lock_lanes
from jobrunner.store.postgres.sql.rows import refuse_unstorable
from jobrunner.store.postgres.sql.settle import Settling
from jobrunner.store.postgres.sql.statistics import flush
from jobrunner.store.postgres.sql.transaction import LOCK_TIMEOUT, Transaction
from jobrunner.store.postgres.sql.waiting import Waiting

IDENTITY: Final = """
SELECT (SELECT system_identifier FROM pg_control_system())::text || ' ' || oid::text,
    current_setting('synchronous_commit')
FROM pg_database WHERE datname = current_database()"""

# The old value is read before the new one is set. A transaction that is less durable than the store's own commits is
# made as durable.
_OPEN: Final = """
WITH before AS MATERIALIZED (
    SELECT current_setting('lock_timeout') AS lock_timeout, EXISTS (
        SELECT FROM jobrunner.limits WHERE scope = 'queue' AND coalesce(set_max_waiting, max_waiting) IS NOT NULL
    ) AS is_limited
)
SELECT before.*,
    CASE WHEN is_limited OR $1::boolean THEN set_config('lock_timeout', $2::text, true) END,
    CASE WHEN $3::boolean AND current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'on', true) END
FROM before"""
_NOTE: Final = """
SELECT pg_current_xact_id()::text,
    CASE WHEN $1::boolean AND current_setting('synchronous_commit') = 'off'
        THEN set_config('synchronous_commit', 'on', true) END"""
_RESTORE: Final = "SELECT set_config('lock_timeout', $1::text, true)"
TRANSACTION: Final = "SELECT pg_current_xact_id_if_assigned()::text"


async def identify(on: Statements, database: str, name: str) -> None:
    """Check that a connection is to the store's database.

    Raises:
        InvalidSession: It is to another one.
    """
    found, _ = await on.fetchrow(IDENTITY)
    if found != database:
        raise InvalidSession(
            f"the session writes to another database than {name}, where the jobs are: one transaction cannot span both."
            " Open the session on it, or the runner on the session's database"
        )


@asynccontextmanager
async def whole(on: Statements) -> AsyncIterator[Transaction]:
    """Run the block in the open transaction; it leaves everything or nothing there."""
    await on.execute("SAVEPOINT jobrunner")
    tx = Transaction(on)
    try:
        yield tx
        await flush(tx)
    except BaseException:
        # A lost connection says so here too, and the first error is the one to raise.
        with suppress(Exception):
            await on.execute("ROLLBACK TO SAVEPOINT jobrunner")
            await on.execute("RELEASE SAVEPOINT jobrunner")
        raise
    await on.execute("RELEASE SAVEPOINT jobrunner")


async def insert(
    on: Statements, jobs: Sequence[Enqueue], now: int, *, durable: bool
) -> list[Enqueued]:
    """Insert jobs, all or none."""
    refuse_unstorable(jobs)
    may_wait = _hold_something(jobs)
    async with whole(on) as tx, _shortly(tx, may_wait=may_wait, durable=durable) as is_limited:
        await lock_lanes(tx, jobs)
        waiting = await Waiting.of(tx, jobs) if is_limited else None
        stored = await insert_all(tx, jobs, now)
        if waiting is not None:
            waiting.add(stored)
        return stored


async def insert_batch(
    on: Statements, request: BatchEnqueue, now: int, *, durable: bool
) -> BatchEnqueued:
    """Insert a batch, its jobs and edges, all or none."""
    jobs = (*request.members, *request.callbacks)
    refuse_unstorable(jobs)
    may_wait = isinstance(request.batch, str) or _hold_something(jobs)
    async with whole(on) as tx, _shortly(tx, may_wait=may_wait, durable=durable) as is_limited:
        await lock_lanes(tx, jobs)
        waiting = await Waiting.of(tx, request.members) if is_limited else None
        stored = await batches.enqueue(tx, request, now, Effects())
        if waiting is not None:
            waiting.add(stored.members)
        return stored


def _hold_something(jobs: Sequence[Enqueue]) -> bool:
    return any(job.key is not None or job.lane is not None for job in jobs)


@asynccontextmanager
async def _shortly(tx: Transaction, *, may_wait: bool, durable: bool) -> AsyncIterator[bool]:
    """Wait in the block for other transactions for ``LOCK_TIMEOUT`` at most; yield whether queues are limited."""
    timeout, is_limited, *_ = await tx.fetchrow(_OPEN, may_wait, LOCK_TIMEOUT, durable)
    yield is_limited
    if may_wait or is_limited:
        # After an error the savepoint brings the old value back.
        await tx.fetchval(_RESTORE, timeout)


async def settle(on: Statements, outcome: Outcome, now: int, *, durable: bool) -> tuple[bool, str]:
    """Write an outcome; return False if the fence refuses it, and the number of the transaction."""
    added = outcome.enqueues if isinstance(outcome, Succeeded) else ()
    refuse_unstorable(added)
    async with whole(on) as tx:
        number, _ = await tx.fetchrow(_NOTE, durable)
        # In the order of a round: batches before jobs.
        members = {outcome.job.batch, *(job.batch for job in added)}
        await batch_locks.hold(tx, {batch for batch in members if batch is not None})
        await lock_lanes(tx, added)
        settling = Settling(tx, now, Effects())
        await settling.settle([outcome])
        for _, error in settling.refused:
            raise error
        return not settling.stale, number


async def keep(on: Statements, memo: Memo, now: int, *, durable: bool) -> tuple[bool, str]:
    """Store a memo; return False if the fence refuses it or it is there, and the number of the transaction."""
    async with whole(on) as tx:
        number, _ = await tx.fetchrow(_NOTE, durable)
        (kept,) = await steps.keep(tx, [memo], now)
        return kept, number
