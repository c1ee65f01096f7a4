"""Faults of the server, of its settings and of other sessions, as the store on PostgreSQL meets them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import asyncpg
import pytest

from jobrunner.core.errors import StoreBusy, StoreFull, StoreUnavailable
from jobrunner.store.postgres.access import transact
from jobrunner.store.postgres.bell import WORK
from jobrunner.store.postgres.connection import READER, Connection, close, connect
from jobrunner.store.postgres.sql import workers as rows
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.support.factories import (
    NOW,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_one,
    enqueue,
    new,
    settle,
    succeeded,
    worker_row,
)
from tests.support.pg_proxy import proxy

PATIENCE_S: Final = 60.0


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
    """A session of somebody else."""
    connection = await connect(postgres_url, READER)
    yield connection
    await close(connection)


async def until(store: PostgresStore, condition: Callable[[], bool]) -> None:
    """Turn the loop, by reads, until a condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await store.change_counter()


async def impatient(store: PostgresStore) -> None:
    """Let the server break off what takes a tenth of a second in a round."""
    assert store._access._rounds is not None
    async with store._access._rounds.connection() as writer:
        await writer.execute("SET statement_timeout = '100ms'")


async def test_F07_worker_ends_its_own_ghost_at_the_server_and_has_its_line_again(
    postgres_url: str, outside: Connection
) -> None:
    async with proxy(postgres_url) as between:
        store = PostgresStore(between.url)
        await store.open()
        await store.workers.join(worker_row(), lambda: None)
        try:
            running = await claim_one(store)
            line = store.workers._lines[WORKER]
            ghost = line._session
            assert ghost is not None
            between.leave_ghosts()
            await until(store, lambda: line.standing == "held" and line._session != ghost)
            alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2"
            async with asyncio.timeout(PATIENCE_S):
                while await outside.fetchval(alive, *ghost):
                    await store.change_counter()
            assert not (await settle(store, succeeded(running))).stale
        finally:
            await store.close()


async def test_F10_of_two_that_recover_a_dead_worker_one_takes_its_jobs(
    store: PostgresStore, outside: Connection, postgres_url: str
) -> None:
    await transact(outside, lambda tx: rows.join(tx, worker_row(OTHER_WORKER)))
    await claim_one(store, new())
    await outside.execute("UPDATE jobrunner.jobs SET worker = $1", OTHER_WORKER)
    second = await connect(postgres_url, READER)
    taken = await asyncio.gather(
        *(
            transact(one, lambda tx: rows.take_jobs(tx, OTHER_WORKER, NOW))
            for one in (outside, second)
        )
    )
    await close(second)
    assert sorted(taken, key=str) == [None, rows.Taken(1, [])]
    assert await outside.fetchval("SELECT count(*) FROM jobrunner.attempts") == 1


async def test_F27_process_of_older_code_calls_its_function_beside_a_newer_one(
    store: PostgresStore, outside: Connection
) -> None:
    await outside.execute(
        "CREATE FUNCTION jobrunner.round_999(p_now bigint) RETURNS bigint LANGUAGE sql AS 'SELECT p_now'"
    )
    running = await claim_one(store)
    assert not (await settle(store, succeeded(running))).stale
    await outside.execute("DROP FUNCTION jobrunner.round_999(bigint)")


async def test_F28_role_without_rights_is_refused_at_open(
    postgres_url: str, outside: Connection
) -> None:
    await outside.execute("DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN")
    try:
        store = PostgresStore(postgres_url.replace("jobrunner@", "stranger@"))
        with pytest.raises(StoreUnavailable, match=r"right|permission"):
            await store.open()
    finally:
        await outside.execute("DROP ROLE stranger")


