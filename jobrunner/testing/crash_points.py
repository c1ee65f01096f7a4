"""Ends the life of a worker's code at a crash point.

A real process cannot be killed and its memory kept, in which a test has its fakes. So the worker dies in this process:
its tasks are never resumed, its locks are abandoned as by ``kill -9``, and its open transaction is rolled back, as
SQLite would do it.
"""

import asyncio
import ctypes
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
)
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from jobrunner.core.logs import log_of

logger = log_of("jobrunner.testing")

MOST_POINTS: Final = 200
KILLED_THREAD: Final = "killed-at-a-crash-point"
"""The name of a thread that is blocked for ever."""


@dataclass(frozen=True)
class CrashPoint:
    """A moment at which the worker of the job was killed."""

    number: int
    """1 for the first."""
    at: str
    """For example ``before the commit of the claim``."""

    def __str__(self) -> str:
        return f"crash point {self.number}, {self.at}"


class UnseenCommit(UserWarning):
    """Warns of a commit on the jobs' file that is no crash point."""


class Killed(BaseException):
    """Ends blocking code in a thread that must not be blocked.

    That is the thread of the event loop, and one for whose end the interpreter waits. ``finally`` blocks run.
    """


current_life: Final[ContextVar["Life | None"]] = ContextVar("jobrunner.testing.life", default=None)
"""The life to which the tasks of the running context belong."""


class Life:
    """The life of a worker that ends at the ``target``-th crash point.

    Every task that is made in its context belongs to it, and every thread that runs in a copy.
    """

    def __init__(self, target: int) -> None:
        self.ended = asyncio.Event()
        self.point: CrashPoint | None = None
        """The point at which it ends; None until it is reached."""
        self.job: str | None = None
        """The id of the job, once it is stored."""
        self.locks: list[AbstractAsyncContextManager[None]] = []
        """The held write locks of its transactions."""
        self.thread_locks: list[AbstractContextManager[None]] = []
        """The write locks that its threads hold."""
        self._waits: set[Future[Any]] = set()
        self._counting = threading.Lock()
        self._target = target
        self._passed = 0
        self._over = False
        self.loop = asyncio.get_running_loop()
        self._members: list[tuple[asyncio.Task[Any], Mortal]] = []
        self._last: set[asyncio.Task[Any] | None] = set()
        """The task that has reached the point, and those that roll back for it."""

    def passes(self, at: str) -> bool:
        """Count a crash point, and return whether the life ends there; only the calling task goes on."""
        with self._counting:
            if self.point is not None:
                return False
            self._passed += 1
            if self._passed < self._target:
                return False
            self.point = CrashPoint(self._passed, at)
        if self.is_on_loop():
            self._last.add(asyncio.current_task())
        return True

    def lasts(self) -> bool:
        """Return whether the running task or thread may go on."""
        if self.point is None:
            return True
        return self.is_on_loop() and not self._over and asyncio.current_task() in self._last

    def is_on_loop(self) -> bool:
        """Return whether the calling thread runs the loop of this life."""
        # As get_running_loop(), without an error to catch.
        return asyncio._get_running_loop() is self.loop  # noqa: SLF001

    async def die(self) -> None:
        """End this life after ``passes``; returns in a task that is not of this life.

        Raises:
            Killed: The task is on a loop in another thread that must not be blocked.
        """
        if not self.is_on_loop():
            self.die_in_thread(leave_open)
        for lock in list(self.locks):
            await lock.__aexit__(None, None, None)
        self.end()
        if current_life.get() is self:
            await self.loop.create_future()

    def die_in_thread(self, close: Callable[[], object]) -> NoReturn:
        """Die in blocking code: block the thread for ever, after ``close()``.

        Raises:
            Killed: The thread must not be blocked.
        """
        thread = threading.current_thread()
        if self.is_on_loop():
            self.end()
            raise Killed
        if not self._over:
            self.loop.call_soon_threadsafe(self.end)
        if not thread.daemon:
            raise Killed
        close()
        for lock in list(self.thread_locks):
            lock.__exit__(None, None, None)
        thread.name = KILLED_THREAD
        while True:
            threading.Event().wait()

    def end(self) -> None:
        """Never resume a task of this life."""
        self._over = True
        for wait in list(self._waits):
            wait.cancel()
        for task, mortal in self._members:
            if not task.done():
                mortal.keep_suspended()
                asyncio._unregister_task(task)  # noqa: SLF001 - documented, for custom implementations of tasks
                vars_of: Any = task
                vars_of._log_destroy_pending = False  # noqa: SLF001 - as asyncio.gather() does
        self.loop.call_soon_threadsafe(self.ended.set)

    def add_wait(self, future: Future[Any]) -> None:
        """Note a result for which a thread of this life waits; it is cancelled when the life ends."""
        self._waits.add(future)
        if self._over:
            # It has ended meanwhile, and did not see the future.
            future.cancel()

    def remove_wait(self, future: Future[Any]) -> None:
        """Forget a result."""
        self._waits.discard(future)

    def adopt(self, task: asyncio.Task[Any], mortal: "Mortal") -> None:
        """Note a task of this life."""
        self._members = [one for one in self._members if not one[0].done()]
        self._members.append((task, mortal))
        if self.point is not None and asyncio.current_task() in self._last:
            self._last.add(task)


def leave_open() -> None:
    """Leave a connection open that is in no transaction."""


class Mortal(Coroutine[Any, Any, Any]):
    """Steps a coroutine as long as its life lasts; then it stays suspended for ever."""

    def __init__(self, life: Life, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._life = life
        self._coroutine = coroutine
        self._kept = False

    def send(self, value: Any) -> Any:
        """Resume the coroutine, or wait for ever."""
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        """Raise an error in the coroutine, or wait for ever."""
        return self._step(self._coroutine.throw, *error)

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        if self._life.lasts():
            try:
                return step(*args)
            except Killed:
                pass
        return self._wait_for_ever()

    def close(self) -> None:
        """Close the coroutine, unless it is suspended for ever."""
        if not self._kept:
            self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._coroutine.__await__())

    def keep_suspended(self) -> None:
        """Prevent that the coroutine is ever closed, which would run its ``finally`` blocks.

        Python closes a coroutine to which nobody refers. So one reference to it is never given back.
        """
        if not self._kept:
            self._kept = True
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._coroutine))

    def _wait_for_ever(self) -> Any:
        self.keep_suspended()
        return next(iter(asyncio.get_running_loop().create_future().__await__()))


@contextmanager
def mortal_tasks() -> Iterator[None]:
    """Let tasks made inside the block belong to the life of their context.

    The loop does not learn of their async generators: it would close those of a killed attempt at its own end, and so
    run their ``finally`` blocks.
    """
    loop = asyncio.get_running_loop()
    before, hooks = loop.get_task_factory(), sys.get_asyncgen_hooks()

    def begin(generator: AsyncGenerator[Any, Any]) -> None:
        if current_life.get() is None and hooks.firstiter is not None:
            hooks.firstiter(generator)

    def make(
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,
        *,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Future[Any]:
        owner = (copy_context() if context is None else context).get(current_life)
        if owner is None:
            return asyncio.Task(coroutine, loop=loop, context=context, **kwargs)
        mortal: Any = Mortal(owner, coroutine)
        task: asyncio.Task[Any] = asyncio.Task(mortal, loop=loop, context=context, **kwargs)
        owner.adopt(task, mortal)
        return task

    loop.set_task_factory(make)
    sys.set_asyncgen_hooks(firstiter=begin)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(firstiter=hooks.firstiter)
        loop.set_task_factory(before)
