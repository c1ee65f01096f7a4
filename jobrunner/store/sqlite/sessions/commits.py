"""Calls a guard around the commits of the application's own connections.

The testing kit ends a worker there.
"""

import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NoReturn, Protocol, TypeVar

import aiosqlite

from jobrunner.store.sqlite.sessions import borrowed
from jobrunner.store.sqlite.sessions.committing import Statement, Transactions
from jobrunner.store.sqlite.sessions.witness import Witness

T = TypeVar("T")

Moment = Literal["before", "after"]

original_connect: Final[Callable[..., sqlite3.Connection]] = sqlite3.connect


class CommitGuard(Protocol):
    """Decides at each commit whether the committing code goes on."""

    def concerns(self) -> bool:
        """Return whether commits of the running code are guarded."""
        ...

    def committing(self) -> AbstractContextManager[None]:
        """Leave out the commits inside the block, which belong to a guarded one."""
        ...

    def ends(self, moment: Moment) -> bool:
        """Return whether the code gets no further line at this moment of its commit."""
        ...

    async def stop(self) -> None:
        """Suspend the running task for ever."""
        ...

    def stop_thread(self, close: Callable[[], None]) -> NoReturn:
        """Call ``close()`` and block the running thread for ever.

        Raises:
            BaseException: The thread must not be blocked.
        """
        ...


