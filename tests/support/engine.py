"""The engine as its tests hold it: bounded waits, tasks that wait for a signal, the parts of an open runner."""

import asyncio
import math
import os
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from jobrunner import Attempt, DeadLetter, Job, JobRunner
from jobrunner.core.health import Health
from jobrunner.core.model import Claimed, JobRow
from jobrunner.queue.queue import enqueuer_of
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.store.sqlite.store import SqliteStore
from jobrunner.worker.producer import Producer
from jobrunner.worker.supervisor import Supervisor
from jobrunner.worker.worker import Worker

T = TypeVar("T")

PATIENCE_S = 30.0
"""The seconds that a test waits for an event; usually it comes at once, else the test fails."""


async def soon(what: Awaitable[T]) -> T:
    """Wait for something that must come, but not for ever."""
    return await asyncio.wait_for(what, PATIENCE_S)


# -- tasks that wait ------------------------------------------------------------------------------------


class Gate:
    """A place in ``async`` tasks where each says that it has come, and waits to be let on."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        """The largest number that was inside at once."""
        self.arrivals: list[Any] = []
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._passes = asyncio.Semaphore(0)
        self._opened = asyncio.Event()

    async def enter(self, who: object = None) -> None:
        """Say who has come, and wait to be let on."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.arrivals.append(who)
        self._came.put_nowait(who)
        try:
            if not self._opened.is_set():
                await self._passes.acquire()
        finally:
            self.inside -= 1

    async def arrival(self) -> Any:
        """Wait for the next one to come; return who it is."""
        return await soon(self._came.get())

    def let(self, number: int = 1) -> None:
        """Let some of those on who wait."""
        for _ in range(number):
            self._passes.release()

    def open(self) -> None:
        """Let everybody on, also those who come later."""
        self._opened.set()
        self.let(self.inside)


class ThreadGate:
    """The same for ``def`` tasks; made on the loop, entered in threads."""

    def __init__(self) -> None:
        self.arrivals: list[Any] = []
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._open = threading.Event()

    def enter(self, who: object = None) -> None:
        """Say who has come, and block until the gate is open."""
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.arrivals.append(who)
        self._loop.call_soon_threadsafe(self._came.put_nowait, who)
        assert self._open.wait(PATIENCE_S), "nobody has opened the gate"
        with self._lock:
            self.inside -= 1

    async def arrival(self) -> Any:
        """Wait for the next one to come; return who it is."""
        return await soon(self._came.get())

    def open(self) -> None:
        """Let everybody on."""
        self._open.set()


class Heard:
    """The events that a runner's hooks receive, for a test to wait for."""

    def __init__(self, jobs: JobRunner) -> None:
        self.dead: asyncio.Queue[DeadLetter] = asyncio.Queue()
        self.retries: asyncio.Queue[Job[Any]] = asyncio.Queue()
        self.succeeded: asyncio.Queue[Job[Any]] = asyncio.Queue()
        jobs.on_dead(self.dead.put_nowait)
        jobs.on_retry(self.retries.put_nowait)
        jobs.on_succeeded(self.succeeded.put_nowait)


# -- the parts of an open runner --------------------------------------------------------------------------


def worker_of(jobs: JobRunner) -> Worker:
    """Return the worker of an open runner."""
    assert jobs._open is not None
    worker = enqueuer_of(jobs._open).parts.worker
    assert isinstance(worker, Worker)
    return worker


def supervisor_of(jobs: JobRunner) -> Supervisor:
    """Return the supervisor of an open runner that works."""
    supervisor = worker_of(jobs)._supervisor
    assert supervisor is not None
    return supervisor


def producer_of(jobs: JobRunner) -> Producer:
    """Return the producer of an open runner that works."""
    producer = worker_of(jobs).producer
    assert producer is not None
    return producer


