"""Routes that list, get, store, remove, run, pause and resume schedules."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Path, Query

from jobrunner.core.errors import UnknownTask
from jobrunner.core.job import JobBody
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.problems import BODY, Problems, Refusal
from jobrunner.fastapi.api.schedule_schemas import (
    ScheduleBody,
    SchedulePageBody,
    ScheduleQuery,
    TicksBody,
    UpsertBody,
)
from jobrunner.queue.filters import DEFAULT_ROWS, MOST_ROWS
from jobrunner.queue.queue import JobQueue

ScheduleFilter = Annotated[ScheduleQuery, Query(), Problems(problems.INVALID_OPTIONS)]
NewScheduleId = Annotated[
    str,
    Path(
        description="The schedule's id.",
        examples=["daily_report"],
        max_length=200,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@+-]*$",
    ),
    Problems(),
]
ScheduleId = Annotated[NewScheduleId, Problems(problems.SCHEDULE_NOT_FOUND)]
Upsert = Annotated[
    UpsertBody,
    Problems(problems.INVALID_SCHEDULE, problems.INVALID_ARGUMENTS, problems.UNKNOWN_TASK, *BODY),
]
TickLimit = Annotated[
    int, Query(ge=1, le=MOST_ROWS, description="The most entries to return."), Problems()
]


def add_schedules(reading: Operations, acting: Operations, provided: Any) -> None:
    """Add the routes of schedules to the jobs router."""
    _add_reads(reading, provided)
    _add_changes(acting, provided)
    _add_pauses(acting, provided)


def _add_reads(reading: Operations, provided: Any) -> None:
    @reading.route(
        "GET",
        "/schedules",
        summary="List schedules",
        answers="Schedules, sorted by id.",
    )
    async def list_schedules(where: ScheduleFilter, queue: JobQueue = provided) -> SchedulePageBody:
        """List schedules, sorted by id, without their arguments.

        The list holds the schedules declared in code and those stored at run time.
        """
        page = await queue.schedules.list(task=where.task, limit=where.limit, cursor=where.cursor)
        return SchedulePageBody.model_validate(page)

    @reading.route(
        "GET",
        "/schedules/{id}",
        summary="Get a schedule",
        answers="The schedule.",
    )
    async def get_schedule(id: ScheduleId, queue: JobQueue = provided) -> ScheduleBody:
        """Get a schedule with its arguments."""
        return ScheduleBody.model_validate(await queue.schedules.get(id))

    @reading.route(
        "GET",
        "/schedules/{id}/ticks",
        summary="List the ticks of a schedule",
        answers="Ticks, newest first.",
    )
    async def list_ticks(
        id: ScheduleId, limit: TickLimit = DEFAULT_ROWS, queue: JobQueue = provided
    ) -> TicksBody:
        """List the recorded ticks of a schedule, newest first.

        The list holds the ticks that made a job and those that were skipped.
        """
        return TicksBody.model_validate({"items": await queue.schedules.ticks(id, limit=limit)})


def _add_changes(acting: Operations, provided: Any) -> None:
    @acting.route(
        "PUT",
        "/schedules/{id}",
        problems.DECLARED_IN_CODE,
        summary="Store a schedule",
        answers="The stored schedule.",
    )
    async def put_schedule(
        id: NewScheduleId, body: Upsert, queue: JobQueue = provided
    ) -> ScheduleBody:
        """Store a schedule, or change the one with this id. All workers use it at once."""
        # Take each value by itself: model_dump() would turn values nested in the arguments into plain data.
        given = {name: getattr(body, name) for name in UpsertBody.model_fields if name != "task"}
        return ScheduleBody.model_validate(await queue.schedules.upsert(id, body.task, **given))

    @acting.route(
        "DELETE",
        "/schedules/{id}",
        problems.DECLARED_IN_CODE,
        summary="Remove a schedule",
        answers="The schedule is removed.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def remove_schedule(id: ScheduleId, queue: JobQueue = provided) -> None:
        """Remove a schedule and the record of its ticks; its jobs stay.

        A schedule that is declared in code cannot be removed.
        """
        await queue.schedules.remove(id)

    @acting.route(
        "POST",
        "/schedules/{id}/run",
        problems.NO_HANDLER,
        summary="Run a schedule now",
        answers="The job that will run.",
        status=HTTPStatus.ACCEPTED,
    )
    async def run_schedule_now(id: ScheduleId, queue: JobQueue = provided) -> JobBody:
        """Store a job of the schedule that is due at once.

        The job has the same options as the other jobs of the schedule. The ticks do not change.
        """
        try:
            job = await queue.schedules.run_now(id)
        except UnknownTask as error:
            raise Refusal(problems.NO_HANDLER, str(error)) from error
        return JobBody.model_validate(job)


def _add_pauses(acting: Operations, provided: Any) -> None:
    @acting.route(
        "POST",
        "/schedules/{id}/pause",
        summary="Pause a schedule",
        answers="The schedule is paused.",
    )
    async def pause_schedule(id: ScheduleId, queue: JobQueue = provided) -> ScheduleBody:
        """Stop making jobs for a schedule, in all processes, until it is resumed."""
        return ScheduleBody.model_validate(await queue.schedules.pause(id))

    @acting.route(
        "POST",
        "/schedules/{id}/resume",
        summary="Resume a schedule",
        answers="The schedule is not paused.",
    )
    async def resume_schedule(id: ScheduleId, queue: JobQueue = provided) -> ScheduleBody:
        """Make jobs for a schedule again. Ticks during the pause make no jobs."""
        return ScheduleBody.model_validate(await queue.schedules.resume(id))
