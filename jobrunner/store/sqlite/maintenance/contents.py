"""Makes blank files and reads whole ones, for the stores of tests."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from jobrunner.core.model import AttemptRow, JobRow
from jobrunner.core.schedule import ScheduleRow
from jobrunner.store.sqlite.maintenance.read_only import open_read_only
from jobrunner.store.sqlite.sql import queries, schedules
from jobrunner.store.sqlite.sql.statements import BEGIN_TO_READ

_LOG_MODE: Final = slice(18, 20)
"""The bytes of a file's header that name its journal mode.  Source: sqlite.org/fileformat2.html, section 1.3."""
_EVERY_SCHEDULE: Final = 1_000_000


class Contents(NamedTuple):
    """All jobs and schedules of a file, in one snapshot."""

    jobs: Sequence[tuple[JobRow, Sequence[AttemptRow]]]
    """Jobs and dead letters with their attempts, in the order in which they were stored."""
    schedules: Sequence[ScheduleRow]
    """Ordered by id."""


def read_all(path: Path) -> Contents:
    """Read all jobs, dead letters and schedules of a store.

    Raises:
        StoreError: The file cannot be read.
    """
    with open_read_only(path) as conn:
        conn.execute(BEGIN_TO_READ)
        rows = sorted(queries.everything(conn), key=lambda row: row.seq)
        return Contents(
            [(row, queries.attempts(conn, row.seq)) for row in rows],
            schedules.rows(conn, None, None, _EVERY_SCHEDULE),
        )


def image_of(path: Path) -> bytes:
    """Return the bytes of a store's file, for ``put_blank``.

    Connections of the application may keep commits in the log that are not in the file itself.
    """
    with closing(sqlite3.connect(path)) as conn:
        return conn.serialize()


def put_blank(path: Path, blank: bytes) -> None:
    """Make the file a blank store; nobody may have the store open.

    Connections of the application to an existing file stay valid: its pages are replaced in a transaction.

    Args:
        path: The database file; it may exist.
        blank: The bytes of a blank store's file.

    Raises:
        sqlite3.OperationalError: A transaction of the application is open on the file.
    """
    if not path.exists():
        path.write_bytes(blank)
        return
    image = bytearray(blank)
    image[_LOG_MODE] = b"\1\1"  # a database in memory has no write-ahead log
    with (
        closing(sqlite3.connect(":memory:")) as source,
        closing(sqlite3.connect(path)) as target,
    ):
        source.deserialize(bytes(image))
        source.backup(target)
