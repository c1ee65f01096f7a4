"""Opens a store for one command, with a queue and without a running worker.

A command must not recover jobs: without the application's tasks it does not know whether a job of a dead process may
run again.
"""

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import FrameType
from typing import TypeVar

import click

from jobrunner.cli.location import Location
from jobrunner.cli.target import load_runner
from jobrunner.core.errors import ConfigurationError
from jobrunner.core.redaction import Redaction
from jobrunner.queue.open import open_queue
from jobrunner.queue.queue import JobQueue
from jobrunner.runner.shutdown import SIGNALS, without_echo
from jobrunner.store.committer import Committer
from jobrunner.store.open import location_of, open_store
from jobrunner.store.protocol import FileStore, Store
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.events import Events, Hooks
from jobrunner.worker.grace import Grace
from jobrunner.worker.settings import Settings
from jobrunner.worker.watches import Watches
from jobrunner.worker.worker import Worker

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class StoreSession:
    """An open store and its queue."""

    store: Store
    location: str
    """The path of its file, or its URL without user and password."""
    queue: JobQueue
    tasks: Mapping[str, TaskSpec] | None
    """The tasks of the application; None if the command was given only a store."""
    queues: frozenset[str]
    """Every known queue: declared, served by a worker, paused, or with jobs in it."""
    committer: Committer
    redaction: Redaction
    """Hides sensitive arguments and results; a command that was given only a store knows the default names."""

    def file(self, instead: str) -> FileStore:
        """Return the store if it is one in a file.

        Args:
            instead: What to do with another store, in the imperative.

        Raises:
            ConfigurationError: It is not.
        """
        if not isinstance(self.store, FileStore):
            raise ConfigurationError(f"this command is for SQLite files; {instead}")
        return self.store

    @asynccontextmanager
    async def enqueuing(self) -> AsyncIterator[None]:
        """Run rounds inside the block, which store jobs and claim none; once in a session."""
        self.committer.start()
        try:
            yield
        finally:
            await self.committer.close()


def run_in_session(location: Location, command: Callable[[StoreSession], Awaitable[T]]) -> T:
    """Open the store, run a command on it, and close it.

    SIGINT and SIGTERM cancel the command and close the store. A second signal ends the process at once, even during a
    write of SQLite; this is as safe as ``kill -9``.
    """
    signals: list[int] = []

    async def run() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: this is a coroutine

        def on_signal(number: int, frame: FrameType | None) -> None:
            if signals:
                os._exit(128 + number)
            signals.append(number)

        def break_off() -> None:
            if signals:  # empty if the signal came during a question, which has its own handlers
                task.cancel()

        for number in SIGNALS:
            # The loop's handler wakes the loop even if the kernel delivers the signal to another thread. Python's
            # handler runs at once, even during the import of an application, when the loop does not run.
            asyncio.get_running_loop().add_signal_handler(number, break_off)
            signal.signal(number, without_echo(on_signal))
        async with _opened(location) as session:
            return await command(session)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(128 + signals[0]) from None


@asynccontextmanager
async def _opened(location: Location) -> AsyncIterator[StoreSession]:
    runner = None if location.target is None else load_runner(location.target)
    named = location.store
    if named is None:
        assert runner is not None  # noqa: S101 - a location has one of the two
        named = runner.settings.store
    settings = Settings.make(named) if runner is None else runner.settings
    tasks = None if runner is None else {name: task.spec for name, task in runner.tasks.items()}
    store = await open_store(named, durability=settings.durability, must_exist=True)
    try:
        yield await _session_on(
            store,
            location_of(named),
            settings,
            tasks,
            set() if runner is None else set(settings.queues),
        )
    finally:
        await store.close()


async def _session_on(
    store: Store,
    location: str,
    settings: Settings,
    tasks: Mapping[str, TaskSpec] | None,
    queues: set[str],
) -> StoreSession:
    # Do not start the worker: it would recover jobs. Only a command that enqueues starts the committer.
    committer = Committer(store)
    events = Events(Hooks(), _nothing, Watches(store.workers.notify_watchers))
    worker = Worker(
        store,
        committer,
        specs=tasks or {},
        slots={},
        schedules={},
        settings=settings,
        events=events,
        work=False,
        grace=Grace(0),
        around=AttemptScope(),
    )
    # list() also reads the addresses of the doorbells, which a change rings.
    served = {name for row in await store.workers.list() for name in row.queues}
    known = frozenset(queues | served | {one.name for one in await store.jobs.queues()})
    queue = open_queue(
        store,
        committer,
        tasks=tasks,
        queues=known,
        events=events,
        worker=worker,
        timezone=settings.timezone,
    )
    return StoreSession(store, location, queue, tasks, known, committer, settings.redact)


async def _nothing(*_: object) -> None:
    """Ignore an event: commands call no hooks."""
