"""Runs ``def`` tasks in daemon threads, one per slot.

The standard library's pool joins its threads when the interpreter ends, so a task that hangs would keep the process
alive for ever.  A thread cannot be killed; a daemon thread can be left behind.
"""

import asyncio
import concurrent.futures.thread
import contextvars
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType
from typing import Any

from jobrunner.core.logs import log_of

logger = log_of("jobrunner")

_Call = tuple[
    asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any], contextvars.Context
]


class Threads:
    """A pool of at most ``size`` daemon threads, which start when needed."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._started = 0
        self._busy = 0

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run the function in a thread, in a copy of the caller's context.

        Returns:
            A future on the running loop; cancelling it does not stop the thread.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._busy += 1
        future.add_done_callback(self._count_down)
        if self._started < min(self._busy, self._size):
            self._started += 1
            threading.Thread(
                target=_work, args=(self._calls,), name=f"jobrunner-{self._started}", daemon=True
            ).start()
        self._calls.put((loop, future, function, contextvars.copy_context()))
        return future

    def _count_down(self, _: asyncio.Future[Any]) -> None:
        self._busy -= 1

    def close(self) -> None:
        """Let each thread end after its current call; does not wait."""
        for _ in range(self._started):
            self._calls.put(None)
        self._started = 0


def _work(calls: SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        loop, future, function, context = call
        answer: Callable[[], None]
        try:
            result = context.run(function)
        except BaseException as error:  # noqa: BLE001 - the caller gets it through the future
            answer = _Answer(future, None, error)
        else:
            answer = _Answer(future, result, None)
        try:
            loop.call_soon_threadsafe(answer)
        except RuntimeError:
            # The loop is closed: the process shuts down, and nobody waits for this call.
            return
        del call, loop, future, function, context, answer


def warn_of_those_at_work() -> None:
    """Log the threads for which the interpreter will wait at its end."""
    if busy := at_work():
        logger.warning(
            "these threads go on after the shutdown: %s. The interpreter waits for their end, unless `jobrunner serve`"
            " or `jobrunner worker` ends the process; give their calls a time-out of their own",
            ", ".join(busy),
        )


def at_work() -> list[str]:
    """Return the busy threads of executors (``asyncio.to_thread``), each with its function and line."""
    pool = concurrent.futures.thread.__file__
    frames = sys._current_frames()  # noqa: SLF001 - documented, for this
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        call: FrameType | None = None
        while frame is not None and frame.f_code.co_filename != pool:
            call, frame = frame, frame.f_back
        if frame is not None and call is not None:
            code = call.f_code
            found.append(
                f"{thread.name} in {code.co_qualname} ({code.co_filename}:{call.f_lineno})"
            )
    return found


class _Answer:
    """Sets the result of a thread's call on its future, on the event loop."""

    __slots__ = ("_error", "_future", "_result")

    def __init__(
        self, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self._future = future
        self._result = result
        self._error = error

    def __call__(self) -> None:
        if self._future.done():
            return
        if self._error is None:
            self._future.set_result(self._result)
        elif isinstance(self._error, (StopIteration, GeneratorExit)):
            # A future refuses StopIteration, because in a generator it would be taken for its end. GeneratorExit would
            # close the waiting coroutine instead of being raised in it.
            wrapped = RuntimeError(f"the task raised {self._error!r}")
            wrapped.__cause__ = self._error
            self._future.set_exception(wrapped)
        else:
            self._future.set_exception(self._error)
