"""Builds the queue of an open store, with the parts that its verbs share."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any

from jobrunner.core.forked import generation
from jobrunner.core.job import Job, fresh_job
from jobrunner.core.model import Enqueue, Enqueued
from jobrunner.queue.audit import AuditLog
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.queue.limits import Limits
from jobrunner.queue.local_worker import LocalWorker
from jobrunner.queue.parts import QueueParts
from jobrunner.queue.queue import JobQueue
from jobrunner.queue.queues import Queues
from jobrunner.queue.results import JobReader
from jobrunner.queue.schedules import Schedules
from jobrunner.queue.shared_reads import SharedReads
from jobrunner.queue.sinks import CommitterSink
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.store.session_writer import call_on
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.events import Events


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
        store: The open store.
        committer: Stores the jobs that belong to no session.
        tasks: The tasks by stored name and by alias; None if they are not known.
        queues: The names of the runner's queues.
        events: Wakes the code that waits for a job's result.
        worker: The worker of this process.
        timezone: The time zone of cron expressions that name none.
    """
    loop = asyncio.get_running_loop()
    known = {} if tasks is None else tasks
    reads = SharedReads(store)
    reader = JobReader(store, reads, events, worker, known)
    sink = CommitterSink(store, committer)

    async def enqueue(job: Enqueue) -> Job[Any]:
        def store_jobs(jobs: Sequence[Enqueue]) -> Awaitable[Sequence[Enqueued]]:
            return sink.store(jobs, job.created_at)

        tracing = events.tracing
        (stored,) = await (
            store_jobs((job,))
            if tracing is None or not tracing.is_active()
            else tracing.enqueue((job,), store_jobs)
        )
        return fresh_job(stored, reader)

    parts = QueueParts(
        store=store,
        committer=sink,
        worker=worker,
        events=events,
        reads=reads,
        tasks=known,
        names=queues,
        reader=reader,
        session_reader=JobReader(store, reads, events, worker, known, in_session=True),
        queues=Queues(store, queues, wake=worker.wake),
        dead_letters=DeadLetters(
            store, tasks, stored=partial(fresh_job, source=reader), wake=worker.wake
        ),
        schedules=Schedules(
            store, known, queues, timezone=timezone, enqueue=enqueue, wake=worker.wake
        ),
        audit=AuditLog(store),
        limits=Limits(store, tasks, queues, wake=worker.wake),
        opened_on=loop,
        opened_in=generation(),
        notify=call_on(loop, worker.wake),
    )
    return JobQueue(Enqueuer(parts, sink, reader))
