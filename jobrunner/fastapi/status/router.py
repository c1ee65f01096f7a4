"""Builds the router by which an application's users follow their jobs."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from starlette.responses import Response

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.model import Filter, JobRow
from jobrunner.fastapi.api.batches import BatchId
from jobrunner.fastapi.api.jobs import JobId
from jobrunner.fastapi.api.operations import READ, Operations
from jobrunner.fastapi.api.problems import (
    FORBIDDEN,
    INVALID_REQUEST,
    NOT_FOUND,
    TOO_MANY_STREAMS,
    UNAUTHORIZED,
    documented,
    with_schema,
)
from jobrunner.fastapi.api.route import ProblemRoute
from jobrunner.fastapi.api.router import Guard, marker, operation_id
from jobrunner.fastapi.status.schemas import (
    BatchStatusBody,
    JobStatusBody,
    batch_status_of,
    status_of,
)
from jobrunner.fastapi.status.stream import MEDIA_TYPE, Event, StatusStream, Streams
from jobrunner.queue.batches import no_batch
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.queue.results import no_job
from jobrunner.tasks.task import Task

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="Sent by browsers that connect again."),
]


def names_of(public: Iterable[Task[..., Any]]) -> frozenset[str]:
    """Return the stored names and aliases of tasks.

    Raises:
        ConfigurationError: There is no task, or one of them is none.
    """
    tasks = [public] if isinstance(public, (Task, str)) else list(public)
    if not tasks or not all(isinstance(task, Task) for task in tasks):
        raise ConfigurationError(
            "jobs.status_router(public=...) lists the tasks whose jobs users may follow: write public=[make_report]"
        )
    return frozenset(name for task in tasks for name in (task.spec.name, *task.spec.aliases))


def build_status_router(
    queue: Callable[..., object], guard: Guard, public: frozenset[str]
) -> tuple[APIRouter, Callable[..., object]]:
    """Return a router for the jobs of some tasks, and its status route's function.

    Args:
        queue: The dependency that provides the ``JobQueue``.
        guard: The guard of the routes.
        public: The stored names and aliases of the tasks.
    """
    router = APIRouter(
        tags=["status"], route_class=ProblemRoute, generate_unique_id_function=operation_id
    )
    provided = Depends(queue)
    may_read = marker("guard", guard, "jobs.status_router")
    streams = Streams()

    async def found(queue: JobQueue, id: str) -> JobRow:
        row = await enqueuer_of(queue).parts.reads.get(id)
        # The same answer as for no job, so that nobody learns which other jobs exist.
        if row is None or row.task not in public:
            raise no_job(id)
        return row

    @Operations(router, may_read, READ).route(
        "GET", "/{id}", summary="Get the status of a job", answers="The status."
    )
    async def get_job_status(id: JobId, queue: JobQueue = provided) -> JobStatusBody:
        """Get the state, the progress and the result of a job."""
        return status_of(await found(queue, str(id)))

    @Operations(router, may_read, READ).route(
        "GET", "/batches/{id}", summary="Get the status of a batch", answers="The status."
    )
    async def get_batch_status(id: BatchId, queue: JobQueue = provided) -> BatchStatusBody:
        """Get the numbers of the jobs of a batch: how many have succeeded, and how many are left."""
        row = await queue.batches.row(str(id))
        if not await _is_public(queue, row.id, public):
            # The same answer as for no batch.
            raise no_batch(row.id)
        return batch_status_of(row)

    problems = (UNAUTHORIZED, FORBIDDEN, NOT_FOUND, INVALID_REQUEST, TOO_MANY_STREAMS, *READ)
    responses, extra = with_schema(documented(*problems))

    @router.get(
        "/{id}/events",
        summary="Follow the status of a job",
        status_code=200,
        response_class=StatusStream,
        response_description="An event whenever the status changes, with the status as its data.",
        dependencies=[may_read],
        responses={
            200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
            204: {"description": "The job has ended, and the client has its last event."},
            **responses,
        },
        openapi_extra=extra,
    )
    async def get_job_events(
        id: JobId, last_event_id: LastEventId = None, queue: JobQueue = provided
    ) -> Response:
        """Follow a job as server-sent events, for `new EventSource(url)`.

        The stream ends with the job. A browser that connects again then gets 204, which ends its `EventSource`.
        """
        event = Event(await found(queue, str(id)))
        if event.done and event.id == last_event_id:
            return Response(status_code=204)
        return StatusStream(enqueuer_of(queue).parts, str(id), streams, last_event_id=last_event_id)

    return router, get_job_status


async def _is_public(queue: JobQueue, batch: str, public: frozenset[str]) -> bool:
    """Return whether a job of a batch is of a public task; callbacks count."""
    graph = await queue.batches.graph(batch, limit=0)
    if any(job.task in public for job in graph.callbacks):
        return True
    store = enqueuer_of(queue).parts.store
    for task in sorted(public):
        where = Filter(batch=batch, task=task)
        for rows in (store.jobs, store.dead_letters):
            if (await rows.list(where, before=None, limit=1)).rows:
                return True
    return False
