"""Attaches SQLAlchemy engines: prepares each connection that they open to the jobs' file."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

import aiosqlite
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection, ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, PoolResetState
from sqlalchemy.util import greenlet_spawn

from jobrunner.core.errors import ConfigurationError
from jobrunner.store.sqlite.host.identity import FileIdentity
from jobrunner.store.sqlite.sessions import borrowed
from jobrunner.store.sqlite.sessions.commits import COMMIT, GuardedCommits
from jobrunner.store.sqlite.sessions.committing import Statement
from jobrunner.store.sqlite.sessions.open_transactions import OpenTransaction, note

Durability = Literal["full", "normal"]

ATTACHED: Final = "jobrunner.attached"
"""Key in the ``info`` of a connection that an attached engine has opened; holds its ``Attachment``."""

ATTACH: Final = (
    "write attach(engine), with attach of jobrunner.sqlalchemy, where the engine is made and before it is first"
    " used"
)


class Attachment:
    """The state of one connection of an attached engine."""

    def __init__(self, durability: str, database: str) -> None:
        self.durability = durability
        self.database = database
        """The file, as the engine's URL names it."""
        self.file: FileIdentity | None = None
        """The store's file, once the connection was checked to be to this file."""
        self.transaction: OpenTransaction | None = None
        """The connection's latest transaction."""


engines: "WeakKeyDictionary[Dialect, str]" = WeakKeyDictionary()
"""Durability of each attached engine, by its dialect, which an engine shares with its ``execution_options`` copies."""


def attach(engine: AsyncEngine | Engine, durability: Durability) -> None:
    """See ``jobrunner.sqlalchemy.attach``."""
    sync = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if not isinstance(sync, Engine):
        raise ConfigurationError(f"attach() takes an engine of SQLAlchemy, not {engine!r}")
    if durability not in ("full", "normal"):
        raise ConfigurationError(f'durability={durability!r} is neither "full" nor "normal"')
    dialect = sync.dialect
    if dialect.name != "sqlite" or dialect.driver not in ("pysqlite", "aiosqlite"):
        raise ConfigurationError(
            f"attach() takes an engine on the SQLite file of the jobs, not one of {dialect.name}+{dialect.driver}:"
            ' write create_async_engine("sqlite+aiosqlite:///shop.db") or create_engine("sqlite:///shop.db")'
        )
    database = sync.url.database or ""
    if database in ("", ":memory:") or ":memory:" in database or "mode=memory" in str(sync.url):
        raise ConfigurationError(
            "attach() takes an engine on the file of the jobs, and this one is in memory: name the runner's file,"
            ' as in create_async_engine("sqlite+aiosqlite:///shop.db")'
        )
    known = engines.get(dialect)
    if known == durability:
        return
    if known is not None:
        raise ConfigurationError(
            f'the engine is attached already, with durability="{known}": attach it once'
        )
    _refuse_if_used(sync, is_async=isinstance(engine, AsyncEngine))
    engines[dialect] = durability
    event.listen(sync, "connect", _Prepare(durability, database))
    event.listen(sync, "reset", _forget_transaction)
    event.listen(sync, "close", _forget_transaction)
    event.listen(sync, "reset", _end_transaction)
    event.listen(sync, "begin", _note_begin)


def _note_begin(connection: Connection) -> None:
    proxied = connection.connection
    attachment: Attachment | None = proxied.info.get(ATTACHED)
    if attachment is None:
        return
    if attachment.transaction is not None:
        attachment.transaction.is_over = True
    attachment.transaction = OpenTransaction(proxied.driver_connection, attachment.database)
    note(attachment.transaction)


def _refuse_if_used(engine: Engine, *, is_async: bool) -> None:
    """Raise if the engine has open connections; close the idle ones of a sync engine instead."""
    pool: Any = engine.pool
    if not hasattr(pool, "checkedout"):
        return  # such a pool keeps no connections
    if not is_async and pool.checkedout() == 0:
        engine.dispose()
    elif pool.checkedout() or pool.checkedin():
        dispose = "await engine.dispose()" if is_async else "engine.dispose()"
        raise ConfigurationError(
            f"the engine has open connections, which attach() would not reach: {ATTACH}, or `{dispose}` before it"
        )