def make_all_due(jobs: JobRunner) -> None:
    """Let every chore of an open runner be due at once, the thorough recovery too."""
    maintenance = worker_of(jobs).maintenance
    maintenance.recovery.thorough.end()
    make_due(jobs, *maintenance.chores.by_name)


def make_due(jobs: JobRunner, *chores: str) -> None:
    """Let chores of an open runner be due at once."""
    for name in chores:
        worker_of(jobs).maintenance.chores.by_name[name].period.end()


def suspend(jobs: JobRunner, *chores: str) -> None:
    """Let chores of an open runner never be due."""
    for name in chores:
        worker_of(jobs).maintenance.chores.by_name[name].period._begun_s = math.inf


def committer_of(jobs: JobRunner) -> Committer:
    """Return the committer of an open runner."""
    return worker_of(jobs)._committer


def store_of(jobs: JobRunner) -> Store:
    """Return the store of an open runner."""
    return worker_of(jobs)._store


async def on_writer(jobs: JobRunner, function: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function on the connection that writes, without a transaction of the store's."""
    store = store_of(jobs)
    assert isinstance(store, SqliteStore)
    assert store._access._writer is not None
    return await store._access._writer.read(function)


def _stands(pid: int) -> bool:
    """Return whether each thread of a process is stopped."""
    states = (
        one.read_text().rpartition(")")[2].split()[0]
        for one in Path(f"/proc/{pid}/task").glob("*/stat")
    )
    return all(state == "T" for state in states)


async def stop_between_writes(jobs: JobRunner, pid: int) -> None:
    """Stop another process at an instant at which it does not keep everybody from writing."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        # The signal is only on its way until then: a thread of the process might still begin to write.
        while not _stands(pid):
            pass
        try:
            async with asyncio.timeout(2):
                await store_of(jobs).jobs.resume("no queue")
        except TimeoutError:
            os.kill(pid, signal.SIGCONT)
            # Once it has released the lock: stopped again at once, it would stand in that write for a minute.
            await store_of(jobs).jobs.resume("no queue")
        else:
            return


async def next_round(jobs: JobRunner) -> None:
    """See a whole round through: what was claimable when this is called has been claimed when it returns."""
    if worker_of(jobs)._supervisor is not None:
        worker_of(jobs).wake()
    committer_of(jobs).wake()
    await soon(committer_of(jobs).flushed())


async def stored(jobs: JobRunner, id: str) -> JobRow:
    """Return a job as its row is."""
    row = await store_of(jobs).jobs.get(id)
    assert row is not None
    return row


async def history(jobs: JobRunner, id: str) -> tuple[Attempt, ...]:
    """Return the attempts of a job."""
    return (await jobs.get(id)).history


async def first_problem(jobs: JobRunner) -> Health:
    """Ask for the health until it names a problem."""
    while not (health := await jobs.health()).problems:
        pass
    return health


async def waiting_for(jobs: JobRunner, job: Job[T]) -> asyncio.Task[T]:
    """Return a task that waits for a job's result, and has read that the job has not ended."""
    store, has_read = store_of(jobs).jobs, asyncio.Event()
    get = store.get

    async def reading(id: str) -> JobRow | None:
        row = await get(id)
        has_read.set()
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "get", reading)
        waiting = asyncio.create_task(job.result())
        await soon(has_read.wait())
    return waiting


def claimed(**fields: Any) -> Claimed:
    """Return a claimed job that no store has."""
    given: dict[str, Any] = {
        "seq": 1,
        "lease": 1,
        "worker": 1,
        "id": "01936d2c-7a40-7c3e-9d55-6f0c1d2e3f4a",
        "task": "task",
        "queue": "default",
        "args": "{}",
        "attempt": 1,
        "started_at": 0,
        "first_started_at": 0,
        "created_at": 0,
        "run_at": 0,
        "priority": 0,
        "max_attempts": None,
        "timeout": None,
        "suspect": False,
    }
    return Claimed(**given | fields)
