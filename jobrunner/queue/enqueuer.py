"""Checks calls of tasks and stores them as jobs: the internal part of a queue."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar, get_args

from jobrunner.core.errors import InvalidBatch, InvalidOptions, UnknownTask, WouldDeadlock
from jobrunner.core.ids import new_id
from jobrunner.core.job import Job, fresh_job
from jobrunner.core.model import BatchEnqueue, Enqueue, Enqueued, OnDead, chained
from jobrunner.core.workflows import BatchEnqueued
from jobrunner.queue.parts import QueueParts
from jobrunner.queue.results import JobReader
from jobrunner.queue.sinks import SessionSink, Sink
from jobrunner.store.committer import ROWS_PER_CALL, Several, too_many
from jobrunner.store.reentrancy import inside_of
from jobrunner.store.session_writer import Caller, SessionWriter
from jobrunner.tasks.call import Call
from jobrunner.tasks.task import Task
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.settings import unknown_queue
from jobrunner.worker.unawaited import caller as calling

P = ParamSpec("P")
R = TypeVar("R")


class Enqueuer:
    """Checks calls and stores them in one sink."""

    __slots__ = ("parts", "reader", "sink")

    def __init__(self, parts: QueueParts, sink: Sink, reader: JobReader) -> None:
        """Store calls in a sink.

        Args:
            parts: The parts of the open runner.
            sink: The transaction in which jobs are stored.
            reader: Reads a returned job again, for ``job.result()`` and ``job.refresh()``.
        """
        self.parts = parts
        self.sink = sink
        self.reader = reader

    def joined(self, source: object, caller: Caller | None = None) -> "Enqueuer":
        """Return an enqueuer that stores jobs in the transaction of the application's session.

        The jobs are committed or rolled back with the session's rows. Workers are woken after the commit.

        Args:
            source: A SQLAlchemy ``AsyncSession``, ``AsyncConnection`` or ``Session``, an ``aiosqlite.Connection`` or a
                ``sqlite3.Connection``, on the same file as the jobs.
            caller: The request or the attempt to which the session belongs; None if it is not known.

        Raises:
            InvalidSession: The source is none of these.
        """
        parts = self.parts
        writer = SessionWriter(
            parts.store.session(source), loop=parts.opened_on, notify=parts.notify, caller=caller
        )
        sink = SessionSink(writer, source, parts.worker, parts.opened_in)
        return Enqueuer(parts, sink, parts.session_reader)

    async def enqueue_call(self, call: Call[R]) -> Job[R]:
        """Store a call as a job; see ``JobQueue.enqueue``."""
        source = call.options.session if isinstance(call, Call) else None
        if source is not None and source is not self.sink.source:
            return await self.joined(source).enqueue_call(call)
        now = self.parts.now_us()
        job = self.check(call).to_enqueue(id=new_id(now), now=now)
        (stored,) = await self._store((job,), now)
        return self.job_of(stored, call)

    async def enqueue_calls(
        self, verb: Several, calls: Iterable[Call[R]], *, on_dead: OnDead = "continue"
    ) -> list[Job[R]]:
        """Store calls in one transaction; see ``JobQueue.enqueue_many`` and ``enqueue_chain``."""
        if on_dead not in get_args(OnDead):
            raise InvalidOptions(f'on_dead is "continue" or "cancel", not {on_dead!r}')
        now = self.parts.now_us()
        if isinstance(calls, Call):
            raise InvalidOptions(
                f"{verb} takes a list of calls: write {verb}([task.call(...), ...])"
            )
        many = [self.check(call, verb) for call in calls]
        source = one_session(verb, many)
        if source is not None and source is not self.sink.source:
            return await self.joined(source).enqueue_calls(verb, many, on_dead=on_dead)
        if len(many) > ROWS_PER_CALL:
            raise too_many(len(many), verb)
        jobs = [call.to_enqueue(id=new_id(now), now=now) for call in many]
        if verb == "enqueue_chain":
            jobs = [*chained(jobs, on_dead="cancel" if on_dead == "cancel" else None)]
        stored = await self._store(jobs, now)
        return [self.job_of(one, call) for one, call in zip(stored, many, strict=True)]

    def _store(self, jobs: Sequence[Enqueue], now: int) -> Awaitable[Sequence[Enqueued]]:
        tracing = self.parts.events.tracing
        if tracing is not None and tracing.is_active():
            return tracing.enqueue(jobs, lambda traced: self._store_untraced(traced, now))
        return self._store_untraced(_passed_on(jobs), now)

    def _store_untraced(self, jobs: Sequence[Enqueue], now: int) -> Awaitable[Sequence[Enqueued]]:
        return self._sink_now().store(jobs, now)

    def _sink_now(self) -> Sink:
        """Return the sink of the running code: inside ``job.transaction()`` that of its session."""
        inside = inside_of(self.parts.store)
        if inside is None or self.sink.source is inside.source:
            return self.sink
        if self.sink.source is not None:
            raise WouldDeadlock(
                "inside `job.transaction()` jobs are stored through its session, and this queue has another one"
            )
        return self.joined(inside.source).sink

    # -- background tasks of a request or an attempt ----------------------------------

    def prepare(self, call: Call[Any]) -> Enqueue:
        """Check a call and return it as a row to store later; raises as ``enqueue``."""
        now = self.parts.now_us()
        job = self.check(call).to_enqueue(id=new_id(now), now=now)
        tracing = self.parts.events.tracing
        if tracing is None or not tracing.is_active():
            return _passed_on((job,))[0]
        return tracing.prepare(job)

    async def store_alone(self, jobs: Sequence[Enqueue]) -> None:
        """Store rows in a separate commit, whatever the sink is."""
        await self.parts.committer.store(jobs, self.parts.now_us())

    async def store_with_changes(self, jobs: Sequence[Enqueue]) -> bool:
        """Store rows in the session's transaction, if that has uncommitted changes.

        Returns:
            True if the rows were stored, False if the session has no uncommitted changes.
        """
        if not await self.sink.has_changes():
            return False
        await self._store(jobs, self.parts.now_us())
        return True

    # ----------------------------------------------------------------------------------

    def is_blocking(self, sources: Iterable[object]) -> bool:
        """Return whether the calling thread itself stores jobs with these sessions.

        Args:
            sources: The ``session`` option of each job, or None.
        """
        named = next((source for source in sources if source is not None), None)
        if named is not None and named is not self.sink.source:
            return self.parts.store.session(named).blocking
        if self.sink.source is not None:
            return self.sink.blocking
        inside = inside_of(self.parts.store)
        return inside is not None and self.parts.store.session(inside.source).blocking

    async def store_batch(self, batch: BatchEnqueue, now: int) -> BatchEnqueued:
        """Store the rows of a batch in the sink's transaction."""
        at = len(batch.members)

        async def store(jobs: Sequence[Enqueue]) -> Sequence[Enqueued]:
            rows = batch._replace(members=jobs[:at], callbacks=jobs[at:])
            stored = await self._sink_now().store_batch(rows, now)
            return [*stored.members, *stored.callbacks]

        jobs = [*batch.members, *batch.callbacks]
        tracing = self.parts.events.tracing
        if tracing is not None and tracing.is_active():
            enqueued = await tracing.enqueue(jobs, store)
        else:
            enqueued = await store(_passed_on(jobs))
        return BatchEnqueued(enqueued[:at], enqueued[at:])

    def check(self, call: Call[R], verb: Several = "enqueue_many") -> Call[R]:
        """Return a call that this runner can store.

        Raises:
            InvalidOptions: The value is not a call.
            InvalidBatch: The call belongs into a batch, and is not stored in one.
            UnknownTask: The task is not registered with this runner.
            UnknownQueue: The runner does not have the queue that the options name.
        """
        if not isinstance(call, Call):
            raise InvalidOptions(f"{call!r} is not a call: write {verb}([task.call(...), ...])")
        spec = call.spec
        known = self.parts.tasks.get(spec.name)
        if known is not spec and not spec.is_same(known):
            raise UnknownTask(
                f"{spec.name} ({spec.where}) is not registered with this runner; write jobs.include(router) before it"
                " is opened, or decorate the function with @jobs.task"
            )
        queue = call.options.queue
        if queue is not None and queue not in self.parts.names:
            raise unknown_queue(queue, f"options(queue={queue!r})", self.parts.names)
        if verb != "enqueue_batch" and (call.handed is not None or call.waits is not None):
            raise InvalidBatch(
                f"{call!r} waits for another call, which calls of one batch can: write"
                " `await queue.enqueue_batch([first, second])`"
            )
        return call

    def job_of(self, stored: Enqueued, call: Call[R], batch: str | None = None) -> Job[R]:
        """Return a stored job in its public form; ``batch`` is the id of its batch."""
        options = call.options
        return fresh_job(stored, self.reader, key=options.key, tag=options.tag, batch=batch)


