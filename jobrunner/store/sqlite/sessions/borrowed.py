"""Writes jobs and outcomes in a transaction on the application's own connection.

The connection is not ours: the functions leave its row factory, its transaction mode and the other content of the
transaction as they were.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence

from jobrunner.core.errors import InvalidSession, StoreUnavailable
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, Memo, Outcome
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.store.effects import Effects
from jobrunner.store.sqlite.host.identity import FileIdentity
from jobrunner.store.sqlite.sql import batches, steps, waiting
from jobrunner.store.sqlite.sql.insert import ROW_ERRORS, insert_all
from jobrunner.store.sqlite.sql.settle import Settling

_TAKE_WRITE_LOCK = "DELETE FROM jobrunner_meta WHERE 0"
"""Deletes nothing, but makes an open transaction take the write lock."""


def insert(conn: sqlite3.Connection, jobs: Sequence[Enqueue], now: int) -> list[Enqueued]:
    """Insert jobs, all or none, in the connection's transaction, which begins if needed."""
    begin_if_none(conn)
    try:
        with _rows_as_tuples(conn), _all_or_none(conn):
            stored = insert_all(conn, jobs, now)
            # Counted after the INSERT, which takes the write lock.
            full = waiting.exceeded(conn, jobs, stored)
            if full is not None:
                raise full
            return stored
    except ROW_ERRORS as error:
        raise StoreUnavailable(f"the store refuses the row of a job: {error}") from error


def insert_batch(conn: sqlite3.Connection, request: BatchEnqueue, now: int) -> BatchEnqueued:
    """Insert a batch, its jobs and edges, all or none, as ``insert`` does."""
    begin_if_none(conn)
    try:
        with _rows_as_tuples(conn), _all_or_none(conn):
            stored = batches.enqueue(conn, request, now, Effects())
            full = waiting.exceeded(conn, request.members, stored.members)
            if full is not None:
                raise full
            return stored
    except ROW_ERRORS as error:
        raise StoreUnavailable(f"the store refuses a row of the batch: {error}") from error


def settle(conn: sqlite3.Connection, outcome: Outcome, now: int) -> bool:
    """Write an outcome in the connection's transaction; return False if the fence refuses it."""
    with _rows_as_tuples(conn):
        begin_if_none(conn)
        with _all_or_none(conn):
            alone = Settling(conn, now, Effects(), row_by_row=True)
            alone.settle([outcome])
            return not alone.stale


def keep(conn: sqlite3.Connection, memo: Memo, now: int) -> bool:
    """Store a memo in the connection's transaction; return False if the fence refuses it or it is there."""
    with _rows_as_tuples(conn):
        begin_if_none(conn)
        with _all_or_none(conn):
            return steps.keep(conn, [memo], now) == 1


def begin(conn: sqlite3.Connection) -> None:
    """Begin a transaction that holds the write lock.

    A transaction that is already open takes the lock; it must not have read anything yet.
    """
    conn.execute(_TAKE_WRITE_LOCK if conn.in_transaction else "BEGIN IMMEDIATE")


def begin_if_none(conn: sqlite3.Connection) -> None:
    """Begin a transaction if the driver would begin one before the next INSERT.

    Raises:
        InvalidSession: The connection is in autocommit mode, so that each statement would commit by itself.
    """
    if conn.in_transaction:
        return
    if conn.isolation_level is None or getattr(conn, "autocommit", -1) is True:
        raise InvalidSession(
            "the connection is in autocommit mode and in no transaction, so the job would be there before your rows:"
            ' write connection.execute("BEGIN IMMEDIATE") (of aiosqlite: await it) before the first enqueue, or open it'
            " without isolation_level=None, autocommit=True or isolation_level='AUTOCOMMIT'"
        )
    # The driver would begin none before a SAVEPOINT: the savepoint would be the transaction and its RELEASE the commit.
    conn.execute(f"BEGIN {conn.isolation_level}")


@contextlib.contextmanager
def _rows_as_tuples(conn: sqlite3.Connection) -> Iterator[None]:
    row_factory, text_factory = conn.row_factory, conn.text_factory
    conn.row_factory, conn.text_factory = None, str
    try:
        yield
    finally:
        conn.row_factory, conn.text_factory = row_factory, text_factory


@contextlib.contextmanager
def _all_or_none(conn: sqlite3.Connection) -> Iterator[None]:
    conn.execute("SAVEPOINT jobrunner")
    try:
        yield
    except BaseException:
        # After some errors (disk full, I/O) SQLite has already rolled everything back.
        if conn.in_transaction:
            conn.execute("ROLLBACK TO jobrunner")
            conn.execute("RELEASE jobrunner")
        raise
    conn.execute("RELEASE jobrunner")


# -- connections that are not ours --------------------------------------------------------------------


def keep_promises(conn: sqlite3.Connection, durability: str) -> None:
    """Make the commits of a new connection as durable as the store's."""
    autocommit = getattr(conn, "autocommit", -1)
    if autocommit is False:
        # Such a connection is always in a transaction, where `synchronous` cannot be changed.
        conn.autocommit = True  # type: ignore[attr-defined]
    try:
        conn.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        _leave_log_alone(conn)
    finally:
        if autocommit is False:
            conn.autocommit = False  # type: ignore[attr-defined]


def _leave_log_alone(conn: sqlite3.Connection) -> None:
    # Only the elected process may checkpoint, under the write lock: see ``checkpoint``.
    conn.execute("PRAGMA wal_autocheckpoint = 0")
    conn.execute("PRAGMA mmap_size = 0")


def prepare(conn: sqlite3.Connection, file: FileIdentity, durability: str) -> None:
    """Check that the connection is to the store's file, and make it as durable.

    Raises:
        InvalidSession: The connection is to another file, or is in a transaction, where its durability cannot change.
    """
    with _rows_as_tuples(conn):
        path = main_database(conn)
        if not path or not file.is_at(path):
            raise InvalidSession(
                f"the session writes to {path or 'a database in memory'} and the jobs are in {file.path}: one"
                f" transaction cannot span both. Open the session on {file.path}, or the runner on the session's file"
            )
        needed, word = (2, "FULL") if durability == "full" else (1, "NORMAL")
        (level,) = conn.execute("PRAGMA synchronous").fetchone()
        if level < needed:
            if conn.in_transaction:
                raise InvalidSession(
                    f"a power cut could undo what this connection commits (synchronous={level}), and that cannot be"
                    f' changed inside a transaction: write connection.execute("PRAGMA synchronous = {word}") (of'
                    " aiosqlite: await it) right after it is opened"
                )
            conn.execute(f"PRAGMA synchronous = {word}")
        _leave_log_alone(conn)


def main_database(conn: sqlite3.Connection) -> str:
    """Return the file of the connection; empty for a database in memory."""
    with _rows_as_tuples(conn):
        for _, name, path in conn.execute("PRAGMA database_list"):
            if name == "main":
                return str(path or "")
    return ""
