"""Tasks book two steps, which may be booked twice, with an effect between them that shows a second attempt."""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextvars import Context
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from jobrunner import JobRunner
from jobrunner.sqlalchemy import attach

CLAIM = ["before the commit of the claim", "after the commit of the claim"]
COMMIT = ["before the commit of a transaction", "after the commit of a transaction"]
ENQUEUE = ["before the commit of an enqueue", "after the commit of an enqueue"]
END = ["before the commit of the end of the attempt", "after the commit of the end of the attempt"]

BOOK = "INSERT OR IGNORE INTO steps VALUES (:job, :step)"


class Shop:
    """The file and the engines of the tasks, and the effects outside of their transactions."""

    def __init__(self, jobs: JobRunner, path: Path) -> None:
        self.jobs = jobs
        self.path = path
        self.between: list[str] = []
        """The ids of the jobs at the effect between their two commits."""
        self.lasts: list[str] = []
        """The notes of ``finally`` and ``except`` blocks."""
        self.contexts: list[Context] = []
        """The contexts of the attempts."""
        small = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 1}
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}", **small)
        self.blocking = create_engine(f"sqlite:///{path}", **small)
        attach(self.engine)
        attach(self.blocking)

    def forget(self) -> None:
        """Forget the effects."""
        self.between.clear()
        self.lasts.clear()
        self.contexts.clear()

    def booked(self) -> list[int]:
        """Return the committed steps."""
        with contextlib.closing(sqlite3.connect(self.path)) as conn:
            return [step for (step,) in conn.execute("SELECT step FROM steps ORDER BY step")]

    @contextlib.contextmanager
    def noted(self, id: str) -> Iterator[None]:
        """Note the end of a block, and the error that ends it."""
        try:
            yield
        except BaseException as error:
            self.lasts.append(repr(error))
            raise
        finally:
            self.lasts.append(id)


opened: list[Shop] = []
"""The shop of the running test."""
