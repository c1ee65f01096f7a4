"""Routes that list, get, cancel and reschedule jobs, and show their arguments."""

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Path, Query
from starlette.convertors import Convertor, register_url_convertor

from jobrunner.core.job import JobBody
from jobrunner.core.redaction import Redaction
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.job_schemas import (
    CancelCountsBody,
    CancelFilterBody,
    CancelledBody,
    JobArgumentsBody,
    JobDetailBody,
    JobPageBody,
    JobQuery,
    RescheduleBody,
    RescheduleCountsBody,
    RescheduleFilterBody,
)
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import BODY, Problems
from jobrunner.queue.queue import JobQueue

JobFilter = Annotated[
    JobQuery, Query(), Problems(problems.INVALID_OPTIONS, problems.INVALID_CURSOR)
]
CancelFilter = Annotated[CancelFilterBody, Problems(problems.INVALID_OPTIONS, *BODY)]
Reschedule = Annotated[RescheduleBody, Problems(problems.INVALID_OPTIONS, *BODY)]
RescheduleMany = Annotated[RescheduleFilterBody, Problems(problems.INVALID_OPTIONS, *BODY)]


class _IdConvertor(Convertor[str]):
    """Matches the id of a job, or a part of one, but no word.

    So a router of the application can have paths such as ``/jobs/ui``, whichever of the two is included first, and a
    mistyped id still gets a problem document.
    """

    regex = "(?=[a-fA-F-]*[0-9])[0-9a-fA-F-]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("jobrunner_id", _IdConvertor())
ONE: Final = "/{id:jobrunner_id}"
"""The path of one job."""

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
            batch=where.batch,
            since=where.since,
            until=where.until,
            limit=where.limit,
            cursor=where.cursor,
        )
        return JobPageBody.model_validate(page)


def add_job(reading: Operations, acting: Operations, provided: Any, operating: Any) -> None:
    """Add the routes of one job."""

    @reading.route("GET", ONE, summary="Get a job", answers="The job.")
    async def get_job(id: JobId, queue: JobQueue = provided) -> JobDetailBody:
        """Get a job with its attempts, without its arguments. Dead jobs are included."""
        return JobDetailBody.model_validate(await queue.get(str(id)))

    @acting.route(
        "POST",
        f"{ONE}/cancel",
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

    @acting.route(
        "POST",
        f"{ONE}/reschedule",
        problems.NOT_WAITING,
        summary="Reschedule a job",
        answers="The job as it is now.",
    )
    async def reschedule_job(
        id: JobId, body: Reschedule, operator: Operator = operating
    ) -> JobBody:
        """Make a scheduled or queued job due at another time. It may also wait for a retry.

        A job that is due now starts at once if a slot is free. One that is asleep or waits for a signal is refused.
        """
        async with operator.act("reschedule", target=str(id)):
            job = await operator.queue.reschedule(str(id), body.delay, run_at=body.run_at)
        return JobBody.model_validate(job)


def add_many(acting: Operations, operating: Any) -> None:
    """Add the routes that cancel and reschedule jobs by filter."""

    @acting.route(
        "POST",
        "/cancel",
        summary="Cancel jobs by filter",
        answers="The numbers of cancelled jobs and of running jobs that were asked to stop.",
    )
    async def cancel_jobs(body: CancelFilter, operator: Operator = operating) -> CancelCountsBody:
        """Cancel every unfinished job that matches all given filters.

        Waiting jobs are cancelled at once, with the jobs behind them in their chains; running ones are asked to stop.
        Jobs that are stored after the request began stay. `dry_run` only counts.
        """
        where = body.where()
        if body.dry_run:
            counts = await operator.queue.cancel_all(**where, dry_run=True)
        else:
            async with operator.act("cancel_all", filter=where) as act:
                counts = await operator.queue.cancel_all(**where)
                act.count = counts.cancelled + counts.requested
        return CancelCountsBody.model_validate({**asdict(counts), "dry_run": body.dry_run})

    @acting.route(
        "POST",
        "/reschedule",
        summary="Reschedule jobs by filter",
        answers="The number of rescheduled jobs, and of those that would expire before the new time.",
    )
    async def reschedule_jobs(
        body: RescheduleMany, operator: Operator = operating
    ) -> RescheduleCountsBody:
        """Move every waiting job that matches all given filters to another time.

        Waiting means scheduled or queued, but not asleep and not waiting for a signal. Jobs that are stored after the
        request began stay as they are. `dry_run` only counts.
        """
        where = body.where()
        reschedule = partial(operator.queue.reschedule_all, body.delay, run_at=body.run_at, **where)
        if body.dry_run:
            counts = await reschedule(dry_run=True)
        else:
            async with operator.act("reschedule_all", filter=where) as act:
                counts = await reschedule()
                act.count = counts.rescheduled
        return RescheduleCountsBody.model_validate({**asdict(counts), "dry_run": body.dry_run})


def add_arguments(seeing: Operations, provided: Any, redaction: Redaction) -> None:
    """Add the route that shows the arguments and the result of any job."""

    @seeing.route(
        "GET",
        f"{ONE}/arguments",
        summary="Get a job's arguments and result",
        answers="The arguments and the result.",
    )
    async def get_job_arguments(id: JobId, queue: JobQueue = provided) -> JobArgumentsBody:
        """Get the arguments and the result of a job, redacted. Dead jobs are included."""
        payload = redaction.shown(await queue.payload(str(id)))
        return JobArgumentsBody.model_validate(payload)
