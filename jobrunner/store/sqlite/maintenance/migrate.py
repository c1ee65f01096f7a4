"""Applies the numbered migrations and keeps the schema version.

The version is a row in our own table, since the file's pragmas belong to the application.  The row can be lost, for
example by a test fixture that empties all tables.  Then the version is detected from the tables themselves.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeGuard

from jobrunner.core.errors import SchemaTooNew, StoreBusy, StoreCorrupt
from jobrunner.core.logs import log_of
from jobrunner.store.sqlite.connection import Connection
from jobrunner.store.sqlite.writer import Writer

logger = log_of("jobrunner")

META = "CREATE TABLE IF NOT EXISTS jobrunner_meta (name TEXT PRIMARY KEY, value ANY) STRICT"
MANY_ROWS: Final = 100_000
"""With more rows than this a migration takes a noticeable time."""
PATIENCE_S: Final = 120.0
"""Time that a start waits for another process to migrate, which takes some seconds per million rows."""


@cache
def migrations() -> Sequence[str]:
    """Return the SQL of every migration; the first one makes version 1."""
    folder = files("jobrunner.store.sqlite") / "migrations"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return tuple(file.read_text(encoding="utf-8") for file in found)


def version(conn: sqlite3.Connection) -> int:
    """Return the version of the tables in the file, 0 if there are none.

    Raises:
        StoreCorrupt: The file has no version row, and its tables match no version that this build knows.
    """
    noted = noted_version(conn)
    if is_version(noted):
        return noted
    tables = _shape(conn)
    if not tables:
        return 0
    for number, known in enumerate(_known_shapes(), 1):
        if tables == known:
            return number
    raise StoreCorrupt(
        f"jobrunner's tables in the file are those of no version that this jobrunner knows, and {say_noted(noted)}:"
        " restore a backup, or drop every table named jobrunner_* to begin anew without the jobs in them"
    )


def noted_version(conn: sqlite3.Connection) -> object:
    """Return the value of the version row, valid or not; None if there is no row."""
    known = conn.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'jobrunner_meta'"
    )
    if known.fetchone() is None:
        return None
    row = conn.execute("SELECT value FROM jobrunner_meta WHERE name = 'schema_version'").fetchone()
    return None if row is None else row[0]


def is_version(noted: object) -> TypeGuard[int]:
    """Return whether the value of the version row is a valid version."""
    return isinstance(noted, int) and noted > 0


def say_noted(noted: object) -> str:
    """Return the text that describes a missing or invalid version row."""
    if noted is None:
        return "the row schema_version of jobrunner_meta, which names their version, is missing"
    return f"the row schema_version of jobrunner_meta, which names their version, says {noted!r}"


def _shape(conn: sqlite3.Connection) -> set[tuple[Any, ...]]:
    """Return the columns of our tables and the SQL text of our indexes.

    The text of the tables is not compared, since SQLite rewrites it when a table is altered.
    """
    found = conn.execute(
        "SELECT type, name, sql FROM sqlite_schema"
        " WHERE name LIKE 'jobrunner!_%' ESCAPE '!' AND name <> 'jobrunner_meta' AND sql IS NOT NULL"
    ).fetchall()
    shape: set[tuple[Any, ...]] = set()
    for kind, name, sql in found:
        if kind == "table":
            columns = conn.execute(
                'SELECT name, type, "notnull", pk FROM pragma_table_info(?)', (name,)
            )
            shape.update((name, *column) for column in columns)
        else:
            shape.add((name, " ".join(sql.split())))
    return shape


def _known_shapes() -> Iterator[set[tuple[Any, ...]]]:
    """Yield the shape of each version, the oldest first."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        for script in migrations():
            for statement in _statements(script):
                conn.execute(statement)
            yield _shape(conn)


