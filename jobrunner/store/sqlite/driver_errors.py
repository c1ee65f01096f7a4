"""Translates SQLite's errors into ``StoreError``."""

import sqlite3
from pathlib import Path
from typing import Final, NoReturn

from jobrunner.core.errors import (
    NotADatabase,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreReplaced,
    StoreUnavailable,
)

REFLECT: Final = 'metadata.reflect(engine, only=lambda name, _: not name.startswith("jobrunner_"))'
_OUR_TABLE: Final = "no such table: jobrunner_"


def raise_as_ours(error: sqlite3.Error, path: Path) -> NoReturn:
    """Raise a driver's error as a ``StoreError`` of the store at ``path``."""
    raise as_ours(error, path) from error


def as_ours(  # noqa: PLR0911 - a table
    error: sqlite3.Error, path: Path
) -> StoreError:
    """Return a driver's error as a ``StoreError`` of the store at ``path``."""
    match primary_code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(
                f"somebody holds the write lock of {path} for too long: another program, or a session that has written"
                " and is not committed"
            )
        case sqlite3.SQLITE_INTERRUPT:
            # Interrupted by ``Connection.close``.
            return StoreUnavailable(f"{path} is not open any more")
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"no room left for {path}; free some space, waiting jobs are safe")
        case sqlite3.SQLITE_READONLY:
            return StoreUnavailable(
                f"{path} is read-only for this process; check its owner and mode"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StoreUnavailable(
                f"{path} cannot be opened; check that its directory exists and that this process may write there"
            )
        case sqlite3.SQLITE_NOTADB:
            return NotADatabase(
                f"{path} is not an SQLite database (or it is encrypted); name another file, it was left as it is"
            )
        case sqlite3.SQLITE_CORRUPT:
            return StoreCorrupt(
                f"{path} is damaged ({error}); stop the service, keep the file and restore a backup"
            )
        case sqlite3.SQLITE_ERROR if _OUR_TABLE in str(error):
            return StoreReplaced(
                f"{path} has lost jobrunner's tables ({error}): something has dropped them, such as MetaData.reflect()"
                " and drop_all() of SQLAlchemy, and the jobs with them. Restore a backup, or drop what is left of"
                f" the tables named jobrunner_* and restart to begin anew; where they were dropped write {REFLECT}"
            )
        case _:
            return StoreUnavailable(f"{path}: {error}")


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 if the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
