"""Gives the parts of one store access to its open connections.

Rounds have a connection of their own, on which they follow each other; everything else shares a few others.  A
statement goes on when its caller is cancelled, so that a cancel neither undoes a write nor breaks a connection.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from jobrunner.core.errors import StoreBusy, StoreUnavailable
from jobrunner.core.forked import generation, refuse_forked
from jobrunner.store.postgres.connection import READER, WRITER, Connection, close, connect
from jobrunner.store.postgres.driver_errors import (
    DRIVER_ERRORS,
    HELD_ERRORS,
    RETRIED_ERRORS,
    ROW_ERRORS,
    as_ours,
    is_lost,
)
from jobrunner.store.postgres.lost_commits import (
    SELF,
    XID,
    Backend,
    CommitLost,
    committed,
    found_out,
)
from jobrunner.store.postgres.migrate import require_session
from jobrunner.store.postgres.sql.settle import WriteFailed
from jobrunner.store.postgres.sql.statistics import flush
from jobrunner.store.postgres.sql.transaction import Transaction

T = TypeVar("T")
P = ParamSpec("P")

Work = Callable[[Transaction], Awaitable[T]]
Find = Callable[[Transaction], Awaitable[Sequence[T] | None]]

POOLED: Final = 4
"""Connections beside that of the rounds."""
TRIES: Final = 5
"""Runs of a transaction that others get in the way of: each deadlock ends after the server's deadlock_timeout, 1 s."""

BEGIN: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"


class _Pool:
    """A few connections with the same settings; a lost one is replaced at its next use."""

    def __init__(self, url: str, settings: Mapping[str, str], size: int) -> None:
        self._url = url
        self._settings = settings
        self._free = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._backends: dict[Connection, Backend] = {}

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with self._free:
            while self._idle and self._idle[-1].is_closed():
                self._idle.pop()
            used = self._idle.pop() if self._idle else await self._connect()
            try:
                yield used
            except CommitLost as lost:
                lost.backend = self._backends[used]
                raise
            except BaseException as error:
                if is_lost(error):
                    used.terminate()
                raise
            finally:
                if not used.is_closed():
                    self._idle.append(used)

    async def _connect(self) -> Connection:
        connection = await connect(self._url, self._settings)
        self._backends = {
            one: backend for one, backend in self._backends.items() if not one.is_closed()
        }
        self._backends[connection] = Backend(*await connection.fetchrow(SELF))
        return connection

    async def close(self) -> None:
        idle, self._idle = self._idle, []
        for one in idle:
            await close(one)


