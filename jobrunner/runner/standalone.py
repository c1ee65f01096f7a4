"""Runs jobs in a process without an application's server, until a signal or a failure.

The operator's ``RunOverrides`` go before what the application says of itself: ``jobrunner worker`` runs the jobs of
an application whose own processes only enqueue.
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
    """Options of the command line for a runner that an application's lifespan opens."""

    work: bool
    queues: Mapping[str, int | None] | None
    """Slots of the queues to serve, None for the runner's own number; all queues if left out."""


orders: Final[ContextVar[RunOverrides | None]] = ContextVar("jobrunner.orders", default=None)


async def work_until_signal(opened: AbstractAsyncContextManager[Any]) -> None:
    """Be open until SIGINT or SIGTERM; a second SIGINT ends the process at once.

    Attempts under way get their grace.

    Args:
        opened: a runner's ``running()``, or the lifespan of an application that opens one.

    Raises:
        StoreFailed: the worker has stopped for good.
        NotRunning: no runner is open inside.
    """
    signalled = asyncio.Event()

    def on_signal(number: int) -> None:
        if signalled.is_set() and number == signal.SIGINT:
            # As after kill -9, for which everything is made; exiting by the way could wait for a thread.
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
