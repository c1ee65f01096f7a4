"""The queue for code that is not async: threads, scripts, ``def`` routes and ``def`` tasks."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

from jobrunner.core.errors import InvalidWrite, JobRunnerError, NotRunning, WrongThread
from jobrunner.core.exports import exported
from jobrunner.core.forked import generation, is_forked
from jobrunner.core.job import CancelStatus, Job
from jobrunner.core.shield import at_once
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.store.reentrancy import in_write
from jobrunner.tasks.call import Call
from jobrunner.tasks.task import Task, session_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LOOP_CHECK_S: Final = 1.0
"""How often a waiting thread makes sure that the loop it waits for is still there."""


@exported
class SyncQueue:
    """Each call goes to the loop on which the runner is open, and blocks the calling thread until it is answered."""

    _find: Callable[[], JobQueue]
    """Returns the queue that is open now."""

    def __init__(self, queue: JobQueue) -> None:
        self._find = lambda: queue

    def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of the task; see ``JobQueue.enqueue``.

        Raises:
            WrongThread: called on an event loop's own thread.
            InvalidWrite: called in a function of ``job.write()``.
        """
        self._check_thread("enqueue(task, ...)")
        queue = self._find()
        blocking = enqueuer_of(queue).is_blocking((session_of(task),))
        return self._stored(queue.enqueue(task, *args, **kwargs), blocking)

    def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls in one transaction; see ``JobQueue.enqueue_many``."""
        self._check_thread("enqueue_many([...])")
        queue, many = self._find(), list(calls)
        blocking = enqueuer_of(queue).is_blocking(_sessions_of(many))
        return self._stored(queue.enqueue_many(many), blocking)

    def enqueue_chain(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store calls that run one after another; see ``JobQueue.enqueue_chain``."""
        self._check_thread("enqueue_chain([...])")
        queue, many = self._find(), list(calls)
        blocking = enqueuer_of(queue).is_blocking(_sessions_of(many))
        return self._stored(queue.enqueue_chain(many), blocking)

    def _stored(self, storing: Coroutine[Any, Any, T], blocking: bool) -> T:
        """Store in this thread, whose own a blocking session may be; else on the loop."""
        return at_once(storing) if blocking else self.run(storing)

    @overload
    def get(self, id: str) -> Job[Any]: ...
    @overload
    def get(self, id: str, task: Task[..., R]) -> Job[R]: ...
    def get(self, id: str, task: Task[..., R] | None = None) -> Job[Any]:
        """Return a job with its history; see ``JobQueue.get``."""
        self._check_thread("get(id)")
        return self.run(self._find().get(id) if task is None else self._find().get(id, task))

    def cancel(self, id: str) -> CancelStatus | None:
        """Cancel a job; see ``JobQueue.cancel``."""
        self._check_thread("cancel(id)")
        return self.run(self._find().cancel(id))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run any other coroutine of the library on the runner's loop: ``run(job.result(timeout=5))``.

        Raises:
            WrongThread: called on an event loop's own thread.
            NotRunning: the runner's loop has gone.
        """
        try:
            self._check_thread("...")
            loop = enqueuer_of(self._find()).parts.loop
            future: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except (JobRunnerError, RuntimeError) as error:
            coroutine.close()
            if not isinstance(error, RuntimeError):
                raise
            raise NotRunning("the runner's event loop has been closed") from error
        while True:
            try:
                return future.result(LOOP_CHECK_S)
            except TimeoutError:
                if future.done():
                    # The coroutine's own TimeoutError.
                    return future.result()
                if loop.is_closed():
                    raise NotRunning("the runner's event loop was closed meanwhile") from None

    def _check_thread(self, call: str) -> None:
        if in_write.get():
            raise InvalidWrite(
                f"sync.{call} in a function of job.write() would wait for the transaction that it runs in, and so would"
                " everybody else: enqueue in the task, or in `job.transaction()`"
            )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if enqueuer_of(self._find()).parts.loop is not running:
            verb = call.partition("(")[0].strip(".") or "run"
            raise WrongThread(
                f"sync.{call} would block this event loop, and the runner is open on another one; write"
                f" `await asyncio.to_thread(jobs.sync.{verb}, ...)` here"
            )
        raise WrongThread(
            f"sync.{call} would block this event loop, and wait for itself; write `await queue.{call}` here"
        )


class SyncRunner(SyncQueue, Generic[T]):
    """``jobs.sync``: the open queue's verbs, blocking; and a way to open the runner in a script without a loop."""

    def __init__(
        self,
        find: Callable[[], JobQueue],
        running: Callable[..., AbstractAsyncContextManager[T]],
    ) -> None:
        self._find = find
        self._running = running

    def running(self, *, work: bool | None = None) -> AbstractContextManager[T]:
        """Be open inside a ``with`` block, on a loop in a thread of its own."""
        return in_thread(self._running(work=work))


def _sessions_of(calls: Iterable[object]) -> list[object]:
    return [call.options.session for call in calls if isinstance(call, Call)]


@contextmanager
def in_thread(opening: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep an async context manager open on a loop in a thread of its own, for a script without one."""
    opened: Future[T] = Future()
    loop_ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def stay_open() -> None:
        leave = asyncio.Event()
        loop_ready.set_result((asyncio.get_running_loop(), leave))
        async with opening as value:
            opened.set_result(value)
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(stay_open())
        except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
            if not opened.done():
                opened.set_exception(error)
            else:
                closed.set_exception(error)
        else:
            closed.set_result(None)

    closed: Future[None] = Future()
    opened_in = generation()
    thread = threading.Thread(target=run, name="jobrunner-loop", daemon=True)
    thread.start()
    value = opened.result()
    try:
        yield value
    finally:
        # A child that was forked inside the block has no such thread to wait for, and nothing to close.
        if not is_forked(opened_in):
            loop, leave = loop_ready.result()
            loop.call_soon_threadsafe(leave.set)
            closed.result()
            thread.join()
