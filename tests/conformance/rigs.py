"""Makes a new store, opens the same store again, and kills a worker, for the suite.

To test another store, add a class here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from jobrunner.store.protocol import Store
from jobrunner.store.sqlite import SqliteStore


class Rig(ABC):
    """A store under test, and what can be done to it from outside."""

    store: Store
    url: str
    """By which another process opens the same store."""

    async def open(self) -> None:
        """Open the store, fresh or as it was left."""
        self.store = store_at(self.url)
        await self.store.open()

    async def close(self) -> None:
        """Close the store; what it holds stays."""
        await self.store.close()

    @abstractmethod
    def kill_worker(self, worker: int) -> None:
        """Let a worker of this process die in the store's eyes: its lock is free, all else is as it was."""


class SqliteRig(Rig):
    """A file in the test's own directory."""

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


RIGS: Final[Mapping[str, type[SqliteRig]]] = {"sqlite": SqliteRig}


def store_at(url: str) -> Store:
    """Return the store, not yet open, that the URL names."""
    # What is asked here does not hang on the disk's sync, and hundreds of tests would wait for it.
    return SqliteStore(url, durability="normal")
