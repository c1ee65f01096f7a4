"""The routes of jobs: list, get, cancel, and see the arguments."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.job_schemas import (
    CancelledBody,
    JobArgumentsBody,
    JobDetailBody,
    JobPageBody,
    JobQuery,
)
from jobrunner.fastapi.api.operations import Operations
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
        """List jobs, newest first, without their arguments; dead ones only with `state=dead`, last died first."""
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


def add_job(reading: Operations, acting: Operations, provided: Any) -> None:
    """Add the routes of one job. They come last: the path of the first one takes every word."""

    @reading.route("GET", "/{id}", summary="Get a job", answers="The job.")
    async def get_job(id: JobId, queue: JobQueue = provided) -> JobDetailBody:
        """Get a job with its attempts, without its arguments; a dead one is found too."""
        return JobDetailBody.model_validate(await queue.get(str(id)))

    @acting.route(
        "POST",
        "/{id}/cancel",
        summary="Cancel a job",
        answers="What became of it.",
    )
    async def cancel_job(id: JobId, queue: JobQueue = provided) -> CancelledBody:
        """Cancel a waiting job at once; ask a running one to stop. A finished or dead one is left alone."""
        return CancelledBody(status=await queue.cancel(str(id)))


def add_arguments(seeing: Operations, provided: Any) -> None:
    """Add the route that shows the arguments and the result of any job."""

    @seeing.route(
        "GET",
        "/{id}/arguments",
        summary="Get a job's arguments and result",
        answers="The arguments and the result.",
    )
    async def get_job_arguments(id: JobId, queue: JobQueue = provided) -> JobArgumentsBody:
        """Get what a job was given and what it returned, in any state; a dead one is found too."""
        return JobArgumentsBody.model_validate(await queue.payload(str(id)))