def check(conn: sqlite3.Connection) -> bool:
    """Return whether the file lacks migrations of this build, or a valid version row.

    Raises:
        SchemaTooNew: The file has migrations that this build does not know.
        StoreCorrupt: See ``version``.
    """
    found, known = version(conn), len(migrations())
    if found > known:
        raise SchemaTooNew(
            f"the file's tables are version {found}, this jobrunner knows version {known} at most: "
            "upgrade jobrunner, or restore a backup from before the upgrade"
        )
    return found < known or not is_version(noted_version(conn))


def migrate_one(conn: sqlite3.Connection) -> bool:
    """Apply the next migration inside the open transaction; return False if up to date.

    If the version row is lost, only the row is written again.
    """
    conn.execute(META)
    if not check(conn):
        return False
    done, noted = version(conn), noted_version(conn)
    if done and not is_version(noted):
        logger.warning(
            "%s, and is written anew: by their columns they are version %d. Has something emptied all tables of the"
            " file? Leave those named jobrunner_* out",
            say_noted(noted),
            done,
        )
        note(conn, done)
        return True
    for statement in _statements(migrations()[done]):
        conn.execute(statement)
    note(conn, done + 1)
    return True


def note(conn: sqlite3.Connection, done: int) -> None:
    """Write the version row."""
    conn.execute(
        "INSERT INTO jobrunner_meta (name, value) VALUES ('schema_version', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (done,),
    )


async def writer_of(path: Path, folder: Path, durability: str) -> Writer:
    """Open the writer of a file, and bring its tables up to date.

    If another process is migrating the tables, wait for it.

    Args:
        path: the database file.
        folder: the folder of the locks.
        durability: see ``Writer.open``.

    Raises:
        SchemaTooNew, StoreCorrupt: See ``check``.
        StoreBusy: Another program holds the write lock for too long.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + PATIENCE_S
    warned = False
    while True:
        writer: Writer | None = None
        try:
            writer = await Writer.open(path, folder, durability)
            await _bring_up_to_date(writer, path)
        except BaseException as error:
            if writer is not None:
                await writer.close()
            waits = isinstance(error, StoreBusy) and loop.time() < end_s
            if not waits or not await _is_due(path):
                raise
            if not warned:
                warned = True
                logger.warning("%s: waiting for another process to migrate the tables", path)
        else:
            return writer


async def _is_due(path: Path) -> bool:
    """Return whether the file has tables that lack migrations; never waits for a lock."""
    connection = await Connection.open(path, read_only=True)
    try:
        return await connection.run(lambda conn: version(conn) > 0 and check(conn))
    finally:
        await connection.close()


async def _bring_up_to_date(writer: Writer, path: Path) -> None:
    """Apply the missing migrations, each in one transaction, and log each before it starts."""
    loop = asyncio.get_running_loop()
    while await writer.read(check):
        found, rows = await writer.read(_size)
        if rows == 0 or found == len(migrations()):
            # A new file, or one that only lacks the version row: both take no time.
            await writer.write(migrate_one)
            continue
        level = logging.WARNING if rows > MANY_ROWS else logging.INFO
        # Measured: a new index over two million rows takes from one to five seconds.
        logger.log(
            level,
            "%s: its tables go from version %d to %d, with %d rows at most; meanwhile nobody can write, which takes"
            " some seconds per million rows",
            path,
            found,
            found + 1,
            rows,
        )
        began_s = loop.time()
        await writer.write(migrate_one)
        logger.log(level, "%s: version %d after %.1f s", path, found + 1, loop.time() - began_s)


def _size(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return the version and an upper bound of the number of rows."""
    found = version(conn)
    if found == 0:
        return 0, 0
    # From the highest keys, since counting would read every row.
    highest = conn.execute(
        "SELECT coalesce(max(seq), 0) FROM jobrunner_jobs"
        " UNION ALL SELECT coalesce(max(letter), 0) FROM jobrunner_dead_letters"
    )
    return found, sum(number for (number,) in highest)


def _statements(script: str) -> list[str]:
    """Split a script into statements, since ``executescript`` would commit the transaction."""
    statements, lines = [], []
    for line in script.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if sqlite3.complete_statement(text):
            statements.append(text)
            lines = []
    return statements
