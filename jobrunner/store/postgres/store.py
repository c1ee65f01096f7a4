"""Composes the PostgreSQL store of connections and the parts of the contract."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from hashlib import blake2b
from typing import Final
from weakref import WeakSet

from jobrunner.core.errors import AlreadyRunning, StoreFailed, StoreUnavailable
from jobrunner.core.logs import log_of
from jobrunner.core.model import Succeeded
from jobrunner.store.postgres import migrate
from jobrunner.store.postgres.access import Access
from jobrunner.store.postgres.audit import PostgresAudit
from jobrunner.store.postgres.dead_letters import PostgresDeadLetters
from jobrunner.store.postgres.driver_errors import HELD_ERRORS, ROW_ERRORS, as_ours
from jobrunner.store.postgres.jobs import PostgresJobs
from jobrunner.store.postgres.limits import PostgresLimits
from jobrunner.store.postgres.location import location_of
from jobrunner.store.postgres.schedules import PostgresSchedules
from jobrunner.store.postgres.sessions import adapt, borrowed
from jobrunner.store.postgres.sessions.adapter import StoreHandle
from jobrunner.store.postgres.sql import task_writes
from jobrunner.store.postgres.sql.hot import is_hot, look_up, write_hot
from jobrunner.store.postgres.sql.round import write_round
from jobrunner.store.postgres.sql.settle import WriteFailed
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.postgres.statistics import PostgresStatistics
from jobrunner.store.postgres.upkeep import PostgresUpkeep
from jobrunner.store.postgres.workers import PostgresWorkers
from jobrunner.store.postgres.workflows import PostgresWorkflows
from jobrunner.store.reentrancy import refuse_inside
from jobrunner.store.round import Round, Written
from jobrunner.store.session import Session
from jobrunner.store.sessions.watcher import Watch

logger = log_of("jobrunner")

LIMITED_ROUNDS: Final = 20
"""Rounds that are written the long way once limits were found."""
BRIEFLY_S: Final = 2.0
"""After a lock was held for too long, rounds do not wait for it again and again."""

_OPEN: Final[set[str]] = set()
"""The databases that this process has open."""


class PostgresStore:
    """A ``Store`` in a schema of a PostgreSQL database.

    Args:
        url: see ``location.location_of``.
        must_exist: refuse to open a database without tables, or with tables that need a migration.
    """

    def __init__(self, url: str, *, must_exist: bool = False) -> None:
        self._name = location_of(url).name
        self._prepare = partial(_check, self._name) if must_exist else _prepare
        self._access = Access(url, self.refuse_wait)
        self.jobs = PostgresJobs(self._access)
        self.dead_letters = PostgresDeadLetters(self._access)
        self.schedules = PostgresSchedules(self._access)
        self.workers = PostgresWorkers(self._access)
        self.audit = PostgresAudit(self._access)
        self.statistics = PostgresStatistics(self._access)
        self.limits = PostgresLimits(self._access)
        self._upkeep = PostgresUpkeep(self._access)
        self.workflows = PostgresWorkflows(self._access)
        self._is_open = False
        self._sessions: StoreHandle | None = None
        self._limited_rounds = 0
        """Rounds to write without asking again whether limits count."""
        self._briefly_until_s = 0.0
        """The time, by the loop's clock, until which rounds wait for locks for a moment only."""

    # -- open and close ---------------------------------------------------------

    async def open(self) -> None:
        """See ``Store.open``."""
        if self._name in _OPEN:
            raise AlreadyRunning(f"this process has {self._name} open already")
        _OPEN.add(self._name)
        self._is_open = True
        try:
            await self._access.open()
            await self._access.write(self._prepare)
            await self._upkeep.open()
            self._sessions = await self._handle()
        except BaseException:
            await self.close()
            raise
        logger.info("jobs are stored in %s", self._name)

    async def close(self) -> None:
        """See ``Store.close``."""
        if not self._is_open:
            return
        self._is_open = False
        await self._upkeep.close()
        if self._sessions is not None:
            handle, self._sessions = self._sessions, None
            await handle.watch.close()
        await self.workers.aclose()
        await self._access.close()
        _OPEN.discard(self._name)

    async def _handle(self) -> StoreHandle:
        """Return what sessions of the application need."""
        if "sqlalchemy" in sys.modules:
            # Registers the listeners for commits, before the application's first session.
            import jobrunner.store.sessions.events  # noqa: F401, PLC0415
        database, synchronous_commit = await self._access.read(_identity)
        return StoreHandle(
            self._access,
            self._name,
            database,
            synchronous_commit != "off",
            Watch(self.jobs.get),
            location_of(self._access.url).schema,
            WeakSet(),
            asyncio.get_running_loop(),
        )

    # -- the hot path -----------------------------------------------------------------

    async def write(self, request: Round) -> Written:
        """See ``Store.write``."""
        claim = request.claim
        has_joined = claim is not None and self.workers.has_joined(claim.worker)
        if claim is not None and not self.workers.may_claim(claim.worker):
            request = request._replace(claim=None)
        row_by_row = False
        try:
            written = await self._write_hot(request, must_stand=has_joined)
        except ROW_ERRORS:
            written, row_by_row = None, True
        if written is not None:
            return written
        return await self._write_long(request, has_joined=has_joined, row_by_row=row_by_row)

    async def _write_long(self, request: Round, *, has_joined: bool, row_by_row: bool) -> Written:
        """Write a round statement by statement, and after an error item by item."""
        loop = asyncio.get_running_loop()
        briefly = loop.time() < self._briefly_until_s
        refused: list[tuple[Succeeded, BaseException]] = []
        while True:
            try:
                return await self._access.round(
                    write_round,
                    request,
                    row_by_row=row_by_row,
                    briefly=briefly,
                    has_joined=has_joined,
                    refused=refused,
                )
            except WriteFailed as culprit:
                refused.append((culprit.success, culprit.error))
                rest = [one for one in request.outcomes if one is not culprit.success]
                request = request._replace(outcomes=rest)
            except HELD_ERRORS as error:
                if row_by_row and briefly:
                    raise as_ours(error) from error
                if not briefly:
                    # A short wait does not lengthen it: a row that many hold in turns is waited for now and then.
                    self._briefly_until_s = loop.time() + BRIEFLY_S
                row_by_row = briefly = True
            except ROW_ERRORS as error:
                if row_by_row:
                    raise StoreFailed(f"the database refuses a round: {error}") from error
                row_by_row = True

    async def _write_hot(self, request: Round, *, must_stand: bool) -> Written | None:
        """Write a usual round in one trip; return None if it is another one."""
        if self._limited_rounds:
            self._limited_rounds -= 1
            return None
        if not is_hot(request):
            return None
        written = await self._access.call(
            partial(write_hot, request=request, must_stand=must_stand),
            partial(look_up, request=request),
        )
        looked = request.promote_due or (request.claim is not None and request.claim.suspects)
        if written is None and not looked:
            self._limited_rounds = LIMITED_ROUNDS
        return written

    # -- the application's own transactions --------------------------------------------

    def session(self, source: object) -> Session:
        """See ``Store.session``."""
        self._access.check_process()
        if self._sessions is None:
            raise StoreUnavailable(f"{self._name} is not open")
        return adapt.session_of(self._sessions, source)

    def as_write(
        self, what: object, args: Sequence[object]
    ) -> tuple[Callable[..., object], Sequence[object]]:
        """See ``Store.as_write``."""
        return task_writes.as_write(what, args)

    def refuse_wait(self, what: object) -> None:
        """See ``Store.refuse_wait``."""
        self._access.check_process()
        refuse_inside(self, what)

    def detached(self) -> AbstractContextManager[None]:
        """See ``Store.detached``; sessions of the application block nobody here."""
        return contextlib.nullcontext()

    def write_lock(self, holder: str) -> AbstractAsyncContextManager[None]:
        """See ``Store.write_lock``; this store has many writers, so there is nothing to wait for."""
        refuse_inside(self, "job.transaction()")
        return _nothing()

    def blocking_write_lock(self, holder: str) -> AbstractContextManager[None]:
        """See ``Store.blocking_write_lock`` and ``write_lock``."""
        refuse_inside(self, "job.transaction()")
        return _nothing_blocking()

    async def change_counter(self) -> int:
        """See ``Store.change_counter``.

        Every commit changes the server's snapshot; so do those of other applications on the server.
        """
        return await self._access.read(_snapshot)

    # -- upkeep -----------------------------------------------------------------------------

    async def upkeep(self) -> None:
        """See ``Store.upkeep``."""
        await self._upkeep.run()


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@contextlib.contextmanager
def _nothing_blocking() -> Iterator[None]:
    yield


async def _prepare(tx: Transaction) -> None:
    await migrate.require_server(tx.connection)
    await migrate.migrate(tx.connection)


async def _check(name: str, tx: Transaction) -> None:
    await migrate.require_server(tx.connection)
    await migrate.require_tables(tx.connection, name)


async def _identity(tx: Transaction) -> tuple[str, str]:
    database, synchronous_commit = await tx.fetchrow(borrowed.IDENTITY)
    return database, synchronous_commit


async def _snapshot(tx: Transaction) -> int:
    text = await tx.fetchval("SELECT pg_current_snapshot()::text")
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
