"""Notifies waiters for results and the user's hooks when jobs end or are retried.

This happens in this process, after the commit.  A notification is lost if the process dies before it, and a hook that
fails has no effect on the job.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any, Final, Literal

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.logs import log_of
from jobrunner.core.model import Cancelled, Dead, Outcome, RetryAt, Returned, Succeeded
from jobrunner.core.tracing import Tracing
from jobrunner.worker.around_attempt import Around
from jobrunner.worker.grace import Grace
from jobrunner.worker.watches import Waiters, Watches

logger = log_of("jobrunner")

EventName = Literal["succeeded", "retry", "dead"]
Hook = Callable[[Any], Awaitable[None] | None]

MOST_WAITING: Final = 1_000
"""The most events that wait for slow hooks; further ones are dropped, with a log line."""


class Hooks:
    """The hooks of a runner, by event."""

    def __init__(self) -> None:
        self._hooks: dict[EventName, list[Hook]] = {"succeeded": [], "retry": [], "dead": []}
        self.around: list[Around] = []
        """The hooks around each attempt, in the order in which they were added."""
        self.tracing: Tracing | None = None

    def add(self, event: EventName, hook: Hook) -> None:
        """Register a hook for an event.

        Raises:
            ConfigurationError: The hook is not callable.
        """
        if not callable(hook):
            raise ConfigurationError(f"on_{event}() takes a function, not {hook!r}")
        self._hooks[event].append(hook)

    def of(self, event: EventName) -> list[Hook]:
        """Return the hooks of an event, in the order in which they were added."""
        return self._hooks[event]


class Events:
    """Delivers the events of one open runner to waiters and hooks.

    Args:
        hooks: The registered hooks.
        load: Called with the event and the job's id; returns the job or dead letter for the hook, None if it is gone.
        watches: The jobs whose changes are watched.
    """

    def __init__(
        self,
        hooks: Hooks,
        load: Callable[[EventName, str], Awaitable[object | None]],
        watches: Watches,
    ) -> None:
        self._hooks = hooks
        self._load = load
        self.ends = Waiters()
        """The callers that wait for the end of a job."""
        self.watches = watches
        self._queue: asyncio.Queue[tuple[EventName, str]] = asyncio.Queue(MOST_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._context = copy_context()
        self._dropped = 0

    @property
    def tracing(self) -> Tracing | None:
        """Traces jobs and attempts; None if the application does not."""
        return self._hooks.tracing

    def start(self) -> None:
        """Run hooks in copies of the current context, not of the first event's."""
        self._context = copy_context()

    def has_listeners(self, event: Literal["succeeded", "dead"]) -> bool:
        """Return whether a waiter or a hook is notified of an event; asked once for all outcomes of a round."""
        return bool(self.ends or self.watches or self._hooks.of(event))

    def notify_outcome(self, outcome: Outcome) -> None:
        """Notify waiters and hooks of a committed outcome."""
        match outcome:
            case Succeeded() | Returned():
                self.notify("succeeded", outcome.job.id)
            case Dead():
                self.notify("dead", outcome.job.id)
            case RetryAt():
                if self._hooks.of("retry"):
                    self._put("retry", outcome.job.id)
            case Cancelled():
                self.ends.wake(outcome.job.id)
        if self.watches:
            self.watches.changed((outcome.job.id,))

    def notify(self, event: Literal["succeeded", "dead"], id: str) -> None:
        """Notify waiters and hooks that a job has ended."""
        if self.ends:
            self.ends.wake(id)
        if self._hooks.of(event):
            self._put(event, id)

    def wake(self, id: str) -> None:
        """Wake those that wait for a job which an operator has ended."""
        self.ends.wake(id)
        self.watches.changed((id,))

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
                        # One task per hook, so that its changes of context variables do not reach the next hook.
                        await asyncio.create_task(_call(event, hook, loaded))
            except Exception:
                logger.exception("job %s is %s, but its hooks could not be called", id, event)
            finally:
                self._queue.task_done()

    async def delivered(self) -> None:
        """Wait until the hooks of all events so far have been called."""
        await self._queue.join()

    async def close(self, grace: Grace) -> None:
        """Give hooks the grace to finish the waiting events; then drop the rest."""
        if self._task is not None:
            try:
                async with grace.limit():
                    await self._queue.join()
            except TimeoutError:
                logger.error("hooks did not finish in %g s and were left", grace.seconds)
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self.ends.wake_all()
        self.watches.end()


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
            raise  # the runner closes; any other cancellation comes from the hook itself
        logger.exception(
            "the on_%s hook %s failed; the job is not affected", event, hook, like=(event, id(hook))
        )