async def test_F28_role_with_the_rights_of_an_application_stores_and_claims(
    store: PostgresStore, postgres_url: str, outside: Connection
) -> None:
    await outside.execute(
        """
        DROP ROLE IF EXISTS application;
        CREATE ROLE application LOGIN;
        GRANT USAGE ON SCHEMA jobrunner TO application;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobrunner TO application;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA jobrunner TO application;
        """
    )
    await store.workers.leave(WORKER, now=NOW)
    await store.close()
    other = PostgresStore(postgres_url.replace("jobrunner@", "application@"))
    try:
        await other.open()
        await other.workers.join(worker_row(), lambda: None)
        running = await claim_one(other)
        assert not (await settle(other, succeeded(running))).stale
    finally:
        await other.close()
        await outside.execute("DROP OWNED BY application; DROP ROLE application")


async def test_F29_search_path_of_the_database_means_nothing_to_the_store(
    postgres_url: str, outside: Connection
) -> None:
    name = await outside.fetchval("SELECT current_database()")
    await outside.execute(
        "CREATE SCHEMA foreign_one; CREATE TABLE foreign_one.jobs (nothing int);"
        f' ALTER DATABASE "{name}" SET search_path = foreign_one'
    )
    store = PostgresStore(postgres_url)
    try:
        await store.open()
        running = await claim_one(store)
        assert not (await settle(store, succeeded(running))).stale
    finally:
        await store.close()
        await outside.execute(
            f'ALTER DATABASE "{name}" RESET search_path; DROP SCHEMA foreign_one CASCADE'
        )


@pytest.mark.parametrize(
    ("code", "error"), [("53100", StoreFull), ("25006", StoreUnavailable), ("53200", StoreFull)]
)
async def test_F30_round_on_a_full_or_read_only_server_stores_nothing_and_goes_again(
    store: PostgresStore, outside: Connection, code: str, error: type[Exception]
) -> None:
    await outside.execute(
        f"""
        CREATE FUNCTION jobrunner.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON jobrunner.jobs EXECUTE FUNCTION jobrunner.refuse();
        """
    )
    job = new()
    with pytest.raises(error):
        await store.write(Round(NOW, enqueues=[job]))
    await outside.execute("DROP FUNCTION jobrunner.refuse CASCADE")
    (answer,) = await enqueue(store, job)
    assert answer.created


async def test_F32_round_behind_a_change_of_the_table_is_busy_and_goes_again(
    store: PostgresStore, outside: Connection
) -> None:
    await impatient(store)
    job = new()
    await outside.execute("BEGIN; LOCK TABLE jobrunner.jobs IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(StoreBusy):
        await store.write(Round(NOW, enqueues=[job]))
    await outside.execute("ALTER TABLE jobrunner.jobs ADD COLUMN new_one int; COMMIT")
    (answer,) = await enqueue(store, job)
    assert answer.created
    assert len(await claim(store)) == 1
    await outside.execute("ALTER TABLE jobrunner.jobs DROP COLUMN new_one")


async def test_F33_job_is_stored_when_the_queue_of_notices_is_full(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bell = store.workers._bell

    class Full:
        @staticmethod
        def is_closed() -> bool:
            return False

        @staticmethod
        async def execute(*_: object) -> None:
            raise asyncpg.ProgramLimitExceededError("too many notifications in the NOTIFY queue")

    (answer,) = await enqueue(store, new())
    with monkeypatch.context() as patch:
        patch.setattr(bell, "_connection", Full)
        bell.announce_work()
        await asyncio.wait(bell._sending)
    assert answer.created
    assert "new work was not announced" in caplog.text
    assert len(await claim(store)) == 1


async def test_F37_store_whose_listening_session_dies_looks_at_once_and_listens_again(
    store: PostgresStore, outside: Any, caplog: pytest.LogCaptureFixture
) -> None:
    heard = asyncio.Event()
    channel = store.workers._bell._schema + WORK
    store.workers._bell.on_work[WORKER] = heard.set
    listening = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    pid = await outside.fetchval(listening)
    await outside.execute("SELECT pg_terminate_backend($1)", pid)
    async with asyncio.timeout(PATIENCE_S):
        await heard.wait()  # something may have been announced meanwhile
        assert "another one is opened" in caplog.text
        while await outside.fetchval(listening) in (None, pid):
            await store.change_counter()
        heard.clear()
        while not heard.is_set():
            await outside.execute("SELECT pg_notify($1, 'another process')", channel)
            await store.change_counter()
