"""The numbered migrations and the schema version, kept in a table of ours: the file's pragmas are the application's."""

import asyncio
import logging
import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Final

from jobrunner.errors import SchemaTooNew
from jobrunner.store.sqlite.writer import Writer

logger = logging.getLogger("jobrunner")

META = "CREATE TABLE IF NOT EXISTS jobrunner_meta (name TEXT PRIMARY KEY, value ANY) STRICT"
MANY_ROWS: Final = 100_000
"""From here on a migration takes long enough to be noticed."""


def migrations() -> list[str]:
    """Return the SQL of every migration; the first one makes version 1."""
    folder = files("jobrunner.store.sqlite") / "migrations"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [file.read_text(encoding="utf-8") for file in found]


def version(conn: sqlite3.Connection) -> int:
    """Return the version of the tables in the file, 0 if there are none."""
    known = conn.execute(
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'jobrunner_meta'"
    )
    if known.fetchone() is None:
        return 0
    row = conn.execute("SELECT value FROM jobrunner_meta WHERE name = 'schema_version'").fetchone()
    return 0 if row is None else int(row[0])


def check(conn: sqlite3.Connection) -> bool:
    """Return whether the file lacks migrations that this build knows.

    Raises:
        SchemaTooNew: it has more than this build knows.
    """
    found, known = version(conn), len(migrations())
    if found > known:
        raise SchemaTooNew(
            f"the file's tables are version {found}, this jobrunner knows version {known} at most: "
            "upgrade jobrunner, or restore a backup from before the upgrade"
        )
    return found < known


def migrate_one(conn: sqlite3.Connection) -> bool:
    """Apply the next migration inside the open transaction; return whether there was one."""
    conn.execute(META)
    if not check(conn):
        return False
    done = version(conn)
    for statement in _statements(migrations()[done]):
        conn.execute(statement)
    conn.execute(
        "INSERT INTO jobrunner_meta (name, value) VALUES ('schema_version', ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (done + 1,),
    )
    return True


async def bring_up_to_date(writer: Writer, path: Path) -> None:
    """Apply the migrations that the file lacks, each in one transaction, and say so before.

    Raises:
        SchemaTooNew: see ``check``.
    """
    loop = asyncio.get_running_loop()
    while await writer.read(check):
        found, rows = await writer.read(_size)
        level = logging.WARNING if rows > MANY_ROWS else logging.INFO
        # A new index over two million rows was seen to take from one to five seconds.
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
    """Return the version, and how many rows there are at most."""
    found = version(conn)
    if found == 0:
        return 0, 0
    # Of the numbers, since counting would read every row.
    highest = conn.execute(
        "SELECT coalesce(max(seq), 0) FROM jobrunner_jobs"
        " UNION ALL SELECT coalesce(max(letter), 0) FROM jobrunner_dead_letters"
    )
    return found, sum(number for (number,) in highest)


def try_to_write(conn: sqlite3.Connection) -> None:
    """Fail now if the file is read-only: SQLite opens it all the same, and says so at the first change of a row."""
    conn.execute("DELETE FROM jobrunner_meta WHERE name = ''")


def _statements(script: str) -> list[str]:
    """Split a script, since ``executescript`` would commit the transaction that it should be part of."""
    statements, lines = [], []
    for line in script.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if sqlite3.complete_statement(text):
            statements.append(text)
            lines = []
    return statements
