"""Offers the queue to code that is not async: threads, scripts, ``def`` routes and ``def`` tasks."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from datetime import timedelta
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from jobrunner.core.batch import Batch
from jobrunner.core.errors import InvalidWrite, JobRunnerError, NotRunning, WrongThread
from jobrunner.core.exports import exported
from jobrunner.core.forked import generation, is_forked
from jobrunner.core.job import Job
from jobrunner.core.model import OnDead
from jobrunner.core.shield import at_once
from jobrunner.queue.audit import AuditLog
from jobrunner.queue.batches import Batches
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.limits import Limits
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.queue.queues import Queues
from jobrunner.queue.schedules import Schedules
from jobrunner.store.reentrancy import in_write
from jobrunner.tasks.call import Call
from jobrunner.tasks.task import Task, session_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
V = TypeVar("V")

LOOP_CHECK_S: Final = 1.0
"""The time between two checks of a waiting thread that the runner's loop is still open."""


class Blocking(Generic[V, P, T]):
    """Makes a blocking method of an async one: ``cancel = Blocking(JobQueue.cancel)``."""

    def __init__(self, verb: Callable[Concatenate[V, P], Coroutine[Any, Any, T]]) -> None:
        text = _written(verb)

        @wraps(verb)
        def call(verbs: "BlockingVerbs[V]", *args: P.args, **kwargs: P.kwargs) -> T:
            verbs._check_thread(text)  # noqa: SLF001 - of our own class
            return verbs.run(verb(verbs._find(), *args, **kwargs))  # noqa: SLF001

        self._call = call
        self.__doc__ = verb.__doc__

    @overload
    def __get__(self, verbs: None, owner: type) -> Self: ...
    @overload
    def __get__(self, verbs: "BlockingVerbs[V]", owner: type) -> Callable[P, T]: ...
    def __get__(self, verbs: "BlockingVerbs[V] | None", owner: type) -> Self | Callable[P, T]:
        return self if verbs is None else MethodType(self._call, verbs)


def _written(verb: Callable[..., object]) -> str:
    """Return the call of a method for messages: ``cancel(id)``."""
    _, *others = inspect.signature(verb).parameters.values()
    needed = [one.name for one in others if one.default is one.empty and one.kind < one.VAR_KEYWORD]
    shown = ", ".join(needed) if needed or not others else "..."
    return f"{verb.__name__}({shown})"


