"""SQLite's result codes, as the driver's errors carry them."""

import sqlite3


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 if the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
