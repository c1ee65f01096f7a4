"""The SQLite store."""

from jobrunner.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
