"""Routes that list, get, cancel and retry batches, and show their graphs."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.batch_schemas import (
    BatchCancelledBody,
    BatchDetailBody,
    BatchGraphBody,
    BatchPageBody,
    BatchQuery,
    BatchRetriedBody,
    GraphQuery,
    graph_body,
)
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import Problems
from jobrunner.queue.queue import JobQueue

BatchFilter = Annotated[
    BatchQuery, Query(), Problems(problems.INVALID_OPTIONS, problems.INVALID_CURSOR)
]
Size = Annotated[GraphQuery, Query(), Problems()]
BatchId = Annotated[UUID, Path(description="The batch's id."), Problems(problems.BATCH_NOT_FOUND)]


def add_batches(reading: Operations, acting: Operations, provided: Any, operating: Any) -> None:
    """Add the routes of batches to the jobs router."""
    _add_reads(reading, provided)
    _add_changes(acting, operating)


def _add_reads(reading: Operations, provided: Any) -> None:
    @reading.route("GET", "/batches", summary="List batches", answers="Batches, newest first.")
    async def list_batches(where: BatchFilter, queue: JobQueue = provided) -> BatchPageBody:
        """List batches, newest first, with the numbers of their members.

        `GET ?batch=` lists the members of one.
        """
        page = await queue.batches.list(
            state=where.state, name=where.name, limit=where.limit, cursor=where.cursor
        )
        return BatchPageBody.model_validate(page)

    @reading.route("GET", "/batches/{id}", summary="Get a batch", answers="The batch.")
    async def get_batch(id: BatchId, queue: JobQueue = provided) -> BatchDetailBody:
        """Get a batch with the numbers of its members and its callbacks."""
        return BatchDetailBody.model_validate(await queue.batches.get(str(id)))

    @reading.route(
        "GET",
        "/batches/{id}/graph",
        summary="Get the graph of a batch",
        answers="The jobs and the edges between them.",
    )
    async def get_batch_graph(
        id: BatchId, size: Size, queue: JobQueue = provided
    ) -> BatchGraphBody:
        """Get the jobs of a batch, and which of them wait for which. An edge is between two of these jobs."""
        return graph_body(str(id), await queue.batches.graph(str(id), limit=size.limit))


def _add_changes(acting: Operations, operating: Any) -> None:
    @acting.route(
        "POST",
        "/batches/{id}/cancel",
        summary="Cancel a batch",
        answers="The effect of the request.",
    )
    async def cancel_batch(id: BatchId, operator: Operator = operating) -> BatchCancelledBody:
        """Cancel a batch: its waiting members will not run, and its running ones are asked to stop.

        Workers cancel the members in parts, so that no other writer waits long. A batch that has ended does not change.
        """
        async with operator.act("batches.cancel", target=str(id)) as act:
            cancelled = await operator.queue.batches.cancel(str(id))
            act.count = 1 if cancelled else 0
        return BatchCancelledBody(cancelled=cancelled)

    @acting.route(
        "POST",
        "/batches/{id}/retry",
        summary="Retry a batch",
        answers="The numbers of dead letters that were put back, and of those that stay.",
    )
    async def retry_batch(id: BatchId, operator: Operator = operating) -> BatchRetriedBody:
        """Replay the dead letters of a batch. The batch is running again.

        Jobs that were cancelled because a dead one was needed wait again, and `then` starts if all members succeed.
        """
        async with operator.act("batches.retry", target=str(id)) as act:
            counts = await operator.queue.batches.retry(str(id))
            act.count = counts.replayed
        return BatchRetriedBody.model_validate(counts)
