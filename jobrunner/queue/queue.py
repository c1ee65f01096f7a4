"""The queue as its users hold it: store a job, look it up, cancel it, replay what died."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from jobrunner.core.clock import now_us
from jobrunner.core.errors import JobNotFound, UnknownTask
from jobrunner.core.exports import exported
from jobrunner.core.forked import generation
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.job import CancelStatus, Health, Job, Payload, fresh_job, job_of, payload_of
from jobrunner.core.model import FINISHED, Enqueue, JobRow
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.queue.filters import (
    DEFAULT_ROWS,
    JobFilter,
    checked_id,
    checked_limit,
    job_filter,
    read_cursor,
    write_cursor,
)
from jobrunner.queue.local_worker import LocalWorker
from jobrunner.queue.page import Page
from jobrunner.queue.parts import QueueParts
from jobrunner.queue.queues import Queues
from jobrunner.queue.results import JobReader, no_job
from jobrunner.queue.schedules import Schedules
from jobrunner.queue.sinks import CommitterSink
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.store.session_writer import Caller, call_on
from jobrunner.tasks.call import Call
from jobrunner.tasks.spec import TaskSpec
from jobrunner.tasks.task import Task
from jobrunner.worker.events import Events

P = ParamSpec("P")
R = TypeVar("R")


@exported
@answers_foreign_words("queue", name="queue")
class JobQueue:
    """The verbs of one open runner; what ``Depends(jobs.queue)`` and ``Queue`` inject."""

    def __init__(self, enqueuer: Enqueuer) -> None:
        self._enqueuer = enqueuer
        self._parts = enqueuer.parts

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
        return await self._enqueuer.enqueue_call(_task(task).call(*args, **kwargs))

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls (``task.call(...)``) in one transaction: all of them, or none.

        Returns:
            The jobs, in the order of the calls.

        Raises:
            InvalidOptions: more than 10,000 calls.
            InvalidArguments, UnknownTask, StoreError: as ``enqueue``.
        """
        return await self._enqueuer.enqueue_calls("enqueue_many", calls)

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
        return await self._enqueuer.enqueue_calls("enqueue_chain", calls)

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
        attempts = await self._parts.store.jobs.attempts(row.seq)
        return job_of(row, attempts, self._enqueuer.reader, args=row.args)

    async def payload(self, id: str) -> Payload:
        """Return the arguments and the result of a job, also of a dead one, as the plain JSON values that are stored.

        Raises:
            JobNotFound: there is none, or none any more.
        """
        return payload_of(await self._row(id))

    async def _row(self, id: str) -> JobRow:
        row = await self._parts.store.jobs.get(checked_id(id))
        if row is None:
            raise no_job(id)
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
        lister = self._parts.store.jobs.list
        if meant.state == "dead":
            # Each row of their table is dead, and none says so.
            meant, lister = meant._replace(state=None), self._parts.store.dead_letters.list
        page = await lister(meant, before=read_cursor(cursor), limit=checked_limit(limit))
        return Page(
            [job_of(row, (), self._enqueuer.reader) for row in page.rows],
            write_cursor(page.next),
            page.complete,
        )

    # -- cancelling ----------------------------------------------------------------------

    async def cancel(self, id: str) -> CancelStatus | None:
        """Cancel a job: a waiting one at once; a running one is asked to stop, wherever it runs.

        Returns:
            ``"cancelled"`` if it waited, and is cancelled with those behind it; ``"requested"`` if it runs, and has
            been asked to stop; None if there was nothing to cancel: it had finished or died.

        Raises:
            JobNotFound: there is no such job.
        """
        before = await self._parts.store.jobs.cancel(checked_id(id), now=now_us())
        if before is None:
            raise no_job(id)
        if before.state in FINISHED:
            return None
        if before.state == "running":
            await self._parts.worker.cancel_requested(before.seq)
            return "requested"
        self._parts.events.wake(id)
        return "cancelled"

    # -- queues, dead letters, schedules, health ---------------------------------------------

    @property
    def queues(self) -> Queues:
        """The queues: list, pause, resume."""
        return self._parts.queues

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters: list, get, replay, delete."""
        return self._parts.dead_letters

    @property
    def schedules(self) -> Schedules:
        """The schedules: list, upsert, pause, resume, run_now, remove."""
        return self._parts.schedules

    async def health(self) -> Health:
        """Return whether the promises are being kept just now, and what stands in the way."""
        return await self._parts.worker.health()


def _task(task: Task[P, R]) -> Task[P, R]:
    if not isinstance(task, Task):
        raise UnknownTask(
            f"{task!r} is not a task; decorate the function with @jobs.task, and write enqueue(task, *args, **kwargs)"
        )
    return task


def open_queue(
    store: Store,
    committer: Committer,
    *,
    tasks: Mapping[str, TaskSpec] | None,
    queues: frozenset[str],
    events: Events,
    worker: LocalWorker,
    timezone: str,
) -> JobQueue:
    """Return the queue of an open store, on the running loop.

    Args:
        tasks: by stored name and by alias; None where nobody can tell which there are.
        queues: the names that the runner has.
        timezone: of cron expressions that name none.
    """
    loop = asyncio.get_running_loop()
    known = {} if tasks is None else tasks
    reader = JobReader(store, events, worker, known)
    sink = CommitterSink(store, committer)

    async def enqueue(job: Enqueue) -> Job[Any]:
        (stored,) = await sink.store((job,), job.created_at)
        return fresh_job(stored, reader)

    parts = QueueParts(
        store=store,
        committer=sink,
        worker=worker,
        events=events,
        tasks=known,
        names=queues,
        reader=reader,
        session_reader=JobReader(store, events, worker, known, in_session=True),
        queues=Queues(store, queues, wake=worker.wake),
        dead_letters=DeadLetters(
            store, tasks, stored=partial(fresh_job, source=reader), wake=worker.wake
        ),
        schedules=Schedules(
            store, known, queues, timezone=timezone, enqueue=enqueue, wake=worker.wake
        ),
        opened_on=loop,
        opened_in=generation(),
        notify=call_on(loop, worker.wake),
    )
    return JobQueue(Enqueuer(parts, sink, reader))


def enqueuer_of(queue: JobQueue) -> Enqueuer:
    """Return the part of a queue that its users do not see."""
    return queue._enqueuer  # noqa: SLF001 - the one door to it


def joined(queue: JobQueue, source: object, caller: Caller | None = None) -> JobQueue:
    """Return a queue whose jobs are stored in the transaction of a session; see ``Enqueuer.joined``."""
    return JobQueue(enqueuer_of(queue).joined(source, caller))


def joined_by(queue: JobQueue, task: str, source: object) -> JobQueue:
    """Return the same for an attempt of a task."""
    return joined(queue, source, Caller(task))