def _passed_on(jobs: Sequence[Enqueue]) -> Sequence[Enqueue]:
    """Return jobs with the trace of the attempt that enqueues them.

    For processes that make no spans.
    """
    attempt = calling.get()
    if not isinstance(attempt, Attempt) or attempt.job.trace is None:
        return jobs
    return [job if job.trace else job._replace(trace=attempt.job.trace) for job in jobs]


def call_of(task: Task[P, R], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call[R]:
    """Return a call of a task.

    Raises:
        UnknownTask: The value is not a task.
        InvalidArguments: The arguments do not fit the task.
    """
    if not isinstance(task, Task):
        raise UnknownTask(
            f"{task!r} is not a task; decorate the function with @jobs.task, and write enqueue(task, *args, **kwargs)"
        )
    return task.call(*args, **kwargs)


def one_session(verb: Several, calls: Iterable[Call[Any]]) -> object:
    """Return the session that all calls name in their options; None if they name none.

    Raises:
        InvalidOptions: They name different ones.
    """
    sources = {id(call.options.session): call.options.session for call in calls}
    if len(sources) > 1:
        raise InvalidOptions(
            f"{verb}() is one transaction, so all of its calls name the same session, or none: set it on each,"
            " [task.options(session=session).call(...), ...]"
        )
    return next(iter(sources.values()), None)
