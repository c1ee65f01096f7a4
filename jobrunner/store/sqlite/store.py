"""The SQLite store: one writer connection, one reader, the turnstile before each transaction, and the workers' locks.

Only SQLite ever opens the database file, its ``-wal`` or its ``-shm``: closing any descriptor of them would drop
SQLite's own locks.  What this module opens lies in the folder beside it.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from jobrunner.clock import SECOND_US
from jobrunner.errors import ConfigurationError, StoreUnavailable, StoreUnsupported
from jobrunner.model import (
    AttemptRow,
    DeadReason,
    Enqueue,
    Enqueued,
    Filter,
    JobRow,
    QueueStats,
    WorkerRow,
)
from jobrunner.store.protocol import Page, Recovered, Replayed, Round, Written
from jobrunner.store.sqlite import files, letters, members, migrate, posix, reads, rounds, upkeep
from jobrunner.store.sqlite.connection import Connection, transact
from jobrunner.store.sqlite.doorbell import Doorbell, ring

T = TypeVar("T")
logger = logging.getLogger("jobrunner")

MINIMUM_SQLITE: Final = (3, 37, 0)
"""STRICT tables."""

TURNSTILE_TIMEOUT_S: Final = 5.0
ROWS_PER_CHECKPOINT: Final = 8_000
"""About a thousand pages of log, which take some ten milliseconds to move."""
CHECKPOINT_EVERY_S: Final = 1.0
MISSING_FILE_IS_DEAD_US: Final = 5 * SECOND_US
ORPHAN_FILE_AGE_US: Final = 60 * SECOND_US


def path_of(store: str | os.PathLike[str]) -> Path:
    """Return the absolute path that a store's URL or path names.

    Args:
        store: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path.

    Raises:
        ConfigurationError: another database, or none at all.
    """
    text = os.fspath(store)
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme not in {"sqlite", "sqlite+aiosqlite"}:
            raise ConfigurationError(
                f"jobrunner cannot store jobs in {scheme!r} yet; write sqlite:///jobs.db"
            )
        if not rest.startswith("/") or "?" in rest:
            raise ConfigurationError(
                f"{text!r} is not a store; write sqlite:///relative.db or sqlite:////absolute.db"
            )
        text = rest[1:]
    if text in {"", ":memory:"} or text.startswith("file:"):
        raise ConfigurationError(
            "a queue in memory would lose its jobs with the process; name a file: sqlite:///jobs.db"
        )
    return Path(text).expanduser().absolute()


class SqliteStore:
    """A ``Store`` in one SQLite file on a local disk."""

    def __init__(self, store: str | os.PathLike[str], *, durability: str = "full") -> None:
        self.path = path_of(store)
        self.durability = durability
        self._folder = self.path.with_name(f"{self.path.name}-jobrunner")
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._turnstile: posix.Turnstile | None = None
        self._claim: files.StoreClaim | None = None
        self._identity: files.FileIdentity | None = None
        self._locks: dict[int, posix.WorkerLock] = {}
        self._doorbells: dict[int, Doorbell | None] = {}
        self._bells: Sequence[str] = ()
        self._checkpointer: posix.WorkerLock | None = None
        self._checkpointing: asyncio.Task[None] | None = None
        self._missing_since: dict[int, int] = {}
        self._rows_since_checkpoint = 0
        self._log_seen: tuple[int, int] | None = None
        self._checkpointed_at = 0.0

    # -- life -------------------------------------------------------------------

    async def open(self) -> None:
        """See ``Store.open``."""
        _check_library()
        self._check_place()
        self._claim = files.claim_store(self.path)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._turnstile = posix.Turnstile(self._folder)
            self._writer = await Connection.open(self.path, durability=self.durability)
            while await self._writer.run(migrate.check):
                await self._write(migrate.migrate_one)
            self._reader = await Connection.open(self.path, read_only=True)
            self._identity = files.FileIdentity.of(self.path)
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):
                raise StoreUnavailable(f"{self._folder} cannot be used: {error}") from error
            raise

    def _check_place(self) -> None:
        if not self.path.parent.is_dir():
            raise StoreUnavailable(
                f"{self.path.parent} is not a directory; make it first, or name another store"
            )
        if self.path.is_dir():
            raise StoreUnavailable(f"{self.path} is a directory; name a file in it")
        if kind := files.network_file_system(self.path):
            raise StoreUnsupported(
                f"{self.path} lies on a network file system ({kind}), where SQLite's log cannot be shared safely;"
                " put it on a local disk"
            )

    async def close(self) -> None:
        """See ``Store.close``."""
        if self._checkpointing is not None:
            await asyncio.wait([self._checkpointing])
            self._checkpointing = None
        if self._reader is not None:
            await self._reader.close()
            self._reader = None
        if self._writer is not None:
            writer, self._writer = self._writer, None
            # SQLite moves the log into the file when the last connection closes: under the lock, as any checkpoint.
            await self._close_writer(writer)
        for bell in self._doorbells.values():
            if bell is not None:
                bell.close()
        self._doorbells.clear()
        for lock in self._locks.values():
            lock.release()
        self._locks.clear()
        if self._checkpointer is not None:
            self._checkpointer.release()
            self._checkpointer = None
        if self._turnstile is not None:
            self._turnstile.close()
            self._turnstile = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    async def _close_writer(self, writer: Connection) -> None:
        turnstile = self._turnstile
        assert turnstile is not None  # noqa: S101 - opened before the writer, closed after it
        held = await writer.run(lambda _: turnstile.try_acquire(TURNSTILE_TIMEOUT_S))
        try:
            await writer.close()
        finally:
            if held:
                turnstile.release()

    # -- running functions on the connections --------------------------------------

    async def _write(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in one durable write transaction, behind the turnstile."""
        if self._writer is None:
            raise StoreUnavailable(f"{self.path} is not open")
        return await self._writer.run(self._transact, function, args)

    def _transact(
        self, conn: sqlite3.Connection, function: Callable[..., T], args: tuple[Any, ...]
    ) -> T:
        turnstile = self._turnstile
        assert turnstile is not None  # noqa: S101 - open as long as the writer is
        turnstile.acquire(TURNSTILE_TIMEOUT_S)
        try:
            return transact(conn, function, *args)
        finally:
            turnstile.release()

    async def _read(self, function: Callable[..., T], *args: Any) -> T:
        if self._reader is None:
            raise StoreUnavailable(f"{self.path} is not open")
        return await self._reader.run(function, *args)

    # -- the hot path -----------------------------------------------------------------

    async def write(self, batch: Round) -> Written:
        """See ``Store.write``."""
        written = await self._write(rounds.write, batch)
        self._rows_since_checkpoint += (
            len(batch.outcomes) + len(written.enqueued) + len(written.claimed)
        )
        if self._rows_since_checkpoint >= ROWS_PER_CHECKPOINT:
            self._start_checkpoint()
        return written

    # -- workers --------------------------------------------------------------------------

    async def join(self, worker: WorkerRow, on_ring: Callable[[], None]) -> None:
        """See ``Store.join``."""
        id = worker.worker
        self._locks[id] = posix.WorkerLock.hold(posix.worker_file(self._folder, id))
        bell = self._doorbells[id] = Doorbell.open(on_ring)
        await self._write(members.join, worker._replace(doorbell=bell.address if bell else None))

    def ring(self) -> None:
        """See ``Store.ring``."""
        for address in self._bells:
            ring(address)

    async def leave(self, worker: int, *, now: int) -> None:
        """See ``Store.leave``."""
        await self._write(members.leave, worker, now)
        bell = self._doorbells.pop(worker, None)
        if bell is not None:
            bell.close()
        lock = self._locks.pop(worker, None)
        if lock is not None:
            lock.release()

    async def beat(self, worker: int, *, now: int) -> None:
        """See ``Store.beat``."""
        await self._write(members.beat, worker, now)

    async def workers(self) -> Sequence[WorkerRow]:
        """See ``Store.workers``."""
        rows = await self._read(members.rows)
        self._bells = [
            row.doorbell for row in rows if row.doorbell and row.worker not in self._locks
        ]
        return rows

    async def recover(
        self, *, now: int, max_attempts: Mapping[str, int | None], thorough: bool
    ) -> Recovered:
        """See ``Store.recover``.

        The cheap look is one listing of the folder and a try at each lock in it; the thorough one also asks for
        rows whose file is gone.
        """
        lock_files = posix.worker_files(self._folder)
        found: list[int] = []
        requeued = 0
        buried: list[str] = []
        for worker, path in lock_files.items():
            if worker in self._locks:
                continue
            taken = posix.take_if_dead(path)
            if isinstance(taken, str):
                continue
            try:
                jobs = await self._write(members.take_jobs, worker, now, max_attempts)
                if jobs is not None:
                    found.append(worker)
                    requeued += jobs.requeued
                    buried.extend(jobs.buried)
                elif now - taken.changed_at < ORPHAN_FILE_AGE_US:
                    # A worker that has its lock but not yet its row, killed in between; or one about to lock.
                    continue
                taken.remove()
            finally:
                taken.close()
        if thorough:
            for worker in await self._missing_for_long(set(lock_files), now):
                jobs = await self._write(members.take_jobs, worker, now, max_attempts)
                if jobs is not None:
                    found.append(worker)
                    requeued += jobs.requeued
                    buried.extend(jobs.buried)
        return Recovered(found, requeued, buried)

    async def _missing_for_long(self, files: set[int], now: int) -> Sequence[int]:
        """Return workers whose row has had no lock file for long enough: they cannot prove that they live."""
        gone = {row.worker for row in await self.workers()} - files - set(self._locks)
        self._missing_since = {worker: self._missing_since.get(worker, now) for worker in gone}
        return [
            worker
            for worker, since in self._missing_since.items()
            if now - since >= MISSING_FILE_IS_DEAD_US
        ]

    # -- one job ------------------------------------------------------------------------------

    async def get(self, id: str) -> JobRow | None:
        """See ``Store.get``."""
        return await self._read(reads.get, id)

    async def attempts(self, seq: int) -> Sequence[AttemptRow]:
        """See ``Store.attempts``."""
        return await self._read(reads.attempts, seq)

    async def cancel(self, id: str, *, now: int) -> JobRow | None:
        """See ``Store.cancel``."""
        return await self._write(_cancel, id, now)

    async def cancel_requests(self, worker: int) -> Sequence[tuple[int, int]]:
        """See ``Store.cancel_requests``."""
        return await self._read(_cancel_requests, worker)

    # -- lists -----------------------------------------------------------------------------------

    async def jobs(self, where: Filter, *, before: int | None, limit: int) -> Page:
        """See ``Store.jobs``."""
        return await self._read(reads.jobs, where, before, limit)

    async def dead_letters(self, where: Filter, *, before: int | None, limit: int) -> Page:
        """See ``Store.dead_letters``."""
        return await self._read(reads.dead_letters, where, before, limit)

    async def count_dead_letters(self, where: Filter, *, cap: int) -> int:
        """See ``Store.count_dead_letters``."""
        return await self._read(reads.count_dead_letters, where, cap)

    async def queues(self) -> Sequence[QueueStats]:
        """See ``Store.queues``."""
        return await self._read(reads.queues)

    async def waiting_tasks(self) -> Sequence[tuple[str, str, int]]:
        """See ``Store.waiting_tasks``."""
        return await self._read(reads.waiting_tasks)

    # -- dead letters ------------------------------------------------------------------------------

    async def replay(self, id: str, *, now: int) -> Enqueued:
        """See ``Store.replay``."""
        return await self._write(letters.replay, id, now)

    async def replay_edited(self, id: str, job: Enqueue) -> Enqueued:
        """See ``Store.replay_edited``."""
        return await self._write(letters.replay_edited, id, job)

    async def replay_all(
        self, where: Filter, *, before: int | None, now: int, limit: int
    ) -> Replayed:
        """See ``Store.replay_all``."""
        return await self._write(letters.replay_all, where, before, now, limit)

    async def delete_dead_letter(self, id: str) -> bool:
        """See ``Store.delete_dead_letter``."""
        return await self._write(letters.delete, id)

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
            letters.bury_waiting, queue, task, due_before, reason, error, now, limit
        )

    # -- queues and upkeep ----------------------------------------------------------------------------

    async def pause(self, queue: str, *, now: int) -> None:
        """See ``Store.pause``."""
        await self._write(_pause, queue, now)

    async def resume(self, queue: str) -> None:
        """See ``Store.resume``."""
        await self._write(_resume, queue)

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
        surplus = await self._read(upkeep.surplus_before, keep_finished)
        return await self._write(
            upkeep.prune, finished_before, by_task, died_before, surplus, limit
        )

    async def upkeep(self) -> None:
        """See ``Store.upkeep``."""
        if self._identity is not None:
            self._identity.check()
        now_s = asyncio.get_running_loop().time()
        if now_s - self._checkpointed_at >= CHECKPOINT_EVERY_S and self._log_moved():
            self._start_checkpoint()

    # -- the checkpoint -----------------------------------------------------------------------------------

    def _log_moved(self) -> bool:
        """Return whether anybody has written since the last checkpoint, as the log's own stat tells."""
        try:
            stat = os.stat(f"{self.path}-wal")
        except FileNotFoundError:
            return False
        seen, self._log_seen = self._log_seen, (stat.st_mtime_ns, stat.st_size)
        return self._log_seen != seen

    def _start_checkpoint(self) -> None:
        """Move the log into the file, in the background, if this process is the one elected to."""
        self._rows_since_checkpoint = 0
        if self._checkpointing is not None and not self._checkpointing.done():
            return
        self._checkpointed_at = asyncio.get_running_loop().time()
        if self._checkpointer is None:
            self._checkpointer = posix.WorkerLock.try_hold(self._folder / "checkpoint.lock")
        if self._checkpointer is not None:
            self._checkpointing = asyncio.create_task(
                self._checkpoint(), name="jobrunner-checkpoint"
            )

    async def _checkpoint(self) -> None:
        try:
            if self._writer is not None:
                await self._writer.run(self._run_checkpoint)
        except Exception:
            # The log only grows until the next try; what it holds is safe where it is.
            logger.warning(
                "the checkpoint of %s failed; it is tried again", self.path, exc_info=True
            )

    def _run_checkpoint(self, conn: sqlite3.Connection) -> None:
        turnstile = self._turnstile
        assert turnstile is not None  # noqa: S101 - open as long as the writer is
        turnstile.acquire(TURNSTILE_TIMEOUT_S)
        try:
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            turnstile.release()


