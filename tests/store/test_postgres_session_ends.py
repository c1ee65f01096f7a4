"""Transactions of sessions on PostgreSQL begin, settle attempts, and end or are lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session as AlchemySession

from jobrunner.core.errors import InvalidSession, StoreUnavailable
from jobrunner.core.model import Filter
from jobrunner.store.postgres.store import PostgresStore
from tests.support.engine import soon
from tests.support.factories import (
    NOW,
    SECOND,
    WORKER,
    claim_one,
    new,
    retry,
    succeeded,
    worker_row,
)
from tests.support.postgres_sessions import (
    KINDS,
    Ears,
    Kind,
    ask,
    async_session,
    begun,
    count_jobs,
    count_rows,
    every_kind,
    make_table,
    with_driver,
)
from tests.support.sessions import Held

of_asyncpg = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name.startswith("asyncpg")], ids=["asyncpg", "pool"]
)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    make_table(postgres_url)
    yield store
    await store.close()


# -- begin, commit, rollback, has_changes --------------------------------------------------------------


@every_kind
async def test_begin_reaches_the_server_and_is_refused_inside_a_transaction_that_has_written(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        assert not await session.has_changes()
        await session.begin()
        open_ones = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE state = 'idle in transaction' AND datname = current_database()"
        )
        assert ask(postgres_url, open_ones) == 1
        assert not await session.has_changes()
        await session.begin()
        await _run(held, "INSERT INTO orders (item) VALUES ('tea')")
        assert await session.has_changes()
        with pytest.raises(InvalidSession, match="in a transaction already"):
            await session.begin()
        await session.commit()
        assert count_rows(postgres_url) == 1
        assert ask(postgres_url, open_ones) == 0
        assert not await session.has_changes()
        await session.begin()
        await _run(held, "INSERT INTO orders (item) VALUES ('milk')")
        await session.rollback()
        assert count_rows(postgres_url) == 1


async def _run(held: Held, sql: str) -> None:
    """Run a statement without a BEGIN of the application."""
    if held.begin is None:
        await held.execute(sql)
    else:
        await held.source.execute(sql)


@every_kind
async def test_commit_that_fails_says_so_and_leaves_no_job(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        ears = Ears(postgres_url)
        await held.execute(
            "CREATE TEMPORARY TABLE parts (item text UNIQUE DEFERRABLE INITIALLY DEFERRED)"
        )
        await held.commit()
        await begun(held)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await _run(held, "INSERT INTO parts VALUES ('tea'), ('tea')")
        with pytest.raises((IntegrityError, asyncpg.UniqueViolationError, psycopg.IntegrityError)):
            await session.commit()
        await held.rollback()
        await nothing_is_watched(store)
    assert count_jobs(postgres_url) == 0
    assert ears.seen.empty()
    assert ears.lost_count == 0


# -- settle ------------------------------------------------------------------------------------------


@every_kind
async def test_settle_rides_in_the_sessions_transaction(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        await session.begin()
        assert await session.settle(succeeded(job), now=NOW + SECOND)
        await session.rollback()
        assert await state_of(store, job.id) == "running"
        await session.begin()
        assert await session.settle(succeeded(job), now=NOW + SECOND)
        await session.commit()
        assert await state_of(store, job.id) == "succeeded"
        (attempt,) = await store.jobs.attempts(job.seq)
        assert attempt.outcome == "succeeded"
        assert not await store.session(held.source).settle(succeeded(job), now=NOW + SECOND)
        await session.rollback()


@every_kind
async def test_settle_of_an_attempt_that_is_no_longer_the_workers_is_refused(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    await store.workers.leave(WORKER, now=NOW)
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        await session.begin()
        assert not await session.settle(succeeded(job), now=NOW + SECOND)
        await session.commit()
    assert await state_of(store, job.id) == "queued"


@every_kind
async def test_settle_stores_the_jobs_of_the_success_or_nothing(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        await session.begin()
        bad = succeeded(job)._replace(enqueues=[new(id=job.id)])
        with pytest.raises(StoreUnavailable, match="refuses the row"):
            await session.settle(bad, now=NOW)
        await session.rollback()
        await session.begin()
        good = succeeded(job)._replace(enqueues=[new(task="after", key="k", lane="after[1]")])
        assert await session.settle(good, now=NOW)
        await session.commit()
    assert await state_of(store, job.id) == "succeeded"
    assert count_jobs(postgres_url) == 2


@every_kind
async def test_has_committed_knows_of_a_commit_behind_the_settling(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        await session.begin()
        await session.settle(succeeded(job), now=NOW)
        assert not await session.has_committed()
        await (held.source.execute("COMMIT") if held.begin else held.commit())
        assert await session.has_committed()
        await held.rollback()


async def state_of(store: PostgresStore, id: str) -> str:
    row = await store.jobs.get(id)
    assert row is not None
    return row.state


async def test_retry_is_settled_with_its_time(store: PostgresStore, postgres_url: str) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    with psycopg.connect(postgres_url) as connection:
        session = store.session(connection)
        assert await session.settle(retry(job, NOW + 5 * SECOND), now=NOW + SECOND)
    row = await store.jobs.get(job.id)
    assert row is not None
    assert (row.state, row.run_at) == ("scheduled", NOW + 5 * SECOND)


# -- the end of the transaction ----------------------------------------------------------------------


@every_kind
async def test_watch_tells_once_others_see_the_job(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    ears = Ears(postgres_url)
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        for number in range(1, 4):
            await begun(held)
            await session.insert([new()], now=NOW)
            session.watch(ears.tell, ears.lost)
            assert ears.seen.empty()
            await held.commit()
            assert await ears.told() == number
        await begun(held)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await held.commit()
    assert await ears.told() == 4
    assert ears.seen.empty()
    assert ears.lost_count == 0


@every_kind
async def test_watch_tells_nothing_after_a_rollback(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    ears = Ears(postgres_url)
    async with kind.hold(postgres_url) as held:
        await begun(held)
        session = store.session(held.source)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await held.rollback()
        await nothing_is_watched(store)
    assert ears.seen.empty()
    assert ears.lost_count == 0


@every_kind
async def test_watch_finds_jobs_lost_where_the_session_only_closes(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    ears = Ears(postgres_url)
    async with kind.hold(postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await held.commit()
        await begun(held)
        session = store.session(held.source)
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
    await nothing_is_watched(store)
    assert count_jobs(postgres_url) == 0
    assert ears.seen.empty()
    assert ears.lost_count == 1


async def nothing_is_watched(store: PostgresStore) -> None:
    """Wait until each transaction that was watched has ended."""
    await asyncio.sleep(0)  # noqa: TID251 - what was handed to the loop begins
    assert store._sessions is not None
    # A list: by the time that the wait begins they may have ended, and left the set.
    if tasks := list(store._sessions.watch._tasks):
        await soon(asyncio.wait(tasks))


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_rollback_to_a_savepoint_takes_the_job_along(
    store: PostgresStore, postgres_url: str, driver: str
) -> None:
    ears = Ears(postgres_url)
    async with async_session(driver)(postgres_url) as held:
        session = store.session(held.source)
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        nested = await held.source.begin_nested()
        await session.insert([new()], now=NOW)
        session.watch(ears.tell, ears.lost)
        await nested.rollback()
        async with held.source.begin_nested():
            await session.insert([new(task="kept")], now=NOW)
            session.watch(ears.tell, ears.lost)
        assert ears.seen.empty()
        await held.commit()
        assert await ears.told() == 1
    assert ears.lost_count == 0
    (row,) = (await store.jobs.list(Filter(), before=None, limit=10)).rows
    assert row.task == "kept"


async def test_session_inside_somebody_elses_transaction_tells_after_that_ones_commit(
    store: PostgresStore, postgres_url: str
) -> None:
    ears = Ears(postgres_url)
    engine = create_engine(with_driver(postgres_url, "psycopg"))
    with engine.connect() as connection:
        outer = connection.begin()
        connection.execute(text("INSERT INTO orders (item) VALUES ('tea')"))
        with AlchemySession(connection) as inner:
            session = store.session(inner)
            await session.insert([new()], now=NOW)
            session.watch(ears.tell, ears.lost)
            inner.commit()
        assert ears.seen.empty()
        outer.commit()
        assert await ears.told() == 1
    engine.dispose()


@of_asyncpg
async def test_block_of_the_application_ends_a_transaction_that_was_committed_with_the_job(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    async with kind.hold(postgres_url) as held:
        async with held.source.transaction():
            await held.source.execute("INSERT INTO orders (item) VALUES ('tea')")
            session = store.session(held.source)
            assert await session.settle(succeeded(job), now=NOW)
            await session.commit()
            assert count_rows(postgres_url) == 1
        async with held.source.transaction():
            await held.source.execute("INSERT INTO orders (item) VALUES ('milk')")
    assert count_rows(postgres_url) == 2


async def test_psycopg_block_of_the_application_ends_a_transaction_that_was_committed_with_the_job(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    job = await claim_one(store, new())
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        async with connection.transaction():
            await connection.execute("INSERT INTO orders (item) VALUES ('tea')")
            session = store.session(connection)
            assert await session.settle(succeeded(job), now=NOW)
            await session.commit()
            assert count_rows(postgres_url) == 1
        await connection.execute("INSERT INTO orders (item) VALUES ('milk')")
    assert count_rows(postgres_url) == 2


# -- lost connections -------------------------------------------------------------------------------


@every_kind
async def test_commit_whose_answer_is_lost_counts_if_it_has_happened(
    store: PostgresStore, postgres_url: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.workers.join(worker_row(), lambda: None)
    for happened in (True, False):
        job = await claim_one(store, new())
        # SQLAlchemy says at the end that the connection is gone.
        with suppress(SQLAlchemyError):
            async with kind.hold(postgres_url) as held:
                session: Any = store.session(held.source)
                await session.begin()
                assert await session.settle(succeeded(job), now=NOW)
                inside = session.end

                async def lose(verb: Any, happened: bool = happened, inside: Any = inside) -> None:
                    if happened:
                        await inside(verb)
                    raise ConnectionResetError("the connection was lost")

                monkeypatch.setattr(session, "end", lose)
                commit = session.commit()
                # A blocking session is committed on a thread of the application.
                ending = asyncio.to_thread(asyncio.run, commit) if kind.is_blocking else commit
                if happened:
                    await soon(ending)
                else:
                    await asyncio.to_thread(end_all_sessions, postgres_url)
                    with pytest.raises(ConnectionResetError):
                        await soon(ending)
                    await session.rollback()
        assert await state_of(store, job.id) == ("succeeded" if happened else "running")


def end_all_sessions(url: str) -> None:
    """Let the server end all sessions that are in a transaction."""
    ask(
        url,
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'",
    )
