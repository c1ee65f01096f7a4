"""Batches in the application's own transaction, by every kind of session: all of a batch, or nothing."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from jobrunner.core.errors import (
    BatchEnded,
    InvalidBatch,
    JobRunnerError,
    KeyTaken,
    QueueFull,
    StoreUnavailable,
)
from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import BatchEnqueue, NewBatch
from jobrunner.store.sqlite import SqliteStore
from tests.support.engine import soon
from tests.support.factories import NOW, enqueue, new, settle, succeeded
from tests.support.sessions import Ears, Kind, count_rows, every_kind, make_table
from tests.support.workflows import (
    a_batch,
    batch_row,
    claim_all,
    needs,
    request,
    states_of,
)

COUNTS = (
    "SELECT (SELECT count(*) FROM jobrunner_batches), (SELECT count(*) FROM jobrunner_jobs),"
    " (SELECT count(*) FROM jobrunner_edges)"
)
NOTHING = (0, 0, 0)
WHOLE = (1, 5, 4)
"""The rows that ``pair`` stores: a batch, its two members and three callbacks, and their edges."""


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_db)
    await store.open()
    make_table(tmp_db)
    yield store
    await store.close()


def pair() -> BatchEnqueue:
    """Return a batch of two members, the second of which needs the first, with all callbacks."""
    first, second = new(), new()
    return request(first, second, edges=needs(second, first))


def id_of(wanted: BatchEnqueue) -> str:
    assert isinstance(wanted.batch, NewBatch)
    return wanted.batch.id


def counts(path: Path) -> tuple[int, int, int]:
    """Count batches, jobs and edges as a stranger sees them."""
    with closing(sqlite3.connect(path)) as stranger:
        batches, jobs, edges = stranger.execute(COUNTS).fetchone()
    return batches, jobs, edges


@every_kind
async def test_batch_is_committed_with_the_sessions_rows_and_runs_to_its_callback(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    wanted = pair()
    async with kind.hold(tmp_db) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        stored = await store.session(held.source).insert_batch(wanted, now=NOW)
        assert [job.state for job in stored.members] == ["queued", "blocked"]
        assert [job.state for job in stored.callbacks] == ["blocked"] * 3
        assert (counts(tmp_db), count_rows(tmp_db)) == (NOTHING, 0)
        await held.commit()
    assert (counts(tmp_db), count_rows(tmp_db)) == (WHOLE, 1)
    for job in wanted.members:
        await settle(store, succeeded((await claim_all(store))[job.id]))
    assert (await batch_row(store, id_of(wanted))).state == "succeeded"
    assert {job.task for job in (await claim_all(store)).values()} == {"then", "at_end"}


@every_kind
async def test_fault_33_rollback_leaves_no_row_of_a_batch(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    async with kind.hold(tmp_db) as held:
        await store.session(held.source).insert_batch(pair(), now=NOW)
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await held.rollback()
        assert (counts(tmp_db), count_rows(tmp_db)) == (NOTHING, 0)
        # The session is as it was before.
        await store.session(held.source).insert_batch(pair(), now=NOW)
        await held.commit()
    assert counts(tmp_db) == WHOLE


@every_kind
async def test_batch_without_members_has_ended_in_the_sessions_commit(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    wanted = request()
    async with kind.hold(tmp_db) as held:
        await store.session(held.source).insert_batch(wanted, now=NOW)
        assert counts(tmp_db) == NOTHING
        await held.commit()
    assert (await batch_row(store, id_of(wanted))).state == "succeeded"
    assert {job.task for job in (await claim_all(store)).values()} == {"then", "at_end"}


@every_kind
@pytest.mark.parametrize("why", ["key", "outsider", "row", "full"])
async def test_refused_batch_leaves_none_of_its_rows_and_those_before(
    store: SqliteStore, tmp_db: Path, kind: Kind, why: str
) -> None:
    await enqueue(store, new(key="k"))
    first, second = new(), new()
    edges = needs(second, first)
    expected: type[JobRunnerError] = KeyTaken
    if why == "key":
        first = first._replace(key="k")
    elif why == "outsider":
        edges, expected = [*edges, *needs(second, new())], InvalidBatch
    elif why == "row":
        second, expected = second._replace(args="\ud800"), StoreUnavailable
    else:
        await store.limits.set(LimitName("queue", "default"), Limit(max_waiting=1), now=NOW)
        expected = QueueFull
    async with kind.hold(tmp_db) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        with pytest.raises(expected):
            await store.session(held.source).insert_batch(
                request(first, second, edges=edges), now=NOW
            )
        await held.commit()
    assert (counts(tmp_db), count_rows(tmp_db)) == ((0, 1, 0), 1)


@every_kind
async def test_members_are_added_to_a_batch_with_the_sessions_rows(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    first, gone, late = new(), new(), new()
    made = await a_batch(store, first)
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        await session.insert_batch(BatchEnqueue(made.id, [gone], (), []), now=NOW)
        await held.rollback()
        assert (await batch_row(store, made.id)).total == 1
        await session.insert_batch(BatchEnqueue(made.id, [late], (), needs(late, first)), now=NOW)
        await held.commit()
    assert (await batch_row(store, made.id)).total == 2
    await settle(store, succeeded((await claim_all(store))[first.id]))
    assert (await batch_row(store, made.id)).state == "running"
    await settle(store, succeeded((await claim_all(store))[late.id]))
    async with kind.hold(tmp_db) as held:
        with pytest.raises(BatchEnded):
            await store.session(held.source).insert_batch(
                BatchEnqueue(made.id, [gone], (), []), now=NOW
            )
        await held.commit()
    assert await store.jobs.get(gone.id) is None


@every_kind
async def test_watch_tells_once_others_see_the_batch(
    store: SqliteStore, tmp_db: Path, kind: Kind
) -> None:
    ears = Ears(tmp_db)
    async with kind.hold(tmp_db) as held:
        session = store.session(held.source)
        await session.insert_batch(request(callbacks=["then"]), now=NOW)
        session.watch(ears.tell, ears.lost)
        assert ears.seen.empty()
        await held.commit()
        assert await ears.told() == 1
        await session.insert_batch(pair(), now=NOW)
        session.watch(ears.tell, ears.lost)
        await held.rollback()
    assert ears.seen.empty()


async def test_cancelled_insert_of_a_batch_is_in_the_transaction_as_a_whole(
    store: SqliteStore, tmp_db: Path
) -> None:
    async with aiosqlite.connect(tmp_db) as connection:
        session = store.session(connection)
        driver: Any = connection
        began, go_on = threading.Event(), threading.Event()

        def hold_up() -> None:
            began.set()
            go_on.wait()

        blocked = asyncio.ensure_future(driver._execute(hold_up))
        await asyncio.to_thread(began.wait)
        inserting = asyncio.ensure_future(session.insert_batch(pair(), now=NOW))
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop: the insert waits for the thread now
        inserting.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await soon(inserting)
        await blocked
        await connection.commit()
    assert counts(tmp_db) == WHOLE


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_fault_7_last_end_waits_for_a_transaction_that_adds_a_member(
    store: SqliteStore, tmp_db: Path, end: str
) -> None:
    first, late = new(), new()
    made = await a_batch(store, first)
    running = await claim_all(store)
    with closing(sqlite3.connect(tmp_db)) as connection:
        session = store.session(connection)
        await session.insert_batch(BatchEnqueue(made.id, [late], (), []), now=NOW)
        # The round cannot be written before the session's transaction has ended.
        settling = asyncio.ensure_future(settle(store, succeeded(running[first.id])))
        await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop: the round is at its thread now
        getattr(connection, end)()
        written = await soon(settling)
    if end == "commit":
        assert (written.ended, (await batch_row(store, made.id)).state) == ((), "running")
        assert await states_of(store, [late, *made.callbacks]) == ["queued"] + ["blocked"] * 3
    else:
        assert list(written.ended) == [made.id]
        assert (await batch_row(store, made.id)).total == 1
