"""Opening a store on PostgreSQL: its tables, its errors, and starters that come at once."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from jobrunner import JobRunner
from jobrunner.core.errors import (
    AlreadyRunning,
    ConfigurationError,
    SchemaTooNew,
    StoreReplaced,
    StoreUnavailable,
)
from jobrunner.store.open import location_of, open_store
from jobrunner.store.postgres import migrate
from jobrunner.store.postgres.access import transact
from jobrunner.store.postgres.bell import Bell
from jobrunner.store.postgres.connection import READER, close, connect
from jobrunner.store.postgres.location import SCHEMA
from jobrunner.store.postgres.location import location_of as resolved
from jobrunner.store.postgres.store import PostgresStore, _prepare
from tests.support.factories import claim, enqueue, new, row_of


async def test_F26_eight_starters_at_once_make_the_tables_once(bare_postgres_url: str) -> None:
    connections = [await connect(bare_postgres_url, READER) for _ in range(8)]
    await asyncio.gather(*(transact(one, _prepare) for one in connections))
    tables = {
        row["tablename"]
        for row in await connections[0].fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'jobrunner'"
        )
    }
    for one in connections:
        await close(one)
    assert {"jobs", "attempts", "dead_letters", "lanes", "meta"} <= tables


async def test_F27_open_of_a_database_of_a_later_version_is_refused(bare_postgres_url: str) -> None:
    store = PostgresStore(bare_postgres_url)
    await store.open()
    await store.close()
    connection = await connect(bare_postgres_url, READER)
    await connection.execute(
        "UPDATE jobrunner.meta SET value = '999' WHERE name = 'schema_version'"
    )
    await close(connection)
    with pytest.raises(SchemaTooNew, match="999"):
        await store.open()


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [number for number, _ in migrate.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_open_twice_in_one_process_is_refused(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    with pytest.raises(AlreadyRunning):
        await PostgresStore(postgres_url).open()
    await store.close()
    await store.open()
    await store.close()


async def test_open_where_no_server_listens_is_refused() -> None:
    store = PostgresStore("postgresql://jobrunner:secret@127.0.0.1:1/jobs")
    with pytest.raises(StoreUnavailable) as refused:
        await store.open()
    assert "secret" not in str(refused.value)


async def test_enqueue_after_the_tables_were_dropped_says_so(bare_postgres_url: str) -> None:
    store = PostgresStore(bare_postgres_url)
    await store.open()
    connection: Any = await connect(bare_postgres_url, READER)
    await connection.execute("DROP SCHEMA jobrunner CASCADE")
    await close(connection)
    with pytest.raises(StoreReplaced, match="lost jobrunner's tables"):
        await enqueue(store, new())
    await store.close()


def test_name_of_a_store_has_neither_user_nor_password() -> None:
    url = "postgresql://ann:secret@db.example.org:5433/jobs?sslmode=require&password=other"
    assert location_of(url) == "postgresql://db.example.org:5433/jobs"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql:jobs", "lacks slashes"),
        ("postgresql://ann:se[cret@host/jobs", "cannot be read"),
        ("postgresql://ann:secret@host/jobs?schema=Jobs", "small letters"),
        ("postgresql://ann:secret@host/jobs?schema=pg_jobs", "pg_"),
        ("postgresql://ann:secret@host/jobs?schema", "cannot be read"),
    ],
)
def test_runner_on_a_url_that_cannot_be_used_is_refused_without_its_password(
    url: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        JobRunner(url)
    assert "secret" not in str(refused.value)
    assert "cret" not in str(refused.value)


def test_url_of_sqlalchemy_is_one_for_the_driver() -> None:
    found = resolved("postgresql+psycopg://ann:s%40cret@a:1,b:2/jobs?sslmode=require&schema=shop")
    assert found.dsn == "postgresql://ann:s%40cret@a:1,b:2/jobs?sslmode=require"
    assert found.schema == "shop"
    assert found.name == "postgresql://a:1,b:2/jobs?schema=shop"
    assert resolved("postgresql:///jobs").dsn == "postgresql:///jobs"


def test_durability_of_sqlite_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="synchronous_commit"):
        JobRunner("postgresql://host/jobs", durability="normal")


async def test_runner_on_postgresql_without_the_driver_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("jobrunner.store.postgres.")]:
        if name != "jobrunner.store.postgres.location":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fastapi-jobrunner\[postgres\]'"):
        await open_store("postgresql://host/jobs")


async def test_open_of_what_must_exist_makes_no_tables(bare_postgres_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="holds no jobs"):
        await open_store(bare_postgres_url, must_exist=True)
    connection = await connect(bare_postgres_url, READER)
    assert await connection.fetchval("SELECT to_regnamespace('jobrunner')") is None
    await close(connection)


async def test_two_stores_in_schemas_of_one_database_know_nothing_of_each_other(
    bare_postgres_url: str,
) -> None:
    one = await open_store(f"{bare_postgres_url}?schema=one")
    other = await open_store(f"{bare_postgres_url}?schema=other")
    try:
        job = new()
        await enqueue(one, job)
        assert (await row_of(one, job.id)).state == "queued"
        assert await other.jobs.get(job.id) is None
        assert len(await claim(one)) == 1
        assert await claim(other) == []
    finally:
        await one.close()
        await other.close()
    connection = await connect(bare_postgres_url, READER)
    schemas = await connection.fetch("SELECT DISTINCT schemaname FROM pg_tables")
    assert {"one", "other"} <= {row["schemaname"] for row in schemas}
    assert SCHEMA not in {row["schemaname"] for row in schemas}
    await close(connection)


async def test_notice_of_work_reaches_the_stores_of_its_schema_alone(
    bare_postgres_url: str,
) -> None:
    heard: list[str] = []
    came = asyncio.Event()

    async def bell(schema: str, on_work: Callable[[], None]) -> Bell:
        made = Bell(f"{bare_postgres_url}?schema={schema}")
        made.on_work[1] = on_work
        await made.listen()
        return made

    same = await bell("one", came.set)
    other = await bell("other", lambda: heard.append("other"))
    sender = Bell(f"{bare_postgres_url}?schema=one")
    sender.announce_work()
    async with asyncio.timeout(10):
        await came.wait()
    for one in (same, other, sender):
        await one.close()
    assert heard == []


async def test_F30_database_that_takes_no_writes_is_refused(bare_postgres_url: str) -> None:
    connection: Any = await connect(bare_postgres_url, READER)
    database = connection._params.database
    await connection.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await close(connection)
    with pytest.raises(StoreUnavailable, match="standby or read-only"):
        await open_store(bare_postgres_url)