class GuardedCommits:
    """The commits on one file, around which a guard is called.

    A commit is a call that commits: ``commit()``, a COMMIT in SQL, or a statement in autocommit mode.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard: CommitGuard | None = None
        self._witness: Witness | None = None
        self._transactions = Transactions()
        self.names: list[tuple[ModuleType, str]] | None = None
        """The names of ``sqlite3.connect`` in all modules, once they were found."""

    @contextmanager
    def guarded(self, guard: CommitGuard) -> Iterator[Witness]:
        """Call a guard inside the block, and note the commits that nobody has announced."""
        with Witness.of(self._path) as witness:
            self._guard, self._witness = guard, witness
            try:
                yield witness
            finally:
                self._guard = self._witness = None

    @contextmanager
    def announced(self, statement: Statement | None = None) -> Iterator[None]:
        """Announce a commit that the block may make, or soon after it the statement."""
        witness = self._witness
        if witness is None:
            yield
            return
        with witness.announced():
            yield
        if statement is not None and statement.returns_rows:
            witness.expect_one()

    def _commits(self, conn: sqlite3.Connection, statement: Statement) -> bool:
        """Return whether a statement will commit on the file; on the connection's thread."""
        if self._guard is None or not self._transactions.may_commit(conn, statement):
            return False
        path = borrowed.main_database(conn)
        return bool(path) and os.path.samefile(path, self._path)

    # -- in a thread ----------------------------------------------------------------------

    def around(
        self,
        conn: sqlite3.Connection,
        statement: Statement,
        run: Callable[[], T],
        release: Callable[[], object],
    ) -> T:
        """Run a statement in the calling thread, between two calls of the guard.

        The guard is called only if the statement commits.

        If the code ends there, its transaction is rolled back and its connection closed.

        Args:
            conn: The connection.
            statement: The statement.
            run: Runs it.
            release: Takes the connection out of its pool.
        """

        def close() -> None:
            release()
            conn.close()

        if not self._commits(conn, statement):
            return run()
        guard = self._guard
        if guard is None or not guard.concerns():
            with self.announced(statement):
                return run()
        with guard.committing():
            if guard.ends("before"):
                conn.rollback()
                guard.stop_thread(close)
            with self.announced(statement):
                result = run()
            if statement.has_committed(conn) and guard.ends("after"):
                if isinstance(result, sqlite3.Cursor):
                    result.close()  # a statement whose rows are not read yet has not committed
                guard.stop_thread(close)
        return result

    # -- aiosqlite ------------------------------------------------------------------------

    async def around_in_thread(
        self,
        driver: aiosqlite.Connection,
        statement: Statement,
        run: Callable[[], Awaitable[T]],
        release: Callable[[], object],
    ) -> T:
        """Run a statement of an aiosqlite connection; see ``around``."""
        # As in ``SessionAdapter``: aiosqlite has no public call that takes a function.
        hop: Callable[..., Awaitable[bool]] = driver._execute  # noqa: SLF001
        raw = driver._connection  # noqa: SLF001
        if raw is None or not statement.is_suspect or self._guard is None:
            return await run()
        if not await hop(self._commits, raw, statement):
            return await run()
        guard = self._guard
        if guard is None or not guard.concerns():
            with self.announced(statement):
                return await run()
        with guard.committing():
            await _end(driver, guard, "before", release)
            with self.announced(statement):
                result = await run()
            if statement.has_committed(driver):
                await _end(driver, guard, "after", release, result)
        return result

    def aiosqlite_call(self) -> Callable[..., Awaitable[Any]]:
        """Return the method that takes the place of ``aiosqlite.Connection._execute``."""
        original: Callable[..., Awaitable[Any]] = aiosqlite.Connection._execute  # noqa: SLF001

        async def call(driver: aiosqlite.Connection, function: Any, *args: Any, **kw: Any) -> Any:
            statement = _statement_of(function, args)
            if statement is None:
                return await original(driver, function, *args, **kw)
            return await self.around_in_thread(
                driver, statement, lambda: original(driver, function, *args, **kw), in_no_pool
            )

        return call

    # -- sqlite3 --------------------------------------------------------------------------

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """Open a connection whose commits are guarded, as ``sqlite3.connect`` does."""
        given = args[_FACTORY] if len(args) > _FACTORY else kwargs.pop("factory", None)
        factory = self._connection_of(given or sqlite3.Connection)
        if len(args) > _FACTORY:
            args = (*args[:_FACTORY], factory, *args[_FACTORY + 1 :])
        else:
            kwargs["factory"] = factory
        return original_connect(*args, **kwargs)

    def _connection_of(self, factory: Any) -> type[sqlite3.Connection]:
        around, cursor_of = self.around, self._cursor_of

        class Connection(factory):  # type: ignore[misc]  # the application's own class
            def commit(self) -> None:
                around(self, COMMIT, super().commit, in_no_pool)

            def __exit__(self, *error: object) -> Any:
                leave = super().__exit__
                if error[0] is not None:
                    return leave(*error)
                return around(self, COMMIT, lambda: leave(*error), in_no_pool)

            def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
                return super().cursor(cursor_of(factory))

            # Those of the driver do not call ``cursor()``.
            def execute(self, *args: Any) -> Any:
                return self.cursor().execute(*args)

            def executemany(self, *args: Any) -> Any:
                return self.cursor().executemany(*args)

            def executescript(self, *args: Any) -> Any:
                return self.cursor().executescript(*args)

        return Connection

    def _cursor_of(self, factory: Any) -> type[sqlite3.Cursor]:
        around = self.around

        class Cursor(factory):  # type: ignore[misc]  # the application's own class
            def execute(self, sql: Any, *args: Any) -> Any:
                run = super().execute
                return around(self.connection, Statement(sql), lambda: run(sql, *args), in_no_pool)

            def executemany(self, sql: Any, *args: Any) -> Any:
                run = super().executemany
                return around(self.connection, Statement(sql), lambda: run(sql, *args), in_no_pool)

            def executescript(self, sql: Any) -> Any:
                run = super().executescript
                script = Statement(sql, is_script=True)
                return around(self.connection, script, lambda: run(sql), in_no_pool)

        return Cursor


async def _end(
    driver: aiosqlite.Connection,
    guard: CommitGuard,
    moment: Moment,
    release: Callable[[], object],
    result: object = None,
) -> None:
    """Call the guard; if the code ends here, roll back and close the connection."""
    if guard.ends(moment):
        if isinstance(result, sqlite3.Cursor):
            await aiosqlite.Cursor(driver, result).close()  # as in ``around``
        await driver.rollback()
        release()
        await driver.close()
        await guard.stop()


COMMIT: Final = Statement("COMMIT")
_FACTORY: Final = 5
"""The place of ``factory`` among the arguments of ``sqlite3.connect``."""
_CALLS: Final = ("execute", "executemany", "executescript", "_execute_insert", "_execute_fetchall")


def _statement_of(function: Any, args: tuple[Any, ...]) -> Statement | None:
    """Return the statement that aiosqlite passes to its thread; None if it is none."""
    owner = getattr(function, "__self__", None)
    if not isinstance(owner, (sqlite3.Connection, sqlite3.Cursor, aiosqlite.Connection)):
        return None
    name: str = function.__name__
    if name == "commit":
        return COMMIT
    return Statement(args[0], is_script=name == "executescript") if name in _CALLS else None


def in_no_pool() -> None:
    """Release a connection that is in no pool."""
