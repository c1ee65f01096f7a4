"""A database of any version becomes what a new one is, with all that it holds."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner.store.postgres import migrate
from jobrunner.store.postgres.connection import READER, close, connect
from jobrunner.store.postgres.store import PostgresStore
from tests.store import older_rows
from tests.support.postgres import Databases

FIXTURES = sorted(
    int(path.stem.rpartition("_")[2])
    for path in Path(__file__).parent.glob("postgres_version_*.sql")
)


async def written_by(version: int, url: str) -> str:
    """Make a database as this version of the schema left it, with what its ``postgres_version_N.sql`` holds."""
    script = Path(__file__).with_name(f"postgres_version_{version}.sql").read_text(encoding="utf-8")
    connection = await connect(url, READER)
    try:
        await connection.execute(script)
    finally:
        await close(connection)
    return url


@pytest.fixture(params=FIXTURES)
async def older_store(
    request: pytest.FixtureRequest, bare_postgres_url: str
) -> AsyncIterator[PostgresStore]:
    """A store on rows in every state, of every reason and every outcome of a tick."""
    store = PostgresStore(await written_by(request.param, bare_postgres_url))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def new_url(postgres: Databases) -> Iterator[str]:
    """Another database, in which no test has left a table."""
    with postgres.bare() as url:
        yield url


async def schema(url: str) -> set[tuple[Any, ...]]:
    """Return tables with their columns, indexes, checks and functions."""
    connection: Any = await connect(url, READER)
    try:
        return {
            tuple(row)
            for row in await connection.fetch(
                """
                SELECT 'column', table_name::text, column_name::text, concat(data_type, is_nullable, column_default)
                FROM information_schema.columns WHERE table_schema = 'jobrunner'
                UNION ALL
                SELECT 'attribute', udt_name::text, attribute_name::text, concat(data_type, ordinal_position)
                FROM information_schema.attributes WHERE udt_schema = 'jobrunner'
                UNION ALL
                SELECT 'index', tablename::text, indexname::text, indexdef
                FROM pg_indexes WHERE schemaname = 'jobrunner'
                UNION ALL
                SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
                FROM pg_constraint WHERE connamespace = 'jobrunner'::regnamespace
                UNION ALL
                SELECT 'function', '', proname::text, pg_get_functiondef(oid)
                FROM pg_proc WHERE pronamespace = 'jobrunner'::regnamespace
                UNION ALL
                SELECT 'options', '', oid::regclass::text, reloptions::text
                FROM pg_class WHERE relnamespace = 'jobrunner'::regnamespace AND relkind = 'r'
                """
            )
        }
    finally:
        await close(connection)


async def test_older_database_becomes_what_a_new_one_is(
    older_store: PostgresStore, bare_postgres_url: str, new_url: str
) -> None:
    new = PostgresStore(new_url)
    await new.open()
    await new.close()
    assert await schema(bare_postgres_url) == await schema(new_url)


def test_newest_version_but_one_has_its_fixture() -> None:
    assert FIXTURES[-1] == len(migrate.migrations()) - 1


async def test_older_database_keeps_rows_in_every_state(older_store: PostgresStore) -> None:
    await older_rows.keeps_rows_in_every_state(older_store)


async def test_older_database_goes_on(older_store: PostgresStore) -> None:
    await older_rows.goes_on(older_store)


async def test_older_database_keeps_its_lanes_batches_and_steps(
    older_store: PostgresStore,
) -> None:
    await older_rows.keeps_lanes_batches_and_steps(older_store)
