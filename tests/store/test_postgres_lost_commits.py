"""The answer to a commit is lost on PostgreSQL: the store finds out what became of it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from jobrunner.core.errors import StoreBusy, StoreOutcomeUnknown
from jobrunner.core.model import Enqueued
from jobrunner.store.postgres import lost_commits
from jobrunner.store.postgres.connection import READER, Connection, close, connect
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.support.factories import (
    HOUR,
    NOW,
    WORKER,
    claim,
    claim_of,
    claim_one,
    enqueue,
    new,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)
from tests.support.pg_proxy import Proxy, proxy

PATIENCE_S: Final = 30.0
ANY: Final = b""
COMMIT: Final = b"COMMIT"


@pytest.fixture
async def between(postgres_url: str) -> AsyncIterator[Proxy]:
    """A proxy between the store and its server."""
    async with proxy(postgres_url) as one:
        yield one


@pytest.fixture
async def store(between: Proxy) -> AsyncIterator[PostgresStore]:
    """A store behind the proxy, on which ``WORKER`` has joined and rounds have been written."""
    store = PostgresStore(between.url)
    await store.open()
    await store.workers.join(worker_row(), lambda: None)
    await settle(store, succeeded(await claim_one(store)))
    yield store
    await store.close()


@pytest.fixture
async def outside(postgres_url: str) -> AsyncIterator[Connection]:
    """A session that does not go through the proxy."""
    connection = await connect(postgres_url, READER)
    yield connection
    await close(connection)


@pytest.fixture
async def holder(postgres_url: str) -> AsyncIterator[Connection]:
    """A session that holds a lock, in a transaction: it sees no news of other sessions."""
    connection = await connect(postgres_url, READER)
    yield connection
    await close(connection)


async def stored(outside: Connection, id: str) -> int:
    """Return the number of rows of a job."""
    return int(await outside.fetchval("SELECT count(*) FROM jobrunner.jobs WHERE id = $1", id))


async def test_F13_enqueue_whose_answer_is_lost_is_answered_and_stored_once(
    store: PostgresStore, between: Proxy, outside: Connection
) -> None:
    job = new()
    between.lose_answer_to(ANY)
    async with asyncio.timeout(PATIENCE_S):
        written = await store.write(Round(NOW + 1, enqueues=[job]))
    assert between.lost.is_set()
    (answer,) = written.enqueued
    assert isinstance(answer, Enqueued)
    assert answer.created
    assert await stored(outside, job.id) == 1


async def test_F13_round_with_a_key_whose_answer_is_lost_is_answered_and_stored_once(
    store: PostgresStore, between: Proxy, outside: Connection
) -> None:
    job = new(key="order-7")
    between.lose_answer_to(COMMIT)
    async with asyncio.timeout(PATIENCE_S):
        (answer,) = await enqueue(store, job)
    assert between.lost.is_set()
    assert answer.created
    assert await stored(outside, job.id) == 1


async def test_F13_claim_whose_answer_is_lost_is_found(
    store: PostgresStore, between: Proxy
) -> None:
    running = await claim_one(store)
    jobs = [new(), new()]
    await enqueue(store, *jobs)
    between.lose_answer_to(ANY)
    async with asyncio.timeout(PATIENCE_S):
        written = await store.write(
            Round(NOW + 5, outcomes=[succeeded(running)], claim=claim_of(slots=5))
        )
    assert between.lost.is_set()
    assert not written.stale
    assert {one.id for one in written.claimed} == {job.id for job in jobs}
    assert {one.attempt for one in written.claimed} == {1}
    assert await claim(store, slots=5) == []
    assert (await row_of(store, running.id)).state == "succeeded"


async def test_F13_round_that_never_reached_the_server_is_written_again(
    store: PostgresStore, outside: Connection
) -> None:
    await outside.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'jobrunner' AND datname = current_database()"
    )
    job = new()
    (answer,) = await enqueue(store, job)
    assert answer.created
    assert await stored(outside, job.id) == 1


async def test_F13_outcome_is_unknown_while_the_server_stays_away(
    store: PostgresStore, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_commits, "PATIENCE_S", 0.3)
    between.lose_answer_to(ANY)
    between.refuses = True
    with pytest.raises(StoreOutcomeUnknown):
        await enqueue(store, new())
    between.refuses = False


async def test_F14_commit_that_still_runs_at_the_server_is_waited_for(
    store: PostgresStore, between: Proxy, outside: Connection, holder: Connection
) -> None:
    """Another transaction holds the row that the lost round settles, so it goes on after the connection has gone."""
    running = await claim_one(store)
    await holder.execute("BEGIN")
    await holder.execute("SELECT FROM jobrunner.jobs WHERE seq = $1 FOR UPDATE", running.seq)
    between.lose_answer_to(ANY)
    job = new()
    round_ = asyncio.ensure_future(
        store.write(Round(NOW + 7, outcomes=[succeeded(running)], enqueues=[job]))
    )
    async with asyncio.timeout(PATIENCE_S):
        await between.lost.wait()
        # The lookup is on its way, and sees the session at work.
        while not await outside.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%state <> ''idle''%'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        ):
            await asyncio.wait([round_], timeout=0.01)
    assert not round_.done()
    await holder.execute("COMMIT")
    async with asyncio.timeout(PATIENCE_S):
        written = await round_
    assert not written.stale
    assert await stored(outside, job.id) == 1


async def test_F15_round_that_runs_into_the_statement_timeout_stores_nothing_and_goes_again(
    store: PostgresStore, outside: Connection
) -> None:
    running: Any = await claim_one(store)
    await outside.execute("BEGIN")
    await outside.execute("SELECT FROM jobrunner.jobs WHERE seq = $1 FOR UPDATE", running.seq)
    assert store._access._rounds is not None
    async with store._access._rounds.connection() as writer:
        await writer.execute("SET statement_timeout = '100ms'; SET lock_timeout = 0")
    job = new()
    again = retry(running, run_at=NOW + HOUR)
    for outcome in (succeeded(running), again):
        with pytest.raises(StoreBusy):
            await store.write(Round(NOW, outcomes=[outcome], enqueues=[job]))
        assert await stored(outside, job.id) == 0
    await outside.execute("COMMIT")
    written = await store.write(Round(NOW, outcomes=[again], enqueues=[job]))
    assert not written.stale
    assert await stored(outside, job.id) == 1
    assert store.workers.has_joined(WORKER)