class BlockingVerbs(Generic[V]):
    """Runs the methods of an async object on the runner's loop.

    Each call blocks the calling thread until it has its result.
    """

    _prefix = ""
    """The object's name after ``jobs.sync.`` in messages, with a dot at its end."""

    def __init__(self, find: Callable[[], V], find_loop: Callable[[], asyncio.AbstractEventLoop]):
        """Wrap the object that is open at the time of each call.

        Args:
            find: Returns the object that is open now.
            find_loop: Returns the loop on which it is open.
        """
        self._find = find
        self._find_loop = find_loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run another coroutine of jobrunner on the runner's loop, and return its result.

        ::

            job = jobs.sync.run(job.refresh())

        Raises:
            WrongThread: The calling thread runs an event loop, which the call would block.
            NotRunning: The runner is not open, or its loop was closed.
        """
        try:
            self._check_thread("...")
            loop = self._find_loop()
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
                    # The coroutine itself raised the TimeoutError.
                    return future.result()
                if loop.is_closed():
                    raise NotRunning("the runner's event loop was closed meanwhile") from None

    def _check_thread(self, call: str, awaited: str = "") -> None:
        """Raise if this thread must not wait.

        Args:
            call: The called method, for the error.
            awaited: The line to write on the loop itself; by default the same method of the queue.

        Raises:
            InvalidWrite: The call is in a function of ``job.write()``.
            WrongThread: The thread runs an event loop.
        """
        call = self._prefix + call
        if in_write.get():
            raise InvalidWrite(
                f"sync.{call} in a function of job.write() would wait for the transaction that it runs in, and so would"
                " everybody else: enqueue in the task, or in `job.transaction()`"
            )
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._find_loop() is not running:
            verb = call.partition("(")[0].strip(".") or "run"
            raise WrongThread(
                f"sync.{call} would block this event loop, and the runner is open on another one; write"
                f" `await asyncio.to_thread(jobs.sync.{verb}, ...)` here"
            )
        raise WrongThread(
            f"sync.{call} would block this event loop, and wait for itself; write"
            f" `await {awaited or f'queue.{call}'}` here"
        )


class SyncQueues(BlockingVerbs[Queues]):
    """Offers the methods of ``Queues``, blocking."""

    _prefix = "queues."

    pause = Blocking(Queues.pause)
    resume = Blocking(Queues.resume)
    list = Blocking(Queues.list)


class SyncLimits(BlockingVerbs[Limits]):
    """Offers the methods of ``Limits``, blocking."""

    _prefix = "limits."

    set = Blocking(Limits.set)
    reset = Blocking(Limits.reset)
    list = Blocking(Limits.list)


class SyncDeadLetters(BlockingVerbs[DeadLetters]):
    """Offers the methods of ``DeadLetters``, blocking."""

    _prefix = "dead_letters."

    count = Blocking(DeadLetters.count)
    groups = Blocking(DeadLetters.groups)
    get = Blocking(DeadLetters.get)
    replay = Blocking(DeadLetters.replay)
    replay_all = Blocking(DeadLetters.replay_all)
    delete = Blocking(DeadLetters.delete)
    delete_all = Blocking(DeadLetters.delete_all)
    list = Blocking(DeadLetters.list)


class SyncSchedules(BlockingVerbs[Schedules]):
    """Offers the methods of ``Schedules``, blocking."""

    _prefix = "schedules."

    get = Blocking(Schedules.get)
    ticks = Blocking(Schedules.ticks)
    upsert = Blocking(Schedules.upsert)
    pause = Blocking(Schedules.pause)
    resume = Blocking(Schedules.resume)
    remove = Blocking(Schedules.remove)
    run_now = Blocking(Schedules.run_now)
    list = Blocking(Schedules.list)


class SyncAuditLog(BlockingVerbs[AuditLog]):
    """Offers the methods of ``AuditLog``, blocking."""

    _prefix = "audit."

    list = Blocking(AuditLog.list)


class SyncBatches(BlockingVerbs[Batches]):
    """Offers the methods of ``Batches``, blocking."""

    _prefix = "batches."

    get = Blocking(Batches.get)
    retry = Blocking(Batches.retry)
    cancel = Blocking(Batches.cancel)
    list = Blocking(Batches.list)


@exported
class SyncQueue(BlockingVerbs[JobQueue]):
    """Offers the methods of ``JobQueue`` to code that is not async.

    A ``def`` route gets it with ``queue: SyncQueue`` of ``jobrunner.fastapi``. Threads, scripts and ``def`` tasks use
    ``jobs.sync``, which has the same methods::

        @app.post("/register")
        def register(email: str, queue: SyncQueue) -> str:
            return queue.enqueue(send_welcome_email, email).id

    Each call runs on the runner's loop, and the calling thread waits for its result. A call on the thread of an event
    loop raises ``WrongThread``; a call in a function of ``job.write()`` raises ``InvalidWrite``.
    """

    def __init__(self, queue: JobQueue) -> None:
        super().__init__(lambda: queue, lambda: enqueuer_of(queue).parts.loop)

    # The methods that are generic in a task are written out: no type checker follows them through `Blocking`.

    def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of a task as a job; see ``JobQueue.enqueue``."""
        self._check_thread("enqueue(task, ...)")
        queue = self._find()
        blocking = enqueuer_of(queue).is_blocking((session_of(task),))
        return self._stored(queue.enqueue(task, *args, **kwargs), blocking)

    def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls in one transaction; see ``JobQueue.enqueue_many``."""
        self._check_thread("enqueue_many([...])")
        queue, many = self._find(), [*calls]
        blocking = enqueuer_of(queue).is_blocking(_sessions_of(many))
        return self._stored(queue.enqueue_many(many), blocking)

    def enqueue_chain(
        self, calls: Iterable[Call[R]], *, on_dead: OnDead = "continue"
    ) -> list[Job[R]]:
        """Store calls that run one after another; see ``JobQueue.enqueue_chain``."""
        self._check_thread("enqueue_chain([...])")
        queue, many = self._find(), [*calls]
        blocking = enqueuer_of(queue).is_blocking(_sessions_of(many))
        return self._stored(queue.enqueue_chain(many, on_dead=on_dead), blocking)

    def enqueue_batch(
        self,
        calls: Iterable[Call[R]],
        *,
        then: Call[Any] | None = None,
        otherwise: Call[Any] | None = None,
        at_end: Call[Any] | None = None,
        name: str | None = None,
    ) -> Batch[R]:
        """Store calls as a batch with callbacks; see ``JobQueue.enqueue_batch``.

        The verbs of the returned batch are async: ``jobs.sync.run(batch.wait())``.
        """
        self._check_thread("enqueue_batch([...])")
        queue, many = self._find(), [*calls]
        callbacks = [call for call in (then, otherwise, at_end) if call is not None]
        blocking = enqueuer_of(queue).is_blocking(_sessions_of([*many, *callbacks]))
        storing = queue.enqueue_batch(
            many, then=then, otherwise=otherwise, at_end=at_end, name=name
        )
        return self._stored(storing, blocking)

    def _stored(self, storing: Coroutine[Any, Any, T], blocking: bool) -> T:
        """Store in this thread if its session blocks, otherwise on the loop.

        A blocking session may belong to this thread.
        """
        return at_once(storing) if blocking else self.run(storing)

    @overload
    def get(self, id: str) -> Job[Any]: ...
    @overload
    def get(self, id: str, task: Task[..., R]) -> Job[R]: ...
    def get(self, id: str, task: Task[..., R] | None = None) -> Job[Any]:
        """Return a job with its history; see ``JobQueue.get``."""
        self._check_thread("get(id)")
        return self.run(self._find().get(id) if task is None else self._find().get(id, task))

    def result(self, job: Job[R], timeout: float | timedelta | None = None) -> R:
        """Wait until a job has succeeded, and return its result; see ``Job.result``."""
        self._check_thread("result(job)", "job.result()")
        return self.run(job.result(timeout))

    payload = Blocking(JobQueue.payload)
    cancel = Blocking(JobQueue.cancel)
    cancel_all = Blocking(JobQueue.cancel_all)
    reschedule = Blocking(JobQueue.reschedule)
    signal = Blocking(JobQueue.signal)
    reschedule_all = Blocking(JobQueue.reschedule_all)
    health = Blocking(JobQueue.health)
    stats = Blocking(JobQueue.stats)
    list = Blocking(JobQueue.list)

    @property
    def queues(self) -> SyncQueues:
        """Lists, pauses and resumes queues."""
        return SyncQueues(lambda: self._find().queues, self._find_loop)

    @property
    def limits(self) -> SyncLimits:
        """Lists, sets and resets limits."""
        return SyncLimits(lambda: self._find().limits, self._find_loop)

    @property
    def batches(self) -> SyncBatches:
        """Lists, retries and cancels batches."""
        return SyncBatches(lambda: self._find().batches, self._find_loop)

    @property
    def dead_letters(self) -> SyncDeadLetters:
        """Lists, replays and deletes dead letters."""
        return SyncDeadLetters(lambda: self._find().dead_letters, self._find_loop)

    @property
    def schedules(self) -> SyncSchedules:
        """Lists, stores, pauses and removes schedules."""
        return SyncSchedules(lambda: self._find().schedules, self._find_loop)

    @property
    def audit(self) -> SyncAuditLog:
        """Lists what operators changed over HTTP and on the command line."""
        return SyncAuditLog(lambda: self._find().audit, self._find_loop)


class SyncRunner(SyncQueue, Generic[R]):
    """The type of ``jobs.sync``: a ``SyncQueue`` that can also open the runner, in a script without a loop."""

    def __init__(
        self,
        find: Callable[[], JobQueue],
        running: Callable[..., AbstractAsyncContextManager[R]],
    ) -> None:
        BlockingVerbs.__init__(self, find, lambda: enqueuer_of(find()).parts.loop)
        self._running = running

    def running(self, *, work: bool | None = None) -> AbstractContextManager[R]:
        """Open the runner inside a ``with`` block, on a loop in a new thread.

        ::

            with jobs.sync.running(work=False):
                jobs.sync.enqueue(send_welcome_email, "ada@example.org")

        Args:
            work: False to enqueue and read without running jobs. Default: the runner's setting.
        """
        return in_thread(self._running(work=work))


def _sessions_of(calls: Iterable[object]) -> list[object]:
    return [call.options.session for call in calls if isinstance(call, Call)]


@contextmanager
def in_thread(opening: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep an async context manager open on a loop in a new thread."""
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
        # A child that was forked inside the block has no such thread, and nothing to close.
        if not is_forked(opened_in):
            loop, leave = loop_ready.result()
            loop.call_soon_threadsafe(leave.set)
            closed.result()
            thread.join()
