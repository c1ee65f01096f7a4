"""Notifies waiters for a result and the user's hooks of what happens to jobs.

A courtesy of this process, after the commit: it may be missed when the process dies, and a failing hook harms no job.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, Literal

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.logs import log_of
from jobrunner.core.model import Cancelled, Dead, Outcome, RetryAt, Returned, Succeeded
from jobrunner.worker.around_attempt import Around
from jobrunner.worker.grace import Grace

logger = log_of("jobrunner")

EventName = Literal["succeeded", "retry", "dead"]
Hook = Callable[[Any], Awaitable[None] | None]

MOST_WAITING: Final = 1_000
"""Events that wait for slow hooks; past that the newest are dropped, with a log line."""


class Hooks:
    """The functions that a runner's user wants called, by event."""

    def __init__(self) -> None:
        self._hooks: dict[EventName, list[Hook]] = {"succeeded": [], "retry": [], "dead": []}
        self.around: list[Around] = []
        """Those around each attempt, in the order in which they were added."""

    def add(self, event: EventName, hook: Hook) -> None:
        """Call ``hook`` at every such event from now on.

        Raises:
            ConfigurationError: it cannot be called.
        """
        if not callable(hook):
            raise ConfigurationError(f"on_{event}() takes a function, not {hook!r}")
        self._hooks[event].append(hook)

    def of(self, event: EventName) -> list[Hook]:
        """Return the hooks of an event, in the order in which they were added."""
        return self._hooks[event]


class Events:
    """The events of one open runner."""

    def __init__(
        self, hooks: Hooks, load: Callable[[EventName, str], Awaitable[object | None]]
    ) -> None:
        """``load(event, job id)`` reads the job or dead letter for a hook, None if it has gone meanwhile."""
        self._hooks = hooks
        self._load = load
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._queue: asyncio.Queue[tuple[EventName, str]] = asyncio.Queue(MOST_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._context = copy_context()
        self._dropped = 0

    def start(self) -> None:
        """Run hooks in copies of the present context, not of the one in which the first event comes."""
        self._context = copy_context()

    def notify_outcome(self, outcome: Outcome) -> None:
        """Notify waiters and hooks of an outcome that has been committed."""
        match outcome:
            case Succeeded() | Returned():
                self.notify("succeeded", outcome.job.id)
            case Dead():
                self.notify("dead", outcome.job.id)
            case RetryAt():
                if self._hooks.of("retry"):
                    self._put("retry", outcome.job.id)
            case Cancelled():
                self.wake(outcome.job.id)

    def notify(self, event: Literal["succeeded", "dead"], id: str) -> None:
        """Notify waiters and hooks that a job has come to its end."""
        if self._waiters:
            self.wake(id)
        if self._hooks.of(event):
            self._put(event, id)

    def wake(self, id: str) -> None:
        """Wake the waiters for a job's result."""
        for waiter in self._waiters.pop(id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def wait_for(self, id: str) -> asyncio.Future[None]:
        """Return a future that is done once this process learns that the job has come to its end."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(id, set()).add(waiter)
        waiter.add_done_callback(lambda done: self._forget(id, done))
        return waiter

    def _forget(self, id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[id]

    # -- hooks ------------------------------------------------------------------

    def _put(self, event: EventName, id: str) -> None:
        try:
            self._queue.put_nowait((event, id))
        except asyncio.QueueFull:
            self._dropped += 1
            if self._dropped & (self._dropped - 1) == 0:
                logger.error("hooks are too slow: %d events have been dropped", self._dropped)
            return
        if self._task is None:
            self._task = asyncio.create_task(
                self._run_hooks(), name="jobrunner-hooks", context=self._context.copy()
            )

    async def _run_hooks(self) -> None:
        while True:
            event, id = await self._queue.get()
            try:
                loaded = await self._load(event, id)
                if loaded is not None:
                    for hook in self._hooks.of(event):
                        # A task each: what one sets in its context variables is not for the next.
                        await asyncio.create_task(_call(event, hook, loaded))
            except Exception:
                logger.exception("hooks could not be told that job %s is %s", id, event)
            finally:
                self._queue.task_done()

    async def close(self, grace: Grace) -> None:
        """Let hooks finish the events so far within the grace; then drop the rest."""
        if self._task is not None:
            try:
                async with grace.limit():
                    await self._queue.join()
            except TimeoutError:
                logger.error("hooks did not finish in %g s and were left", grace.seconds)
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        for id in list(self._waiters):
            self.wake(id)


async def _call(event: EventName, hook: Hook, loaded: object) -> None:
    try:
        answer = hook(loaded)
        if inspect.isawaitable(answer):
            await answer
    except GeneratorExit:
        raise
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # the runner closes; any other cancel is the hook's own
        logger.exception(
            "the on_%s hook %s failed; the job is not affected", event, hook, like=(event, id(hook))
        )
