"""The application's sessions on PostgreSQL, every kind on a real server.

Jobs and outcomes are written in its transaction, and the end of the transaction is noticed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session as AlchemySession

from jobrunner.core.errors import (
    InvalidOptions,
    InvalidSession,
    QueueFull,
    StoreBusy,
    StoreUnavailable,
)
from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import Enqueued, Filter
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.support.engine import soon
from tests.support.factories import (
    NOW,
    SECOND,
    WORKER,
    claim_one,
    enqueue,
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
    count_jobs,
    count_rows,
    make_table,
    with_driver,
)
from tests.support.sessions import Held

every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
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


async def begun(held: Held) -> None:
    """Begin a transaction where the driver would not: with asyncpg each statement commits by itself."""
    if held.begin is not None:
        await held.begin()


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


# -- begin, commit, rollback, has_changes --------------------------------------------------------------


@every_kind
async def test_begin_reaches_the_server_and_is_refused_inside_a_transaction_that_has_written(
    store: PostgresStore, postgres_url: str, kind: Kind
) -> None:
    async with kind.hold(postgres_url) as held:
        session = store.session(held.source)
        assert not await session.has_changes()
        await session.begin()
        open_ones = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
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


# -- cancellation and lost connections --------------------------------------------------------------


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


# -- refusals ----------------------------------------------------------------------------------------


async def refused(store: PostgresStore, source: object, match: str) -> None:
    with pytest.raises(InvalidSession, match=match):
        await store.session(source).insert([new()], now=NOW)


@every_kind
async def test_session_on_another_database_is_refused_and_its_transaction_goes_on(
    store: PostgresStore, bare_postgres_url: str, kind: Kind
) -> None:
    make_table(bare_postgres_url)
    async with kind.hold(bare_postgres_url) as held:
        await held.execute("INSERT INTO orders (item) VALUES ('tea')")
        await refused(store, held.source, "one transaction cannot span both")
        await held.commit()
    assert count_rows(bare_postgres_url) == 1


async def test_session_on_sqlite_is_refused(store: PostgresStore) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with AsyncSession(engine) as session:
        await refused(store, session, r"sqlite\+aiosqlite .*one transaction cannot span both")
    await engine.dispose()


async def test_session_in_autocommit_mode_is_refused(
    store: PostgresStore, postgres_url: str
) -> None:
    for driver in ("asyncpg", "psycopg"):
        async with async_session(driver)(postgres_url, isolation_level="AUTOCOMMIT") as held:
            await refused(store, held.source, "autocommit mode")
    connection = await asyncpg.connect(postgres_url)
    await refused(store, connection, r"async with connection.transaction\(\)")
    await connection.close()
    with psycopg.connect(postgres_url, autocommit=True) as blocking:
        await refused(store, blocking, "autocommit mode")
    assert count_jobs(postgres_url) == 0


async def test_closed_sessions_are_refused(store: PostgresStore, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.close()
    await refused(store, connection, "connection is closed")
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=1) as pool:
        async with pool.acquire() as lent:
            pass
        await refused(store, lent, "connection is closed")
    blocking = psycopg.connect(postgres_url)
    blocking.close()
    await refused(store, blocking, "connection is closed")
    async with async_session("asyncpg")(postgres_url) as held:
        async with held.source.bind.connect() as from_engine:
            pass
        await refused(store, from_engine, "gives no connection")


async def test_session_on_an_async_engine_is_refused_with_the_line(
    store: PostgresStore, postgres_url: str
) -> None:
    engine = create_async_engine(with_driver(postgres_url, "asyncpg"))
    with AlchemySession(engine.sync_engine) as session:
        await refused(store, session, "hand in the AsyncSession")
    await engine.dispose()


async def test_something_else_is_refused_by_kind(store: PostgresStore) -> None:
    with pytest.raises(InvalidSession, match="hand in an AsyncSession"):
        store.session("session")


async def test_read_only_transaction_is_refused(store: PostgresStore, postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    async with connection.transaction(readonly=True):
        await refused(store, connection, "read-only")
    await connection.close()


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
