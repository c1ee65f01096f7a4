"""The SQLite store: one writer connection, the readers, the turnstile before each transaction, and the workers' locks.

Only SQLite ever opens the database file, its ``-wal`` or its ``-shm``: closing any descriptor of them would drop
SQLite's own locks.  What this module opens lies in the folder beside it.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jobrunner.core.errors import StoreFull, StoreReplaced, StoreUnavailable, WouldDeadlock
from jobrunner.core.forked import generation, refuse_forked
from jobrunner.core.logs import log_of
from jobrunner.core.model import (
    AttemptRow,
    DeadReason,
    Enqueue,
    Enqueued,
    Filter,
    JobRow,
    QueueStats,
    ScheduleChange,
    ScheduleRow,
    TickRow,
    WorkerRow,
)
from jobrunner.core.wait_graph import Still, Told
from jobrunner.store.protocol import Page, Recovered, Replayed, Slice
from jobrunner.store.reentrancy import name_of, refuse_inside
from jobrunner.store.round import Round, Written
from jobrunner.store.session import Session
from jobrunner.store.sqlite import boot
from jobrunner.store.sqlite.host import identity, locks
from jobrunner.store.sqlite.host.doorbell import Doorbell, ring
from jobrunner.store.sqlite.host.location import (
    check_place,
    create,
    folder_of,
    make_folder,
    path_of,
)
from jobrunner.store.sqlite.host.turnstile import WriteLock
from jobrunner.store.sqlite.maintenance import backup, migrate
from jobrunner.store.sqlite.maintenance.checkpoint import Checkpointer, checkpoint
from jobrunner.store.sqlite.maintenance.recovery import Recovery
from jobrunner.store.sqlite.readers import Readers
from jobrunner.store.sqlite.sessions import adapt, open_transactions
from jobrunner.store.sqlite.sessions.driver import StoreHandle
from jobrunner.store.sqlite.sessions.watcher import Watch
from jobrunner.store.sqlite.sql import (
    control,
    dead_letters,
    queries,
    retention,
    schedules,
    workers,
)
from jobrunner.store.sqlite.sql.claim import Heads
from jobrunner.store.sqlite.sql.round import write_round
from jobrunner.store.sqlite.writer import Writer

T = TypeVar("T")
logger = log_of("jobrunner")


class SqliteStore:
    """A ``Store`` in one SQLite file on a local disk."""

    def __init__(self, store: str | os.PathLike[str], *, durability: str = "full") -> None:
        self.path = path_of(store)
        self.durability = durability
        self._folder = folder_of(self.path)
        self._opened_in = generation()
        self._claim: identity.StoreClaim | None = None
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._checkpointer: Checkpointer | None = None
        self._identity: identity.FileIdentity | None = None
        self._sessions: StoreHandle | None = None
        self._locks: dict[int, locks.WorkerLock] = {}
        self._doorbells: dict[int, Doorbell | None] = {}
        self._rows: dict[int, WorkerRow] = {}
        """As they were stored when the workers of this process joined."""
        self._bells: Sequence[str] = ()
        self._heads = Heads()
        self._recovery = Recovery(self._folder, self._locks, read=self._read, write=self._write)

    # -- life -------------------------------------------------------------------

    async def open(self) -> None:
        """See ``Store.open``."""
        self._opened_in = generation()
        check_place(self.path)
        self._claim = identity.claim_store(self.path)
        try:
            make_folder(self.path)
            create(self.path)
            self._writer = await migrate.writer_of(self.path, self._folder, self.durability)
            await self._writer.write(migrate.try_to_write)
            await boot.make_sure_of_one(self._writer, self.path, self._folder)
            self._claim.pin()
            self._readers = await Readers.open(self.path)
            self._checkpointer = Checkpointer(
                self.path, self._folder, partial(self._writer.exclusive, checkpoint)
            )
            self._identity = identity.FileIdentity.of(self.path)
            self._sessions = StoreHandle(self._identity, self.durability, Watch(self.get))
            logger.info("jobs are stored in %s (SQLite %s)", self.path, sqlite3.sqlite_version)
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):
                raise locks.translated(error, error.filename or self._folder) from error
            raise

    async def close(self) -> None:
        """See ``Store.close``."""
        if self._sessions is not None:
            home, self._sessions = self._sessions, None
            await home.watch.close()
        if self._checkpointer is not None:
            await self._checkpointer.close()
            self._checkpointer = None
        if self._readers is not None:
            readers, self._readers = self._readers, None
            await readers.close()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.close()
        for bell in self._doorbells.values():
            if bell is not None:
                bell.close()
        self._doorbells.clear()
        for lock in self._locks.values():
            # Of a worker that has not left: its jobs are found by the file, as after a kill.
            lock.abandon()
        self._locks.clear()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    async def _write(self, function: Callable[..., T], *args: Any) -> T:
        self.refuse_wait(function)
        return await self._open_writer().write(function, *args)

    def _open_writer(self) -> Writer:
        refuse_forked(self._opened_in)
        if self._writer is None:
            raise StoreUnavailable(f"{self.path} is not open")
        return self._writer

    async def _read(self, function: Callable[..., T], *args: Any) -> T:
        return await self._open_readers().read(function, *args)

    def _open_readers(self) -> Readers:
        refuse_forked(self._opened_in)
        if self._readers is None:
            raise StoreUnavailable(f"{self.path} is not open")
        return self._readers

    # -- the hot path -----------------------------------------------------------------

    async def write(self, batch: Round) -> Written:
        """See ``Store.write``."""
        written = await self._open_writer().write(write_round, batch, self._heads)
        if self._checkpointer is not None:
            rows = len(batch.outcomes) + len(written.enqueued) + len(written.claimed)
            rows += len(written.fired)
            self._checkpointer.wrote(rows)
        return written

    def session(self, source: object) -> Session:
        """See ``Store.session``."""
        refuse_forked(self._opened_in)
        if self._sessions is None:
            raise StoreUnavailable(f"{self.path} is not open")
        return adapt.session_of(self._sessions, source)

    def refuse_wait(self, what: object) -> None:
        """See ``Store.refuse_wait``."""
        refuse_forked(self._opened_in)
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

    def turn(self, holder: str) -> AbstractAsyncContextManager[None]:
        """See ``Store.turn``."""
        return self._turns().of_task(holder)

    def blocking_turn(self, holder: str) -> AbstractContextManager[None]:
        """See ``Store.blocking_turn``."""
        return self._turns().of_thread(holder)

    def _turns(self) -> WriteLock:
        refuse_inside(self, "job.transaction()")
        return self._open_writer().turns

    # -- workers --------------------------------------------------------------------------

    async def join(self, worker: WorkerRow, on_ring: Callable[[], None]) -> None:
        """See ``Store.join``."""
        id = worker.worker
        self._locks[id] = locks.WorkerLock.hold(locks.worker_file(self._folder, id))
        bell = self._doorbells[id] = Doorbell.open(on_ring)
        row = self._rows[id] = worker._replace(doorbell=bell.address if bell else None)
        await self._write(workers.join, row)

    def ring(self) -> None:
        """See ``Store.ring``."""
        for address in self._bells:
            ring(address)

    async def leave(self, worker: int, *, now: int) -> None:
        """See ``Store.leave``."""
        await self._write(workers.leave, worker, now)
        bell = self._doorbells.pop(worker, None)
        if bell is not None:
            bell.close()
        self._rows.pop(worker, None)
        lock = self._locks.pop(worker, None)
        if lock is not None:
            lock.release()

    async def beat(self, worker: int, *, now: int) -> bool:
        """See ``Store.beat``."""
        if await self._write(workers.beat, worker, now):
            return False
        row, lock = self._rows.get(worker), self._locks.get(worker)
        if row is None or lock is None or not lock.still_ours():
            return False
        if not await self._write(_restore, row._replace(beat_at=now)):
            return False
        logger.warning(
            "the row of worker %d was deleted while it works, and is stored anew: something has emptied jobrunner's"
            " tables. Close the runner before that, or leave the tables named jobrunner_* out",
            worker,
        )
        return True

    async def tell(self, worker: int, told: Told, *, still: Still | None = None) -> bool:
        """See ``Store.tell``."""
        return await self._write(workers.tell, worker, told, still)

    async def workers(self) -> Sequence[WorkerRow]:
        """See ``Store.workers``."""
        rows = await self._read(workers.workers)
        self._bells = [
            row.doorbell for row in rows if row.doorbell and row.worker not in self._locks
        ]
        return rows

    async def recover(self, *, now: int, thorough: bool) -> Recovered:
        """See ``Store.recover``."""
        return await self._recovery.look(now=now, thorough=thorough)

    # -- one job ------------------------------------------------------------------------------

    async def get(self, id: str) -> JobRow | None:
        """See ``Store.get``."""
        return await self._read(queries.get, id)

    async def attempts(self, seq: int) -> Sequence[AttemptRow]:
        """See ``Store.attempts``."""
        return await self._read(queries.attempts, seq)

    async def cancel(self, id: str, *, now: int) -> JobRow | None:
        """See ``Store.cancel``."""
        return await self._write(control.cancel, id, now)

    async def cancel_requests(self, worker: int) -> Sequence[tuple[int, int]]:
        """See ``Store.cancel_requests``."""
        return await self._read(control.cancel_requests, worker)

    # -- lists -----------------------------------------------------------------------------------

    async def jobs(self, where: Filter, *, before: int | None, limit: int) -> Page:
        """See ``Store.jobs``."""
        found = await self._open_readers().page(queries.jobs, where, before=before, limit=limit)
        return Page([JobRow(*row) for row in found.rows], found.next, found.complete)

    async def dead_letters(self, where: Filter, *, before: int | None, limit: int) -> Page:
        """See ``Store.dead_letters``."""
        found = await self._open_readers().page(
            queries.dead_letters, where, before=before, limit=limit, room=queries.PAGE_ROOM
        )
        return Page([JobRow(*row[1:]) for row in found.rows], found.next, found.complete)

    async def count_dead_letters(self, where: Filter, *, cap: int) -> int:
        """See ``Store.count_dead_letters``."""
        return await self._open_readers().count(queries.count_dead_letters, where, cap=cap)

    async def queues(self) -> Sequence[QueueStats]:
        """See ``Store.queues``."""
        return await self._read(queries.queues)

    async def waiting_tasks(self) -> Sequence[tuple[str, str, int]]:
        """See ``Store.waiting_tasks``."""
        return await self._read(queries.waiting_tasks)

    # -- dead letters ------------------------------------------------------------------------------

    async def replay(self, id: str, *, now: int) -> Enqueued:
        """See ``Store.replay``."""
        return await self._write(dead_letters.replay, id, now)

    async def replay_edited(self, id: str, job: Enqueue) -> Enqueued:
        """See ``Store.replay_edited``."""
        return await self._write(dead_letters.replay_edited, id, job)

    async def replay_all(
        self,
        where: Filter,
        *,
        before: int | None,
        now: int,
        limit: int,
        tasks: Collection[str] | None = None,
    ) -> Replayed:
        """See ``Store.replay_all``."""
        return await self._write(dead_letters.replay_all, where, before, now, limit, tasks)

    async def delete_dead_letter(self, id: str) -> bool:
        """See ``Store.delete_dead_letter``."""
        return await self._write(dead_letters.delete, id)

    async def delete_dead_letters(self, where: Filter, *, before: int | None, limit: int) -> Slice:
        """See ``Store.delete_dead_letters``."""
        return await self._write(dead_letters.delete_all, where, before, limit)

    async def bury_waiting(
        self,
        queue: str,
        task: str,
        *,
        due_before: int,
        reason: DeadReason,
        error: str,
        now: int,
        limit: int,
    ) -> Sequence[str]:
        """See ``Store.bury_waiting``."""
        return await self._write(
            dead_letters.bury_waiting, queue, task, due_before, reason, error, now, limit
        )

    # -- schedules ------------------------------------------------------------------------------------

    async def schedule(self, id: str) -> ScheduleRow | None:
        """See ``Store.schedule``."""
        return await self._read(schedules.get, id)

    async def schedules(
        self, *, task: str | None, after: str | None, limit: int
    ) -> Sequence[ScheduleRow]:
        """See ``Store.schedules``."""
        return await self._open_readers().read_list(schedules.rows, task, after, limit)

    async def declared_schedules(self) -> Sequence[ScheduleRow]:
        """See ``Store.declared_schedules``."""
        return await self._open_readers().read_list(schedules.declared)

    async def due_schedules(
        self, tasks: frozenset[str], *, now: int, limit: int
    ) -> Sequence[ScheduleRow]:
        """See ``Store.due_schedules``."""
        return await self._read(schedules.due, tasks, now, limit)

    async def change_schedules(self, changes: Sequence[ScheduleChange]) -> bool:
        """See ``Store.change_schedules``."""
        return await self._write(schedules.change, changes)

    async def ticks(self, id: str, *, limit: int) -> Sequence[TickRow]:
        """See ``Store.ticks``."""
        return await self._open_readers().read_list(schedules.ticks, id, limit)

    async def prune_ticks(self, *, before: int, limit: int) -> int:
        """See ``Store.prune_ticks``."""
        return await self._write(schedules.prune_ticks, before, limit)

    # -- copies ---------------------------------------------------------------------------------------

    async def backup(self, destination: Path, on_progress: Callable[[int, int], None]) -> None:
        """Write a whole and consistent copy, while everybody goes on writing; see ``copy.backup``."""
        await self._open_readers().backup(destination, on_progress)

    async def vacuum(self) -> None:
        """Give back the room that deleted rows have left; nobody else writes meanwhile.

        Cancelling it ends it on its thread too, as soon as SQLite asks; ``close`` waits for that.
        """
        if self._writer is None:
            raise StoreUnavailable(f"{self.path} is not open")
        broken_off = threading.Event()
        try:
            await self._writer.exclusive(backup.vacuum, broken_off.is_set)
        except asyncio.CancelledError:
            broken_off.set()
            raise
        except StoreFull as error:
            raise StoreFull(
                f"no room to write {self.path} anew: it takes as much again beside the file, and once more where SQLite"
                " keeps temporary ones (SQLITE_TMPDIR, TMPDIR, else /var/tmp); nothing has changed"
            ) from error

    # -- queues and upkeep ----------------------------------------------------------------------------

    async def pause(self, queue: str, *, now: int) -> None:
        """See ``Store.pause``."""
        await self._write(control.pause, queue, now)

    async def resume(self, queue: str) -> None:
        """See ``Store.resume``."""
        await self._write(control.resume, queue)

    async def prune(
        self,
        *,
        finished_before: int,
        by_task: Mapping[str, int],
        died_before: int,
        keep_finished: int,
        limit: int,
    ) -> int:
        """See ``Store.prune``."""
        readers = self._open_readers()
        surplus = await readers.read_list(retention.surplus, keep_finished)
        due = retention.Due(finished_before, by_task, surplus)
        jobs: list[int] = []
        place: retention.End | None = retention.OLDEST
        while place is not None and len(jobs) < limit:
            found, place = await readers.read_list(
                retention.finished, due, place, limit - len(jobs)
            )
            jobs += found
        letters = await readers.read_list(retention.dead_letters, died_before, limit - len(jobs))
        if not jobs and not letters:
            return 0
        return await self._write(retention.delete, jobs, letters)

    async def upkeep(self) -> None:
        """See ``Store.upkeep``."""
        if self._identity is not None:
            self._identity.check()
        self._check_locks()
        if self._checkpointer is not None:
            self._checkpointer.look()

    def _check_locks(self) -> None:
        """Make sure that others still find the locks that this process holds."""
        lost = [lock.path for lock in self._locks.values() if not lock.still_ours()]
        if lost or (self._writer is not None and not self._writer.turns.in_place()):
            raise StoreReplaced(
                f"lock files in {self._folder} were removed or replaced while they were in use: other processes take"
                " this one for dead; restart it, and leave that folder to jobrunner"
            )


def _restore(conn: sqlite3.Connection, row: WorkerRow) -> bool:
    """Store anew what a process needs to find of itself in a file whose tables were emptied; False if it is there."""
    if workers.beat(conn, row.worker, row.beat_at):
        # Two chores have missed it at once.
        return False
    workers.join(conn, row)
    boot.note(conn)
    if migrate.version(conn) and not migrate.is_version(migrate.noted_version(conn)):
        migrate.note(conn, migrate.version(conn))
    return True