class Access:
    """Runs coroutine functions on the connections of an open store."""

    def __init__(self, url: str, refuse_wait: Callable[[object], None]) -> None:
        """``refuse_wait`` raises if the calling code's own transaction blocks other writers."""
        self.url = url
        self.refuse_wait = refuse_wait
        self._opened_in = generation()
        self._rounds: _Pool | None = None
        self._others: _Pool | None = None
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Open the first connection of each kind.

        Raises:
            StoreError: The server cannot be reached.
            StoreUnsupported: A pooler changes sessions between transactions.
        """
        self._opened_in = generation()
        self._rounds = _Pool(self.url, WRITER, 1)
        self._others = _Pool(self.url, READER, POOLED)
        for pool in (self._rounds, self._others):
            async with pool.connection() as connection:
                try:
                    await require_session(connection)
                except DRIVER_ERRORS as error:
                    raise as_ours(error) from error

    def require_open(self) -> None:
        """Raise unless the store is open.

        Raises:
            StoreUnavailable: The store is not open.
            NotRunning: See ``check_process``.
        """
        self._open(self._others)

    def check_process(self) -> None:
        """Raise in a process that was forked after the store was opened.

        Raises:
            NotRunning: This process was forked after the store was opened.
        """
        refuse_forked(self._opened_in)

    async def write(
        self,
        function: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``function(transaction, *args)`` in one transaction; it is durable when this returns.

        Raises:
            WouldDeadlock: The calling code's own transaction blocks other writers.
        """
        self.refuse_wait(function)
        return await self._apart(
            self._retried(
                self._open(self._others), transact, partial(_call, function, args, kwargs)
            )
        )

    async def round(
        self,
        function: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Do the same as ``write`` on the connection of the rounds; errors of rows are raised as the driver's.

        Raises:
            WriteFailed: A function of ``job.write()`` has ended the transaction.
        """
        return await self._apart(
            self._retried(
                self._open(self._rounds),
                transact,
                partial(_call, function, args, kwargs),
                (*ROW_ERRORS, *HELD_ERRORS, WriteFailed),
            )
        )

    async def call(
        self,
        work: Work[T],
        find: Find[T],
    ) -> T:
        """Run one statement on the connection of the rounds, which commits by itself.

        Errors of rows are raised as the driver's.

        Args:
            work: runs the statement.
            find: see ``alone``.
        """
        return await self._apart(
            self._retried(self._open(self._rounds), alone(find), work, ROW_ERRORS)
        )

    async def read(
        self,
        function: Callable[Concatenate[Transaction, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run ``function(transaction, *args)`` on one snapshot, without writing."""
        return await self._apart(
            self._read(self._open(self._others), partial(_call, function, args, kwargs))
        )

    async def close(self) -> None:
        """Close the connections, after what runs on them."""
        if self._running:
            await asyncio.wait(self._running)
        for pool in (self._rounds, self._others):
            if pool is not None:
                await pool.close()
        self._rounds = self._others = None

    def _open(self, pool: _Pool | None) -> _Pool:
        self.check_process()
        if pool is None:
            raise StoreUnavailable("the store is not open")
        return pool

    async def _apart(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in a separate task, which a cancel of the caller does not reach."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone, and nobody else asks for it

    async def _retried(
        self,
        pool: _Pool,
        run: Callable[[Connection, Work[T]], Awaitable[T]],
        work: Work[T],
        passed_on: tuple[type[BaseException], ...] = (),
    ) -> T:
        for number in range(1, TRIES + 1):
            try:
                async with pool.connection() as connection:
                    return await run(connection, work)
            except passed_on:
                raise
            except CommitLost as lost:
                found: Sequence[T] | None = await found_out(self.url, lost)
                if found is not None:
                    return found[0]
            except RETRIED_ERRORS as error:
                if number == TRIES:
                    raise as_ours(error) from error
            except DRIVER_ERRORS as error:
                # Nothing was stored. The server may have ended a session that was idle.
                if number > 1 or not is_lost(error):
                    raise as_ours(error) from error
        raise StoreBusy("the database has ended the transaction several times; it was not stored")

    async def _read(self, pool: _Pool, work: Callable[[Transaction], Awaitable[T]]) -> T:
        try:
            return await self._read_once(pool, work)
        except DRIVER_ERRORS as error:
            if not is_lost(error):
                raise as_ours(error) from error
        # The server may have ended a session that was idle.
        try:
            return await self._read_once(pool, work)
        except DRIVER_ERRORS as error:
            raise as_ours(error) from error

    async def _read_once(self, pool: _Pool, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with (
            pool.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await work(Transaction(connection))


def alone(find: Find[T]) -> Callable[[Connection, Work[T]], Awaitable[T]]:
    """Return a function that runs one statement, which commits by itself.

    Args:
        find: returns the statement's one answer if it has been carried out, from the rows that it wrote; else None.
    """

    async def run(connection: Connection, work: Work[T]) -> T:
        try:
            return await work(Transaction(connection))
        except Exception as error:
            if not is_lost(error):
                raise
            connection.terminate()
            raise CommitLost(lambda other: find(Transaction(other))) from error

    return run


async def transact(connection: Connection, work: Work[T]) -> T:
    """Run ``work`` between BEGIN and COMMIT; roll back if it raises.

    Raises:
        CommitLost: The connection was lost while the commit was on its way.
    """
    await connection.execute(BEGIN)
    tx = Transaction(connection)
    try:
        result = await work(tx)
        await flush(tx)
        xid = await connection.fetchval(XID)
    except BaseException:
        if not connection.is_closed():
            await connection.execute(ROLLBACK)
        raise
    try:
        await connection.execute(COMMIT)
    except Exception as error:
        if not is_lost(error):
            raise
        connection.terminate()
        if xid is None:
            return result  # it has written nothing
        raise CommitLost(partial(_result_if_committed, xid, result)) from error
    return result


async def _result_if_committed(xid: str, result: T, connection: Connection) -> Sequence[T] | None:
    return [result] if await committed(connection, xid) else None


def _call(
    function: Callable[..., Awaitable[T]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tx: Transaction,
) -> Awaitable[T]:
    return function(tx, *args, **kwargs)