def _check_library() -> None:
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        wanted = ".".join(map(str, MINIMUM_SQLITE))
        raise StoreUnsupported(
            f"this Python's SQLite is {sqlite3.sqlite_version}, jobrunner needs {wanted}"
        )


def _cancel(conn: sqlite3.Connection, id: str, now: int) -> JobRow | None:
    row = reads.get(conn, id)
    if row is not None:
        conn.execute(
            "UPDATE jobrunner_jobs SET state = 'cancelled', finished_at = ?"
            " WHERE seq = ? AND state IN ('scheduled', 'queued', 'blocked')",
            (now, row.seq),
        )
        conn.execute(
            "UPDATE jobrunner_jobs SET cancel_requested = 1 WHERE seq = ? AND state = 'running'",
            (row.seq,),
        )
    return row


def _cancel_requests(conn: sqlite3.Connection, worker: int) -> Sequence[tuple[int, int]]:
    return conn.execute(rounds.CANCEL_REQUESTS, (worker,)).fetchall()


def _pause(conn: sqlite3.Connection, queue: str, now: int) -> None:
    conn.execute(
        "INSERT INTO jobrunner_paused_queues VALUES (?, ?) ON CONFLICT (queue) DO NOTHING",
        (queue, now),
    )


def _resume(conn: sqlite3.Connection, queue: str) -> None:
    conn.execute("DELETE FROM jobrunner_paused_queues WHERE queue = ?", (queue,))
