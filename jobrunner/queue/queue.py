"""The queue as its users hold it: store a job, look it up, cancel it, replay what died."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from jobrunner.core.clock import now_us
from jobrunner.core.errors import (
    InvalidOptions,
    JobNotFound,
    NotCommitted,
    StoreError,
    UnknownTask,
    WouldDeadlock,
)
from jobrunner.core.exports import exported
from jobrunner.core.forked import generation, refuse_forked
from jobrunner.core.hints import queue_attribute
from jobrunner.core.ids import new_id
from jobrunner.core.job import CancelStatus, Health, Job, Payload, fresh_job, job_of, payload_of
from jobrunner.core.model import (
    FINISHED,
    Enqueue,
    Enqueued,
    JobRow,
    chained,
)
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.filters import (
    DEFAULT_ROWS,
    JobFilter,
    checked_id,
    checked_limit,
    job_filter,
    read_cursor,
    write_cursor,
)
from jobrunner.queue.page import Page
from jobrunner.queue.queues import Queues
from jobrunner.queue.results import end_of, result_in
from jobrunner.queue.schedules import Schedules
from jobrunner.store.committer import ROWS_PER_CALL, Committer, Several, too_many
from jobrunner.store.protocol import Store
from jobrunner.store.reentrancy import inside_of, refuse_inside
from jobrunner.store.session_writer import Caller, SessionWriter, told_on
from jobrunner.tasks.call import Call
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.task import Task
from jobrunner.worker.events import Events
from jobrunner.worker.settings import unknown_queue
from jobrunner.worker.unawaited import caller
from jobrunner.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@exported
class JobQueue:
    """The verbs of one open runner; what ``Depends(jobs.queue)`` and ``Queue`` inject."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        *,
        tasks: Mapping[str, TaskSpec] | None,
        queues: frozenset[str],
        events: Events,
        worker: Worker,
        timezone: str,
    ) -> None:
        self._store = store
        self._committer = committer
        self._tasks = {} if tasks is None else tasks
        self._queues = queues
        self._events = events
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._opened_in = generation()
        self.session_advice: str | None = None
        """What to write in place of a plain ``Queue``, where the runner has a session to join."""
        self._joined: SessionWriter | None = None
        self._source: object = None
        self._tell = told_on(self._loop, worker.look)
        self.queues = Queues(store, queues, wake=worker.look)
        self.dead_letters = DeadLetters(store, tasks, stored=self._stored, wake=worker.look)
        self.schedules = Schedules(
            store, self._tasks, queues, timezone=timezone, enqueue=self._enqueue, wake=worker.look
        )

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which the runner is open; other threads go through it.

        Raises:
            NotRunning: this process was forked while the runner was open.
        """
        refuse_forked(self._opened_in)
        return self._loop

    # -- storing ------------------------------------------------------------------

    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of the task; the job is on disk when this returns.

        Options go with the task: ``queue.enqueue(remind.options(delay=3600), email)``. If an unfinished job of the
        task holds the same ``key``, that job is returned, with ``created`` False.

        Raises:
            InvalidArguments: they do not fit the task; nothing was stored.
            UnknownTask: the task is not registered with this runner.
            StoreError: see ``errors``; after a ``StoreOutcomeUnknown`` the job may be there.
        """
        return await self.enqueue_call(_task(task).call(*args, **kwargs))

    async def enqueue_call(self, call: Call[R]) -> Job[R]:
        """Store a call as a job; see ``enqueue``."""
        source = call.options.session if isinstance(call, Call) else None
        if source is not None and not self._joins(source):
            return await self.joined(source).enqueue_call(call)
        now = now_us()
        job = self._checked(call).to_enqueue(id=new_id(now), now=now)
        (stored,) = await self._store_jobs((job,), now)
        return self._stored(stored, call)

    def _store_jobs(self, jobs: Sequence[Enqueue], now: int) -> Awaitable[Sequence[Enqueued]]:
        inside = inside_of(self._store)
        if inside is not None and self._source is not inside.source:
            if self._joined is not None:
                raise WouldDeadlock(
                    "inside `job.transaction()` jobs are stored through its session, and this queue has another one"
                )
            joining = self.joined(inside.source)
            return joining._store_jobs(jobs, now)  # noqa: SLF001 - a view of this queue
        if self._joined is None:
            return self._enqueue_alone(jobs)
        refuse_forked(self._opened_in)
        if len(jobs) > ROWS_PER_CALL:
            raise too_many(len(jobs))
        if self._worker.failed is not None:
            raise self._worker.failed
        return self._joined.enqueue(jobs, now=now)

    def _enqueue_alone(self, jobs: Sequence[Enqueue]) -> Awaitable[Sequence[Enqueued]]:
        self._store.refuse_wait("enqueue()")
        return self._committer.enqueue(jobs)

    async def _enqueue(self, job: Enqueue) -> Job[Any]:
        (stored,) = await self._enqueue_alone((job,))
        return self._stored(stored)

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls (``task.call(...)``) in one transaction: all of them, or none.

        Returns:
            The jobs, in the order of the calls.

        Raises:
            InvalidOptions: more than 10,000 calls.
            InvalidArguments, UnknownTask, StoreError: as ``enqueue``.
        """
        return await self._store_calls("enqueue_many", calls)

    async def enqueue_chain(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store calls (``task.call(...)``) that run one after another, in one transaction: all of them, or none.

        The first one is due as if it were alone. Each of the others is ``blocked`` until the one before it has
        succeeded or is a dead letter, retries included, and starts then, or when its own ``delay`` or ``run_at`` is
        over. If one is cancelled or expires, those behind it are cancelled.

        A call whose ``key`` an unfinished job of its task holds stores nothing: that job is returned, with ``created``
        False, and the chain goes on without it.

        Returns:
            The jobs, in the order of the calls.

        Raises:
            InvalidOptions: more than 10,000 calls.
            InvalidArguments, UnknownTask, StoreError: as ``enqueue``.
        """
        return await self._store_calls("enqueue_chain", calls)

    async def _store_calls(self, verb: Several, calls: Iterable[Call[R]]) -> list[Job[R]]:
        now = now_us()
        if isinstance(calls, Call):
            raise InvalidOptions(
                f"{verb} takes a list of calls: write {verb}([task.call(...), ...])"
            )
        many = [self._checked(call, verb) for call in calls]
        source = _one_session(verb, many)
        if source is not None and not self._joins(source):
            return await self.joined(source)._store_calls(verb, many)  # noqa: SLF001 - a view of this queue
        if len(many) > ROWS_PER_CALL:
            raise too_many(len(many), verb)
        jobs = [call.to_enqueue(id=new_id(now), now=now) for call in many]
        stored = await self._store_jobs(chained(jobs) if verb == "enqueue_chain" else jobs, now)
        return [self._stored(one, call) for one, call in zip(stored, many, strict=True)]

    # -- what a request or an attempt has gathered ------------------------------------

    def prepare(self, call: Call[Any]) -> Enqueue:
        """Return a call as the row that ``store`` is given later; raises what is wrong with it, as ``enqueue``."""
        now = now_us()
        return self._checked(call).to_enqueue(id=new_id(now), now=now)

    async def store(self, jobs: Sequence[Enqueue]) -> None:
        """Store rows in one commit of their own, even on a view that joins a session."""
        await self._enqueue_alone(jobs)

    async def store_with_changes(self, jobs: Sequence[Enqueue]) -> bool:
        """Store rows in the transaction of the session that this view joins, if it has changes to be committed.

        Returns:
            Whether it has.
        """
        if self._joined is None or not await self._joined.session.has_changes():
            return False
        await self._store_jobs(jobs, now_us())
        return True

    # -- in a transaction of the application's own ------------------------------------

    def joined(self, source: object, caller: Caller | None = None) -> "JobQueue":
        """Return a view of this queue whose jobs are stored in the transaction of a session of the application's.

        They are committed or rolled back with the session's rows; workers are told after the commit.

        Args:
            source: a SQLAlchemy ``AsyncSession``, ``AsyncConnection`` or ``Session``, an ``aiosqlite.Connection`` or a
                ``sqlite3.Connection``, on the same file as the jobs.
            caller: the request that it belongs to.

        Raises:
            InvalidSession: it is none of them.
        """
        session = self._store.session(source)
        joined = SessionWriter(session, loop=self._loop, tell=self._tell, caller=caller)
        # Not copy.copy(): a view is made per request, or per call, and this takes a third of the time.
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _joined=joined, _source=source)
        return view

    def joined_by(self, task: str, source: object) -> "JobQueue":
        """Return the same view for an attempt of a task."""
        return self.joined(source, Caller(task))

    def _joins(self, source: object) -> bool:
        return self._joined is not None and self._source is source

    def is_blocking(self, sources: Iterable[object]) -> bool:
        """Return whether jobs with these sessions in their options are stored at once, in the calling thread."""
        named = next((source for source in sources if source is not None), None)
        if named is not None and not self._joins(named):
            return self._store.session(named).blocking
        if self._joined is not None:
            return self._joined.session.blocking
        inside = inside_of(self._store)
        return inside is not None and self._store.session(inside.source).blocking

    def _checked(self, call: Call[R], verb: Several = "enqueue_many") -> Call[R]:
        if not isinstance(call, Call):
            raise InvalidOptions(f"{call!r} is not a call: write {verb}([task.call(...), ...])")
        spec = call.spec
        if self._tasks.get(spec.name) is not spec:
            raise UnknownTask(
                f"{spec.name} ({spec.where}) is not registered with this runner; write jobs.include(router) before it"
                " is opened, or decorate the function with @jobs.task"
            )
        queue = call.options.queue
        if queue is not None and queue not in self._queues:
            raise unknown_queue(queue, f"options(queue={queue!r})", self._queues)
        return call

    def _stored(self, stored: Enqueued, call: Call[R] | None = None) -> Job[R]:
        if call is None:
            return fresh_job(stored, self)
        return fresh_job(stored, self, key=call.options.key, tag=call.options.tag)

    # -- looking up ----------------------------------------------------------------

    @overload
    async def get(self, id: str) -> Job[Any]: ...
    @overload
    async def get(self, id: str, task: Task[..., R]) -> Job[R]: ...
    async def get(self, id: str, task: Task[..., R] | None = None) -> Job[Any]:
        """Return a job with its history; dead ones are found too, with the state ``dead``.

        Args:
            id: the job's.
            task: whose job it must be; gives ``result()`` its type.

        Raises:
            JobNotFound: there is none, none any more, or it is another task's.
        """
        row = await self._row(id)
        if task is not None and row.task not in {task.name, *task.spec.aliases}:
            raise JobNotFound(f"job {id} is one of {row.task}, not of {task.name}")
        return job_of(row, await self._store.jobs.attempts(row.seq), self, args=row.args)

    async def payload(self, id: str) -> Payload:
        """Return the arguments and the result of a job, also of a dead one, as the plain JSON values that are stored.

        Raises:
            JobNotFound: there is none, or none any more.
        """
        return payload_of(await self._row(id))

    async def _row(self, id: str) -> JobRow:
        row = await self._store.jobs.get(checked_id(id))
        if row is None:
            raise _not_found(id)
        return row

    async def list(
        self,
        *,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
        **where: Unpack[JobFilter],
    ) -> Page[Job[Any]]:
        """Return a page of jobs, newest first; of dead letters, last died first, with ``state="dead"``.

        Where few of many jobs fit, a page ends after about 100 ms with those found, perhaps none, and is not
        ``complete``. The last page is the one without a ``next_cursor``.

        Args:
            limit: jobs on the page, 1 to 1,000.
            cursor: the ``next_cursor`` of the page before.
            **where: ``task``, ``queue``, ``state``, ``tag``, ``key``, and the instants ``since`` and ``until`` of the
                creation, or of the death with ``state="dead"``. Other states leave the dead letters out.

        Raises:
            InvalidCursor: no page gave it out.
            InvalidOptions: a naive datetime, or a limit out of range.
        """
        meant = job_filter(where)
        lister = self._store.jobs.list
        if meant.state == "dead":
            # Each row of their table is dead, and none says so.
            meant, lister = meant._replace(state=None), self._store.dead_letters.list
        page = await lister(meant, before=read_cursor(cursor), limit=checked_limit(limit))
        return Page(
            [job_of(row, (), self) for row in page.rows], write_cursor(page.next), page.complete
        )

    # -- results -------------------------------------------------------------------------

    async def result_of(self, job: Job[Any], timeout: float | timedelta | None) -> Any:
        """Wait for a job's result; see ``Job.result``."""
        refuse_inside(self._store, "result()")
        attempt = caller.get()
        deadlocks = self._worker.deadlocks
        if attempt is None or deadlocks is None or not deadlocks.concern(attempt):
            row = await self._end_of(job, timeout)
        else:
            timed = timeout is not None
            with deadlocks.waiting(attempt, job.id, timed=timed) as wait:
                row = await self._end_of(job, timeout, partial(deadlocks.check, attempt, wait))
        return result_in(row, self._tasks)

    def _end_of(
        self,
        job: Job[Any],
        timeout: float | timedelta | None,
        check: Callable[[JobRow], Awaitable[None]] | None = None,
    ) -> Awaitable[JobRow]:
        refuse_wait = partial(self._store.refuse_wait, "result()")
        return end_of(job, self._row_of, self._events, timeout, refuse_wait, check)

    async def _row_of(self, job: Job[Any]) -> JobRow:
        row = await self._store.jobs.get(job.id)
        if row is not None:
            return row
        if self._joined is None:
            raise _not_found(job.id)
        raise NotCommitted(
            f"{job.task} {job.id} was stored in a transaction that has not been committed (or was rolled back), and"
            " runs after the commit: write `await session.commit()` before you wait for the job"
        )

    async def refreshed(self, job: Job[Any]) -> Job[Any]:
        """Read a job again; see ``Job.refresh``."""
        row = await self._row_of(job)
        return job_of(row, await self._store.jobs.attempts(row.seq), self, args=row.args)

    def arguments_of(self, job: Job[Any], stored: str) -> dict[str, Any]:
        """Return a job's arguments from their stored form; see ``Job.args``."""
        spec = self._tasks.get(job.task)
        if spec is not None:
            return spec.args.decode(stored)
        plain: dict[str, Any] = json.loads(stored)
        return plain

    # -- cancelling ----------------------------------------------------------------------

    async def cancel(self, id: str) -> CancelStatus | None:
        """Cancel a job: a waiting one at once; a running one is asked to stop, wherever it runs.

        Returns:
            ``"cancelled"`` if it waited, and is cancelled with those behind it; ``"requested"`` if it runs, and has
            been asked to stop; None if there was nothing to cancel: it had finished or died.

        Raises:
            JobNotFound: there is no such job.
        """
        before = await self._store.jobs.cancel(checked_id(id), now=now_us())
        if before is None:
            raise _not_found(id)
        if before.state in FINISHED:
            return None
        if before.state == "running":
            await self._worker.cancel_requested(before.seq)
            return "requested"
        self._events.wake(id)
        return "cancelled"

    # -- health -------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Return whether the promises are being kept just now, and what stands in the way."""
        return await self._worker.health()

    def is_ready(self) -> bool:
        """Return ``Health.ready`` alone, without a look into the store."""
        return self._worker.is_ready()

    async def failure(self) -> StoreError:
        """Wait until this process has stopped working for good, and return why; perhaps for ever."""
        await self._worker.has_failed.wait()
        assert self._worker.failed is not None  # noqa: S101 - set together
        return self._worker.failed

    if not TYPE_CHECKING:
        # Not shown to type checkers: they would take any attribute for one that exists.
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                queue_attribute("queue", name) or f"JobQueue has no attribute {name!r}",
                name=name,
                obj=self,
            )


def _task(task: Task[P, R]) -> Task[P, R]:
    if not isinstance(task, Task):
        raise UnknownTask(
            f"{task!r} is not a task; decorate the function with @jobs.task, and write enqueue(task, *args, **kwargs)"
        )
    return task


def _not_found(id: str) -> JobNotFound:
    return JobNotFound(f"no job has the id {id}; it may be past its retention")


def _one_session(verb: Several, calls: Iterable[Call[Any]]) -> object:
    """Return the session that the calls are to be stored through, None if they name none."""
    sources = {id(call.options.session): call.options.session for call in calls}
    if len(sources) > 1:
        raise InvalidOptions(
            f"{verb}() is one transaction, so all of its calls name the same session, or none: set it on each,"
            " [task.options(session=session).call(...), ...]"
        )
    return next(iter(sources.values()), None)
