"""Creates the tables of a store, and updates those of an older version.

Starters take turns behind an advisory lock: without it seven of eight that start at once fail.
"""

from importlib import resources
from typing import Final

from jobrunner.core.errors import SchemaTooNew, StoreUnavailable, StoreUnsupported
from jobrunner.store.postgres.connection import Statements
from jobrunner.store.postgres.driver_errors import UNKNOWN_STATEMENT
from jobrunner.store.postgres.locks import MIGRATION, lock

OLDEST_SERVER: Final = 150_000
"""PostgreSQL 15, as ``server_version_num`` has it."""

_MIGRATIONS: Final = resources.files("jobrunner.store.postgres") / "migrations"


def migrations() -> list[tuple[int, str]]:
    """Return the number and the statements of each migration, in order."""
    files = sorted(
        (file.name, file.read_text())
        for file in _MIGRATIONS.iterdir()
        if file.name.endswith(".sql")
    )
    return [(int(name.partition("_")[0]), text) for name, text in files]


async def require_server(connection: Statements) -> None:
    """Raise if the store cannot work on this server.

    Raises:
        StoreUnsupported: The server is older than PostgreSQL 15, or its encoding is not UTF-8.
        StoreUnavailable: The server is a standby, where nothing can be written.
    """
    version, text, encoding, standby = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_setting('server_encoding'), pg_is_in_recovery()"
    )
    if version < OLDEST_SERVER:
        raise StoreUnsupported(f"the server is PostgreSQL {text}; jobrunner needs 15 or newer")
    if encoding != "UTF8":
        raise StoreUnsupported(
            f"the database has the encoding {encoding}; create one with ENCODING 'UTF8'"
        )
    if standby:
        raise StoreUnavailable(
            "the server is a standby, where nothing can be written; name its primary in the URL"
        )


async def require_session(connection: Statements) -> None:
    """Raise if a pooler changes the session between transactions.

    That frees locks and forgets settings.

    Raises:
        StoreUnsupported: Three transactions had more than one session.
    """
    try:
        pids = {await connection.fetchval("SELECT pg_backend_pid()") for _ in range(3)}
        is_own = len(pids) == 1
    except UNKNOWN_STATEMENT:
        # The other session has not prepared it.
        is_own = False
    if not is_own:
        raise StoreUnsupported(
            "a pooler in transaction mode lies between this process and the server, and a worker proves by its session"
            " that it lives: name the server itself in the URL, or a pooler in session mode"
        )


async def migrate(connection: Statements) -> None:
    """Bring the tables up to date, in the open transaction.

    Raises:
        SchemaTooNew: A later version of jobrunner has written them.
    """
    known = migrations()
    if await _version(connection) == known[-1][0]:
        return
    await lock(connection, MIGRATION)
    await connection.execute("CREATE SCHEMA IF NOT EXISTS jobrunner")
    version = await _version(connection)
    _refuse_newer(version, known[-1][0])
    for number, text in known:
        if number > version:
            await connection.execute(text)
            await connection.execute(
                "INSERT INTO jobrunner.meta VALUES ('schema_version', $1)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                str(number),
            )


async def require_tables(connection: Statements, name: str) -> None:
    """Check that the tables exist and need no migration.

    Raises:
        StoreUnavailable: There are no tables, or they must be migrated first.
        SchemaTooNew: See ``migrate``.
    """
    version, newest = await _version(connection), migrations()[-1][0]
    if version == 0:
        raise StoreUnavailable(
            f"{name} holds no jobs: jobrunner has no tables in it; check the name (the application makes them at its"
            " first start)"
        )
    _refuse_newer(version, newest)
    if version < newest:
        raise StoreUnavailable(
            f"the tables of {name} are version {version} and wait to be migrated by this jobrunner: start the"
            " application"
        )


def _refuse_newer(version: int, newest: int) -> None:
    if version > newest:
        raise SchemaTooNew(
            f"the tables have version {version} and this jobrunner knows {newest}: install the later version"
        )


async def _version(connection: Statements) -> int:
    """Return the number of the last migration that was applied; 0 if there are no tables."""
    if await connection.fetchval("SELECT to_regclass('jobrunner.meta')") is None:
        return 0
    found = await connection.fetchval(
        "SELECT value FROM jobrunner.meta WHERE name = 'schema_version'"
    )
    return 0 if found is None else int(found)
