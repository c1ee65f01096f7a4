"""Opens a store, also one in use, on a connection that changes nothing.

The connection cannot write, and does not move the log when it closes.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jobrunner.core.errors import NotADatabase, StoreUnavailable
from jobrunner.store.sqlite.driver_errors import as_ours
from jobrunner.store.sqlite.host.location import check_place
from jobrunner.store.sqlite.maintenance import migrate

PATIENCE_S: Final = 1.0
"""Maximum time to wait for a lock."""


@contextlib.contextmanager
def open_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database read-only.

    Raises:
        StoreError: The database cannot be read.
    """
    try:
        # mode=ro and not query_only: a connection that can write would move the log if it were the last to close.
        conn = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?mode=ro",
            uri=True,
            isolation_level=None,
            timeout=PATIENCE_S,
        )
        with contextlib.closing(conn):
            for pragma in ("mmap_size = 0", "trusted_schema = OFF", "cell_size_check = ON"):
                conn.execute(f"PRAGMA {pragma}")
            conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield conn
    except sqlite3.Error as error:
        raise as_ours(error, path) from error


def require_store(path: Path) -> None:
    """Check that the store exists and needs no migration, without changing anything.

    Raises:
        StoreUnavailable: The file does not exist, or its tables must be migrated first.
        NotADatabase, SchemaTooNew, StoreUnsupported: The file cannot be used; see ``errors``.
    """
    check_place(path)
    if not path.exists():
        raise StoreUnavailable(
            f"there is no file {path}; check the name (the application makes it at its first start)"
        )
    with open_read_only(path) as conn:
        found = migrate.version(conn)
        if found == 0:
            raise NotADatabase(
                f"{path} holds no jobs: jobrunner has no tables in it; check the name (the application makes them at"
                " its first start)"
            )
        if migrate.check(conn) and found < len(migrate.migrations()):
            raise StoreUnavailable(
                f"the tables of {path} are version {found} and wait to be migrated by this jobrunner: take a backup"
                " with the old one, then start the application"
            )
