"""Makes a new store, opens the same store again, and kills a worker, for the suite.

To test another store, add a class here.
"""

import asyncio
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import asyncpg

from jobrunner.store.postgres.sql import followups as postgres_followups
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.protocol import Recovered, Store
from jobrunner.store.sqlite import SqliteStore
from jobrunner.store.sqlite.sql import followups
from tests.support import postgres
from tests.support.factories import NOW, WORKER, claim, ignore, worker_row
from tests.support.postgres import Databases


class Rig(ABC):
    """A store under test, and what can be done to it from outside."""

    store: Store
    url: str
    """By which another process opens the same store."""
    followups: ClassVar[Any]
    """The module of the store that names the size of a slice."""

    async def open(self) -> None:
        """Open the store, fresh or as it was left."""
        self.store = store_at(self.url)
        await self.store.open()

    async def close(self) -> None:
        """Close the store; what it holds stays."""
        await self.store.close()

    @contextmanager
    def slice(self, size: int) -> Iterator[None]:
        """Let one transaction change only so many jobs because others have ended."""
        before, self.followups.SLICE = self.followups.SLICE, size
        try:
            yield
        finally:
            self.followups.SLICE = before

    @abstractmethod
    async def until_seen_dead(self, worker: int) -> None:
        """Wait until the store can see that a worker died whose process was killed."""

    @abstractmethod
    def kill_worker(self, worker: int) -> None:
        """Let a worker of this process die in the store's eyes: its lock is free, all else is as it was."""


class SqliteRig(Rig):
    """A file in the test's own directory."""

    followups: ClassVar[Any] = followups
    _blank: ClassVar[bytes | None] = None
    """A store without jobs: what a migration writes takes longer than most tests."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "jobs.db"
        self.url = f"sqlite:///{self._path}"

    async def open(self) -> None:
        if not self._path.exists():
            if self._blank is None:
                await super().open()
                await self.close()
                type(self)._blank = self._path.read_bytes()
            self._path.write_bytes(self._blank or b"")
        await super().open()

    def kill_worker(self, worker: int) -> None:
        assert isinstance(self.store, SqliteStore)
        self.store.workers._locks.pop(worker).abandon()
        bell = self.store.workers._doorbells.pop(worker)
        if bell is not None:
            bell.close()

    async def until_seen_dead(self, worker: int) -> None:
        pass  # the kernel lets go of its lock before the process is waited for


class PostgresRig(Rig):
    """A separate database, which has the tables already."""

    followups: ClassVar[Any] = postgres_followups

    def __init__(self, url: str) -> None:
        self.url = url

    def kill_worker(self, worker: int) -> None:
        assert isinstance(self.store, PostgresStore)
        workers = self.store.workers
        workers._lines.pop(worker).abandon()
        workers._bell.on_work.pop(worker)
        # The server ends the session some milliseconds after its connection; the test's loop does not turn here.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _until_free(self.url, worker)).result()

    async def until_seen_dead(self, worker: int) -> None:
        # The server hears of the end of the connection some time after the process has ended.
        await _until_free(self.url, worker)


async def _until_free(url: str, worker: int) -> None:
    """Wait until no session holds a worker's lock."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", worker)
        await connection.execute("SELECT pg_advisory_unlock($1)", worker)
    finally:
        await connection.close()


_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the directory is made with rights for its user alone

STORES: Final = ("postgres", "sqlite") if postgres.is_wanted() else ("sqlite",)

MakeRig = Callable[[], AbstractContextManager[Rig]]
"""Makes a fresh store of a kind, not yet open, and removes it at the end."""


def maker(kind: str, databases: Callable[[], Databases]) -> MakeRig:
    """Return what makes stores of a kind of ``STORES``; the databases are only asked for if they are needed."""
    if kind == "postgres":
        return partial(_on_postgres, databases())
    return _on_sqlite


@contextmanager
def _on_postgres(databases: Databases) -> Iterator[Rig]:
    with databases.new() as url:
        yield PostgresRig(url)


@contextmanager
def _on_sqlite() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        yield SqliteRig(Path(directory))


def store_at(url: str) -> Store:
    """Return the store, not yet open, that the URL names."""
    if url.startswith("postgresql:"):
        return PostgresStore(url)
    # What is asked here does not hang on the disk's sync, and hundreds of tests would wait for it.
    return SqliteStore(url, durability="normal")


async def die_under(
    rig: Rig, tasks: Mapping[str, int | None], *, worker: int = WORKER
) -> Recovered:
    """Let a worker claim all there is and die, and recover its jobs."""
    await rig.store.workers.join(worker_row(worker, tasks=tasks), ignore)
    await claim(rig.store, worker=worker)
    rig.kill_worker(worker)
    return await rig.store.workers.recover(now=NOW, thorough=False)