class _Prepare:
    """Sets the pragmas of each new connection of an engine."""

    def __init__(self, durability: str, database: str) -> None:
        self._durability = durability
        self._database = database

    def __call__(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        driver = entry.driver_connection
        if isinstance(driver, aiosqlite.Connection):
            adapted: Any = connection
            adapted.run_async(self._prepare)
        else:
            borrowed.keep_promises(_raw(driver), self._durability)
        entry.info[ATTACHED] = Attachment(self._durability, self._database)

    async def _prepare(self, driver: aiosqlite.Connection) -> None:
        hop: Callable[..., Awaitable[None]] = driver._execute  # noqa: SLF001 - as in ``connection``
        await hop(borrowed.keep_promises, driver._conn, self._durability)  # noqa: SLF001


def _forget_transaction(
    connection: DBAPIConnection, entry: ConnectionPoolEntry, state: PoolResetState | None = None
) -> None:
    """Mark the connection's transaction as over.

    The connection's next user may write without SQLAlchemy's begin event.
    """
    attachment: Attachment | None = entry.info.get(ATTACHED)
    if attachment is not None and attachment.transaction is not None:
        attachment.transaction.is_over = True


def _end_transaction(
    connection: DBAPIConnection, entry: ConnectionPoolEntry, state: PoolResetState
) -> None:
    """Roll back a transaction left open on a connection that returns to the pool.

    After a failed COMMIT, SQLAlchemy considers the transaction ended, but the connection would keep the write lock
    until its next use.
    """
    if not state.transaction_was_reset or state.terminate_only or not state.asyncio_safe:
        return
    driver: Any = entry.driver_connection
    if driver.in_transaction:
        connection.rollback()


def _raw(driver: Any) -> sqlite3.Connection:
    if not isinstance(driver, sqlite3.Connection):
        raise ConfigurationError(f"{driver!r} is no connection of sqlite3")
    return driver


@contextmanager
def commits_of_engines(commits: GuardedCommits) -> Iterator[None]:
    """Guard the commits of all engines inside the block, attached or not.

    SQLAlchemy's commit event comes before the commit only.
    """
    owner: Any = SQLiteDialect
    names = ("do_commit", "do_execute", "do_executemany", "do_execute_no_params")
    originals = {name: getattr(owner, name) for name in names}

    def do_commit(dialect: SQLiteDialect, connection: PoolProxiedConnection) -> None:
        commit = originals["do_commit"]
        _around(commits, connection, COMMIT, lambda: commit(dialect, connection))

    def replacing(name: str) -> Callable[..., None]:
        original = originals[name]

        def do(
            dialect: SQLiteDialect, cursor: Any, statement: str, *args: Any, **kwargs: Any
        ) -> None:
            def run() -> Any:
                original(dialect, cursor, statement, *args, **kwargs)
                return cursor

            context: Any = kwargs.get("context", args[-1] if args else None)
            if isinstance(context, ExecutionContext):
                connection = context.root_connection.connection
                _around(commits, connection, Statement(statement), run)
            else:
                run()

        return do

    owner.do_commit = do_commit
    for name in names[1:]:
        setattr(owner, name, replacing(name))
    try:
        yield
    finally:
        for name in names:
            delattr(owner, name)  # they are inherited


def _around(
    commits: GuardedCommits,
    connection: PoolProxiedConnection,
    statement: Statement,
    run: Callable[[], Any],
) -> None:
    """Run a statement of an engine's connection, and guard its commit."""
    driver, adapted = connection.driver_connection, connection.dbapi_connection
    if isinstance(driver, sqlite3.Connection):
        commits.around(driver, statement, run, connection.detach)
    elif isinstance(driver, aiosqlite.Connection) and statement.is_suspect:
        to_driver: Any = adapted
        to_driver.run_async(
            lambda driver: commits.around_in_thread(
                driver, statement, lambda: greenlet_spawn(run), connection.detach
            )
        )
    else:
        run()
