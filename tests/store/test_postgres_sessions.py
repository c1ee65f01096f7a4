"""Jobs are enqueued in the application's transaction on PostgreSQL, by every kind of session."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from jobrunner.core.errors import (
    InvalidOptions,
    InvalidSession,
    QueueFull,
    StoreBusy,
    StoreUnavailable,
)
from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import Enqueued, Filter
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.support.engine import soon
from tests.support.factories import NOW, SECOND, enqueue, new
from tests.support.postgres_sessions import (
    KINDS,
    Kind,
    ask,
    async_session,
    begun,
    count_jobs,
    count_rows,
    every_kind,
    make_table,
)
from tests.support.workflows import request


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    make_table(postgres_url)
    yield store
    await store.close()


# -- enqueue ----------------------------------------------------------------------------------------


@every_kind
async def test_enqueue_is_committed_with_the_sessions_rows(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        assert session.source is held.source
        assert session.blocking is kind.is_blocking
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        (stored,) = await session.insert([new()], now=NOW)
        assert stored.created
        assert (count_jobs(postgres_url), count_rows(postgres_url)) == (0, 0)
        await held.commit()
        assert (count_jobs(postgres_url), count_rows(postgres_url)) == (1, 1)


@every_kind
async def test_F20_enqueue_as_the_first_statement_is_in_the_transaction_of_the_rows_that_follow(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        await begun(held)
        await store.session(held.source).insert([new(), new()], now=NOW)
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        assert count_jobs(postgres_url) == 0
        await held.rollback()
        assert (count_jobs(postgres_url), count_rows(postgres_url)) == (0, 0)
        await begun(held)
        await store.session(held.source).insert([new(), new()], now=NOW)
        await held.commit()
        assert count_jobs(postgres_url) == 2


@every_kind
async def test_enqueue_with_every_option_is_stored_as_by_a_round(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    given = new(
        queue="mail",
        args='{"name": "Zoë: 100% $1 :p1"}',
        run_at=NOW + SECOND,
        priority=-3,
        key="k:1",
        expires_at=NOW + 5 * SECOND,
        max_attempts=3,
        timeout=7,
        tag="%s",
        trace="00-1",
        lane="sync[7]",
        ordered=True,
    )
    async with kind.hold(postgres_url) as held:
        await begun(held)
        await store.session(held.source).insert([given], now=NOW)
        await held.commit()
    row = await store.jobs.get(given.id)
    assert row is not None
    for name in (
        "queue",
        "args",
        "run_at",
        "priority",
        "key",
        "expires_at",
        "tag",
        "trace",
        "lane",
    ):
        assert getattr(row, name) == getattr(given, name)
    assert (row.state, row.max_attempts, row.timeout) == ("scheduled", 3, 7)


@every_kind
@pytest.mark.parametrize(
    "bad",
    [{"key": "a\0b"}, {"tag": "a\0b"}, {"key": "\ud800"}, {"key": "é" * 1_400}],
    ids=["F23-key", "F23-tag", "F24", "F25"],
)
async def test_F23_F24_F25_text_that_no_row_can_hold_is_refused_before_it_aborts_the_transaction(
    store: PostgresStore, postgres_url: str, kind: Kind, bad: dict[str, Any]
) -> None:
    async with kind.hold(postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        with pytest.raises(InvalidOptions, match=next(iter(bad))):
            await store.session(held.source).insert([new(), new(**bad)], now=NOW)
        await held.commit()
    assert (count_jobs(postgres_url), count_rows(postgres_url)) == (0, 1)


@every_kind
async def test_enqueue_of_many_with_one_that_the_server_refuses_leaves_none_and_the_rows_before(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        one = new()
        with pytest.raises(StoreUnavailable, match="refuses the row"):
            await store.session(held.source).insert([one, new(id=one.id)], now=NOW)
        await held.execute("INSERT INTO orders (item) VALUES ('milk')")
        await held.commit()
    assert (count_jobs(postgres_url), count_rows(postgres_url)) == (0, 2)


@every_kind
async def test_enqueue_with_a_taken_key_returns_the_unfinished_job(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    (first,) = await enqueue(store, new(key="k"))
    async with kind.hold(postgres_url) as held:
        await begun(held)
        session = store.session(held.source)
        (again,) = await session.insert([new(key="k")], now=NOW)
        assert (again.id, again.created) == (first.id, False)
        a, b = await session.insert([new(key="other"), new(key="other")], now=NOW)
        assert (b.id, b.created) == (a.id, False)
        await held.commit()
    assert count_jobs(postgres_url) == 2


@every_kind
async def test_enqueue_in_many_transactions_of_one_session(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        for number in range(1, 8):  # psycopg prepares a statement at its sixth run
            await begun(held)
            await store.session(held.source).insert([new(), new(key=f"k{number}")], now=NOW)
            await held.commit()
            assert count_jobs(postgres_url) == 2 * number


@every_kind
async def test_enqueue_into_a_full_queue_is_refused_and_the_transaction_goes_on(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    await store.limits.declare({LimitName("queue", "default"): Limit(max_waiting=1)}, revision=1)
    async with kind.hold(postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        session = store.session(held.source)
        await session.insert([new()], now=NOW)
        with pytest.raises(QueueFull):
            await session.insert([new()], now=NOW)
        await held.commit()
    assert (count_jobs(postgres_url), count_rows(postgres_url)) == (1, 1)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if not kind.is_blocking],
    ids=[kind.name for kind in KINDS if not kind.is_blocking],
)
async def test_C4_enqueue_that_is_cancelled_anywhere_is_in_the_transaction_whole_or_not_at_all(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    for turns in range(30):
        async with kind.hold(postgres_url) as held:
            await held.execute("UPDATE orders SET item = 'tea'")
            jobs = [new(task=f"{turns}"), new(task=f"{turns}", key=f"{turns}")]
            storing = asyncio.ensure_future(store.session(held.source).insert(jobs, now=NOW))
            for _ in range(turns):
                await asyncio.sleep(0)  # noqa: TID251 - turns of the loop
            storing.cancel()
            await asyncio.wait([storing])
            await held.commit()
        page = await store.jobs.list(Filter(task=f"{turns}"), before=None, limit=10)
        assert len(page.rows) in (0, 2)


async def test_commit_of_a_session_is_as_durable_as_those_of_the_store(
    store: PostgresStore, postgres_url: str
) -> None:
    assert store._sessions is not None
    store._sessions = store._sessions._replace(durable=True)  # the server of the tests is not
    connection = await asyncpg.connect(postgres_url, server_settings={"synchronous_commit": "off"})
    async with connection.transaction():
        await store.session(connection).insert([new()], now=NOW)
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
    assert await connection.fetchval("SHOW synchronous_commit") == "off"
    await connection.close()


@every_kind
async def test_job_is_stored_in_the_schema_of_the_store(bare_postgres_url: str, kind: Kind) -> None:
    store = PostgresStore(f"{bare_postgres_url}?schema=queue")
    await store.open()
    make_table(bare_postgres_url)
    async with kind.hold(bare_postgres_url) as held:
        await begun(held)
        await store.session(held.source).insert([new(key="k")], now=NOW)
        await held.commit()
    await store.close()
    assert ask(bare_postgres_url, "SELECT count(*) FROM queue.jobs") == 1


# -- what others hold ----------------------------------------------------------------------------------


@every_kind
async def test_F16_key_held_by_an_idle_transaction_is_busy_and_the_transaction_goes_on(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    other = await asyncpg.connect(postgres_url)
    holding = other.transaction()
    await holding.start()
    await store.session(other).insert([new(key="k")], now=NOW)
    async with kind.hold(postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await held.execute("SET LOCAL lock_timeout = '7s'")
        session = store.session(held.source)
        with pytest.raises(StoreBusy, match="holds the key"):
            await session.insert([new(), new(key="k")], now=NOW)
        (free,) = await session.insert([new(key="other")], now=NOW)
        assert free.created
        await held.execute("INSERT INTO orders (item) VALUES (current_setting('lock_timeout'))")
        await held.commit()
    assert ask(postgres_url, "SELECT item FROM public.orders ORDER BY id DESC LIMIT 1") == "7s"
    assert count_jobs(postgres_url) == 1
    await holding.rollback()
    await other.close()


async def test_F16_key_held_by_an_idle_transaction_is_busy_in_a_round_and_the_others_go_on(
    store: PostgresStore, postgres_url: str
) -> None:
    async with async_session("asyncpg")(postgres_url) as held:
        await store.session(held.source).insert([new(key="k")], now=NOW)
        jobs = [new(), new(key="k"), new(key="other")]
        written = await store.write(Round(now=NOW, enqueues=jobs))
        assert [type(one) for one in written.enqueued] == [Enqueued, StoreBusy, Enqueued]
        assert count_jobs(postgres_url) == 2
        await held.commit()
    (again,) = (await store.write(Round(now=NOW, enqueues=[new(key="k")]))).enqueued
    assert isinstance(again, Enqueued)
    assert not again.created


async def test_F16_batch_whose_key_is_held_by_an_idle_transaction_is_busy_and_the_round_goes_on(
    store: PostgresStore, postgres_url: str
) -> None:
    async with async_session("asyncpg")(postgres_url) as held:
        await store.session(held.source).insert([new(key="k")], now=NOW)
        batches = [request(new(), new(key="k")), request(new(key="other")), request(new())]
        written = await store.write(Round(now=NOW, enqueues=[new()], batches=batches))
        assert [type(one) for one in written.batches] == [StoreBusy, BatchEnqueued, BatchEnqueued]
        assert all(isinstance(one, Enqueued) for one in written.enqueued)
        await held.commit()
    assert [type(one) for one in (await store.write(Round(NOW, batches=batches[:1]))).batches] == [
        BatchEnqueued
    ]


async def test_F17_deadlock_of_keys_breaks_one_of_the_two_transactions(
    store: PostgresStore, postgres_url: str
) -> None:
    async with (
        async_session("asyncpg")(postgres_url) as a,
        async_session("psycopg")(postgres_url) as b,
    ):
        await store.session(a.source).insert([new(key="a")], now=NOW)
        await store.session(b.source).insert([new(key="b")], now=NOW)
        answers = await soon(
            asyncio.gather(
                store.session(a.source).insert([new(key="b")], now=NOW),
                store.session(b.source).insert([new(key="a")], now=NOW),
                return_exceptions=True,
            )
        )
        assert any(isinstance(one, StoreBusy) for one in answers)
        await a.commit()
        await b.commit()
    assert sorted(
        row.key or "" for row in (await store.jobs.list(Filter(), before=None, limit=9)).rows
    ) == ["a", "b"]


@every_kind
async def test_F19_aborted_transaction_is_refused_and_says_so(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        with pytest.raises(Exception, match="no_such_table"):
            await held.execute("SELECT * FROM no_such_table")
        session = store.session(held.source)
        for call in (session.insert([new()], now=NOW), session.has_changes()):
            with pytest.raises(InvalidSession, match="aborted by an earlier error"):
                await call
        await held.rollback()
        await begun(held)
        await session.insert([new()], now=NOW)
        await held.commit()
    assert (count_jobs(postgres_url), count_rows(postgres_url)) == (1, 0)
