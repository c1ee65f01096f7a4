"""Implements the store in one SQLite file."""

from jobrunner.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
