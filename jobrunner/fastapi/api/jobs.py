"""Routes that list, get and cancel jobs, and show their arguments."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query

from jobrunner.core.redaction import Redaction
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.job_schemas import (
    CancelledBody,
    JobArgumentsBody,
    JobDetailBody,
    JobPageBody,
    JobQuery,
)
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import Problems
from jobrunner.queue.queue import JobQueue

JobFilter = Annotated[
    JobQuery, Query(), Problems(problems.INVALID_OPTIONS, problems.INVALID_CURSOR)
]
JobId = Annotated[UUID, Path(description="The job's id."), Problems(problems.NOT_FOUND)]


def add_job_list(reading: Operations, provided: Any) -> None:
    """Add the route that lists jobs."""

    @reading.route("GET", "", summary="List jobs", answers="Jobs, newest first.")
    async def list_jobs(where: JobFilter, queue: JobQueue = provided) -> JobPageBody:
        """List jobs, newest first, without their arguments.

        Dead jobs are listed only with `state=dead`, most recent death first.
        """
        page = await queue.list(
            task=where.task,
            queue=where.queue,
            state=where.state,
            tag=where.tag,
            key=where.key,
            since=where.since,
            until=where.until,
            limit=where.limit,
            cursor=where.cursor,
        )
        return JobPageBody.model_validate(page)


def add_job(reading: Operations, acting: Operations, provided: Any, operating: Any) -> None:
    """Add the routes of one job.

    Call it after the other routes: the path ``/{id}`` matches every word.
    """

    @reading.route("GET", "/{id}", summary="Get a job", answers="The job.")
    async def get_job(id: JobId, queue: JobQueue = provided) -> JobDetailBody:
        """Get a job with its attempts, without its arguments. Dead jobs are included."""
        return JobDetailBody.model_validate(await queue.get(str(id)))

    @acting.route(
        "POST",
        "/{id}/cancel",
        summary="Cancel a job",
        answers="The effect of the request.",
    )
    async def cancel_job(id: JobId, operator: Operator = operating) -> CancelledBody:
        """Cancel a waiting job at once, or ask a running one to stop.

        A finished or dead job is not changed.
        """
        async with operator.act("cancel", target=str(id)) as act:
            status = await operator.queue.cancel(str(id))
            act.count = 0 if status is None else 1
        return CancelledBody(status=status)


def add_arguments(seeing: Operations, provided: Any, redaction: Redaction) -> None:
    """Add the route that shows the arguments and the result of any job."""

    @seeing.route(
        "GET",
        "/{id}/arguments",
        summary="Get a job's arguments and result",
        answers="The arguments and the result.",
    )
    async def get_job_arguments(id: JobId, queue: JobQueue = provided) -> JobArgumentsBody:
        """Get the arguments and the result of a job, redacted. Dead jobs are included."""
        payload = redaction.shown(await queue.payload(str(id)))
        return JobArgumentsBody.model_validate(payload)
