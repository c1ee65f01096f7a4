"""Runs jobs in a process without a server, until a signal or a failure.

The ``RunOverrides`` of the command line take precedence over the application's settings: ``jobrunner worker`` runs the
jobs of an application whose own processes only enqueue.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

from jobrunner.core.errors import NotRunning
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.runner import shutdown
from jobrunner.tasks import current_queue


class RunOverrides(NamedTuple):
    """The options of the command line for a runner that an application's lifespan opens."""

    work: bool
    queues: Mapping[str, int | None] | None
    """The slots by name of each queue to serve, None for the runner's number; or None for all queues."""


orders: Final[ContextVar[RunOverrides | None]] = ContextVar("jobrunner.orders", default=None)


async def work_until_signal(opened: AbstractAsyncContextManager[Any]) -> None:
    """Keep a runner open until SIGINT or SIGTERM.

    Running attempts get the runner's grace to finish. A second SIGINT ends the process at once.

    Args:
        opened: A runner's ``running()``, or the lifespan of an application that opens a runner.

    Raises:
        StoreFailed: The worker has stopped for good.
        NotRunning: The lifespan has opened no runner.
    """
    signalled = asyncio.Event()

    def on_signal(number: int) -> None:
        if signalled.is_set() and number == signal.SIGINT:
            # The store survives this as it survives kill -9. A normal exit could wait for a thread.
            os._exit(128 + number)
        signalled.set()

    with shutdown.handled(shutdown.without_echo(on_signal)):
        async with opened:
            await _first_of(signalled)


async def _first_of(signalled: asyncio.Event) -> None:
    opened = [one.parts for one in current_queue.opened if isinstance(one, Enqueuer)]
    if not opened:
        raise NotRunning(
            "the application's lifespan opens no runner; write FastAPI(lifespan=jobs.lifespan), or in a lifespan of"
            " your own `async with jobs.running(app):`"
        )
    failures = [asyncio.create_task(parts.failure()) for parts in opened]
    waits = [asyncio.create_task(signalled.wait()), *failures]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for failure in failures:
            if failure.done():
                raise failure.result()
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
