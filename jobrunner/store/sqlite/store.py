"""Composes the SQLite store of a writer, readers, sessions and the workers' locks.

Only SQLite ever opens the database file, its ``-wal`` or its ``-shm``: closing any descriptor of them would drop
SQLite's own locks.  The lock files lie in a folder beside the database.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path

from jobrunner.core.errors import StoreFull, StoreUnavailable, WouldDeadlock
from jobrunner.core.logs import log_of
from jobrunner.store.reentrancy import name_of, refuse_inside
from jobrunner.store.round import Round, Written
from jobrunner.store.session import Session
from jobrunner.store.sessions.watcher import Watch
from jobrunner.store.sqlite import boot
from jobrunner.store.sqlite.access import Access
from jobrunner.store.sqlite.audit import SqliteAudit
from jobrunner.store.sqlite.dead_letters import SqliteDeadLetters
from jobrunner.store.sqlite.host import identity
from jobrunner.store.sqlite.host.location import (
    check_place,
    create,
    folder_of,
    make_folder,
    path_of,
)
from jobrunner.store.sqlite.host.record_locks import translated
from jobrunner.store.sqlite.host.turnstile import WriteLock
from jobrunner.store.sqlite.jobs import SqliteJobs
from jobrunner.store.sqlite.limits import SqliteLimits
from jobrunner.store.sqlite.maintenance import backup, migrate
from jobrunner.store.sqlite.maintenance.checkpoint import Checkpointer, checkpoint
from jobrunner.store.sqlite.readers import Readers
from jobrunner.store.sqlite.schedules import SqliteSchedules
from jobrunner.store.sqlite.sessions import adapt, open_transactions
from jobrunner.store.sqlite.sessions.driver import StoreHandle
from jobrunner.store.sqlite.sql import task_writes
from jobrunner.store.sqlite.sql.claim import Heads
from jobrunner.store.sqlite.sql.queries import data_version
from jobrunner.store.sqlite.sql.round import write_round
from jobrunner.store.sqlite.sql.turns import Turns
from jobrunner.store.sqlite.statistics import SqliteStatistics
from jobrunner.store.sqlite.workers import SqliteWorkers, locks_lost
from jobrunner.store.sqlite.workflows import SqliteWorkflows

logger = log_of("jobrunner")


class SqliteStore:
    """A ``Store`` in one SQLite file on a local disk."""

    def __init__(self, store: str | os.PathLike[str], *, durability: str = "full") -> None:
        self.path = path_of(store)
        self.durability = durability
        self._folder = folder_of(self.path)
        self._access = Access(self.path, self.refuse_wait)
        self.jobs = SqliteJobs(self._access)
        self.dead_letters = SqliteDeadLetters(self._access)
        self.schedules = SqliteSchedules(self._access)
        self.workers = SqliteWorkers(self._access, self._folder)
        self.audit = SqliteAudit(self._access)
        self.statistics = SqliteStatistics(self._access, self.path)
        self.limits = SqliteLimits(self._access)
        self.workflows = SqliteWorkflows(self._access)
        self._claim: identity.StoreClaim | None = None
        self._checkpointer: Checkpointer | None = None
        self._identity: identity.FileIdentity | None = None
        self._sessions: StoreHandle | None = None
        self._heads = Heads()
        self._turns = Turns()

    # -- open and close ---------------------------------------------------------

    async def open(self) -> None:
        """See ``Store.open``."""
        self._access.bind()
        check_place(self.path)
        self._claim = identity.claim_store(self.path)
        try:
            make_folder(self.path)
            create(self.path)
            writer = await migrate.writer_of(self.path, self._folder, self.durability)
            self._access.use_writer(writer)
            await boot.require_one_system(writer, self.path, self._folder)
            self._claim.pin()
            self._access.use_readers(await Readers.open(self.path))
            self._checkpointer = Checkpointer(
                self.path, self._folder, partial(writer.exclusive, checkpoint)
            )
            self._identity = identity.FileIdentity.of(self.path)
            self._sessions = StoreHandle(self._identity, self.durability, Watch(self.jobs.get))
            logger.info("jobs are stored in %s (SQLite %s)", self.path, sqlite3.sqlite_version)
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):
                raise translated(error, error.filename or self._folder) from error
            raise

    async def close(self) -> None:
        """See ``Store.close``."""
        if self._sessions is not None:
            handle, self._sessions = self._sessions, None
            await handle.watch.close()
        if self._checkpointer is not None:
            await self._checkpointer.close()
            self._checkpointer = None
        await self._access.close()
        self.workers.close()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    # -- the hot path -----------------------------------------------------------------

    async def write(self, request: Round) -> Written:
        """See ``Store.write``."""
        written = await self._access.writer.write(write_round, request, self._heads, self._turns)
        if self._checkpointer is not None:
            rows = len(request.outcomes) + len(written.enqueued) + len(written.claimed)
            rows += len(written.fired) + len(request.statistics)
            self._checkpointer.wrote(rows)
        return written

    # -- the application's own transactions --------------------------------------------

    def session(self, source: object) -> Session:
        """See ``Store.session``."""
        self._access.check_process()
        if self._sessions is None:
            raise StoreUnavailable(f"{self.path} is not open")
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
        if self._identity is not None and open_transactions.writes_to(self._identity):
            raise WouldDeadlock(
                f"{name_of(what)} would wait for itself: a session that was begun here has written to the store's file"
                " and is not committed, and until then nobody else can write. Store jobs through that session, by"
                " Depends(jobs.queue) or task.options(session=session), and do all else after its commit"
            )

    def detached(self) -> AbstractContextManager[None]:
        """See ``Store.detached``."""
        return open_transactions.left_behind()

    def write_lock(self, holder: str) -> AbstractAsyncContextManager[None]:
        """See ``Store.write_lock``."""
        return self._write_lock().held_by_task(holder)

    def blocking_write_lock(self, holder: str) -> AbstractContextManager[None]:
        """See ``Store.blocking_write_lock``."""
        return self._write_lock().held_by_thread(holder)

    def _write_lock(self) -> WriteLock:
        refuse_inside(self, "job.transaction()")
        return self._access.writer.write_lock

    async def change_counter(self) -> int:
        """See ``Store.change_counter``."""
        return await self._access.read(data_version)

    # -- upkeep and copies ----------------------------------------------------------------

    async def upkeep(self) -> None:
        """See ``Store.upkeep``."""
        if self._identity is not None:
            self._identity.check()
        self.workers.check_locks()
        if not self._access.holds_turnstile():
            raise locks_lost(self._folder)
        if self._checkpointer is not None:
            self._checkpointer.check()

    async def backup(self, destination: Path, on_progress: Callable[[int, int], None]) -> None:
        """See ``FileStore.backup``."""
        await self._access.readers.backup(destination, on_progress)

    async def vacuum(self) -> None:
        """See ``FileStore.vacuum``.

        A cancel also stops SQLite on the writer's thread, at its next progress callback; ``close`` waits for that.
        """
        broken_off = threading.Event()
        try:
            await self._access.writer.exclusive(backup.vacuum, broken_off.is_set)
        except asyncio.CancelledError:
            broken_off.set()
            raise
        except StoreFull as error:
            raise StoreFull(
                f"no room to write {self.path} anew: it takes as much again beside the file, and once more where SQLite"
                " keeps temporary ones (SQLITE_TMPDIR, TMPDIR, else /var/tmp); nothing has changed"
            ) from error
