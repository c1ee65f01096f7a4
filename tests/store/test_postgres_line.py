"""The session that proves that a worker lives: cut, taken up again, or found free by others."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from jobrunner.core.errors import StoreUnavailable
from jobrunner.store.postgres import line as lines
from jobrunner.store.postgres import workers as postgres_workers
from jobrunner.store.postgres.access import transact
from jobrunner.store.postgres.connection import (
    READER,
    Connection,
    close,
    connect,
    connect_line,
)
from jobrunner.store.postgres.sql import workers as rows
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.protocol import Recovered
from tests.support.factories import (
    NOW,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_one,
    enqueue,
    new,
    row_of,
    settle,
    succeeded,
    worker_row,
)

PATIENCE_S: Final = 20.0


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """A store on which ``WORKER`` has joined."""
    store = PostgresStore(postgres_url)
    await store.open()
    await store.workers.join(worker_row(), lambda: None)
    yield store
    await store.close()


@pytest.fixture
async def outside(postgres_url: str) -> AsyncIterator[Connection]:
    """A session of another process."""
    connection = await connect(postgres_url, READER)
    yield connection
    await close(connection)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event; until it is set, no line is taken up again."""
    is_back = asyncio.Event()

    async def connect_when_back(url: str) -> Connection:
        await is_back.wait()
        return await connect_line(url)

    monkeypatch.setattr(lines, "connect_line", connect_when_back)
    return is_back


async def cut(outside: Connection, store: PostgresStore) -> lines.Line:
    """End the session of the worker's line at the server, and wait until the worker knows."""
    line = store.workers._lines[WORKER]
    assert line._session is not None
    await outside.execute("SELECT pg_terminate_backend($1)", line._session[0])
    await until(store, lambda: line.standing != "held")
    return line


async def until(store: PostgresStore, condition: Callable[[], bool]) -> None:
    """Turn the loop, by reads, until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await store.change_counter()


async def test_F01_worker_whose_line_is_cut_claims_nothing_until_it_has_it_again(
    store: PostgresStore, outside: Connection, network: asyncio.Event
) -> None:
    running = await claim_one(store)
    line = await cut(outside, store)
    await enqueue(store, new())
    assert await claim(store) == []
    await store.upkeep()
    network.set()
    await until(store, lambda: line.standing == "held")
    assert len(await claim(store)) == 1
    assert not (await settle(store, succeeded(running))).stale


async def test_F02_worker_that_was_found_dead_while_it_was_cut_off_stays_lost(
    store: PostgresStore, outside: Connection, network: asyncio.Event
) -> None:
    running = await claim_one(store)
    line = await cut(outside, store)
    taken = await transact(outside, lambda tx: rows.take_jobs(tx, WORKER, NOW))
    assert taken == rows.Taken(1, [])
    network.set()
    await until(store, lambda: line.standing != "doubtful")
    assert line.standing == "lost"
    assert await claim(store) == []
    assert (await settle(store, succeeded(running))).stale
    assert (await row_of(store, running.id)).state == "queued"
    assert not store.workers.has_joined(WORKER)


async def test_worker_hears_what_the_store_can_prove_of_it(
    postgres_url: str, outside: Connection, network: asyncio.Event
) -> None:
    heard: list[str] = []
    store = PostgresStore(postgres_url)
    await store.open()
    network.set()
    await store.workers.join(worker_row(), lambda: None, heard.append)
    network.clear()
    await cut(outside, store)
    assert heard == ["doubtful"]
    network.set()
    await until(store, lambda: len(heard) == 2)
    network.clear()
    await cut(outside, store)
    await transact(outside, lambda tx: rows.take_jobs(tx, WORKER, NOW))
    network.set()
    await until(store, lambda: len(heard) == 4)
    await store.close()
    assert heard == ["doubtful", "held", "doubtful", "lost"]


async def test_join_that_cannot_store_its_row_leaves_no_session(
    store: PostgresStore, outside: Connection
) -> None:
    with pytest.raises(StoreUnavailable):
        await store.workers.join(worker_row(OTHER_WORKER)._replace(host="\0"), lambda: None)
    assert not store.workers.has_joined(OTHER_WORKER)
    # Waits for the end of the session at the server, which holds the lock until then.
    await outside.execute("SELECT pg_advisory_lock($1)", OTHER_WORKER)


async def test_F09_claim_of_a_worker_without_a_row_gets_nothing(
    store: PostgresStore, outside: Connection
) -> None:
    """It has its line, and does not know yet that it was found dead."""
    await outside.execute("DELETE FROM jobrunner.workers")
    await enqueue(store, new())
    assert await claim(store) == []


async def test_live_worker_is_not_taken_by_whoever_thinks_it_dead(
    store: PostgresStore, outside: Connection
) -> None:
    await claim_one(store)
    assert await transact(outside, lambda tx: rows.take_jobs(tx, WORKER, NOW)) is None


_WAITS = """
SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobrunner line' AND wait_event = 'advisory'
    AND datname = current_database()"""


async def test_line_whose_opening_is_cancelled_leaves_no_session(
    postgres_url: str, outside: Connection
) -> None:
    await outside.execute("SELECT pg_advisory_lock($1)", OTHER_WORKER)
    opening = asyncio.create_task(lines.Line(postgres_url, OTHER_WORKER).open())
    async with asyncio.timeout(PATIENCE_S):
        while not await outside.fetchval(_WAITS):
            pass
        opening.cancel()
        await asyncio.wait([opening])
        while await outside.fetchval(_WAITS):
            pass
    assert opening.cancelled()


@pytest.fixture
async def other_without_line(store: PostgresStore, outside: Connection) -> None:
    """Another worker has a row, and its session has just ended."""
    await transact(outside, lambda tx: rows.join(tx, worker_row(OTHER_WORKER)))


@pytest.mark.usefixtures("other_without_line")
async def test_F01_worker_whose_line_is_there_again_at_the_second_look_keeps_its_jobs(
    store: PostgresStore, outside: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_workers, "RESTART_GRACE_S", 0)

    class Between:
        """Stands for asyncio: the pause between the two checks is over when the line is there again."""

        @staticmethod
        async def sleep(_: float) -> None:
            await outside.execute("SELECT pg_advisory_lock($1)", OTHER_WORKER)

    with monkeypatch.context() as patch:
        patch.setattr(postgres_workers, "asyncio", Between)
        assert await store.workers.recover(now=NOW, thorough=True) == Recovered([], 0, [])
    await outside.execute("SELECT pg_advisory_unlock($1)", OTHER_WORKER)
    found: Any = await store.workers.recover(now=NOW, thorough=True)
    assert found.workers == [OTHER_WORKER]


@pytest.mark.usefixtures("other_without_line")
async def test_F03_nobody_is_dead_just_after_the_server_has_started(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_workers, "RESTART_GRACE_S", 10**6)
    assert await store.workers.recover(now=NOW, thorough=True) == Recovered([], 0, [])
