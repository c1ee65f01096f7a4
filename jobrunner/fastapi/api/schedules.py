"""Routes that list, get, store, remove, run, pause and resume schedules."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Path, Query

from jobrunner.core.errors import ScheduleNotFound, UnknownTask
from jobrunner.core.job import JobBody
from jobrunner.core.redaction import Redaction
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import BODY, Problems, Refusal
from jobrunner.fastapi.api.schedule_schemas import (
    ScheduleBody,
    SchedulePageBody,
    ScheduleQuery,
    TickQuery,
    TicksBody,
    UpsertBody,
)
from jobrunner.queue.queue import JobQueue
from jobrunner.queue.schedules import Schedules

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
TickFilter = Annotated[TickQuery, Query(), Problems(problems.INVALID_OPTIONS)]


def add_schedules(
    reading: Operations, acting: Operations, provided: Any, operating: Any, redaction: Redaction
) -> None:
    """Add the routes of schedules to the jobs router."""
    _add_reads(reading, provided, redaction)
    _add_changes(acting, operating, redaction)
    _add_run_now(acting, operating)
    _add_pauses(acting, operating, redaction)


def _add_reads(reading: Operations, provided: Any, redaction: Redaction) -> None:
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
        return ScheduleBody.model_validate(redaction.shown(await queue.schedules.get(id)))

    @reading.route(
        "GET",
        "/schedules/{id}/ticks",
        summary="List the ticks of a schedule",
        answers="Ticks, newest first.",
    )
    async def list_ticks(
        id: ScheduleId, where: TickFilter, queue: JobQueue = provided
    ) -> TicksBody:
        """List the recorded ticks of a schedule, newest first.

        The list holds the ticks that made a job and those that were skipped.
        """
        ticks = await queue.schedules.ticks(id, before=where.before, limit=where.limit)
        return TicksBody.model_validate({"items": ticks})


def _add_changes(acting: Operations, operating: Any, redaction: Redaction) -> None:
    @acting.route(
        "PUT",
        "/schedules/{id}",
        problems.DECLARED_IN_CODE,
        summary="Store a schedule",
        answers="The stored schedule.",
    )
    async def put_schedule(
        id: NewScheduleId, body: Upsert, operator: Operator = operating
    ) -> ScheduleBody:
        """Store a schedule, or change the one with this id. All workers use it at once.

        An argument that is sent as `[redacted]`, as it was shown, keeps its value.
        """
        # Take each value by itself: model_dump() would turn values nested in the arguments into plain data.
        given = {name: getattr(body, name) for name in UpsertBody.model_fields if name != "task"}
        schedules = operator.queue.schedules
        async with operator.act("schedules.upsert", target=id):
            given["args"] = redaction.restored(body.args, await _args_of(schedules, id, body.task))
            stored = await schedules.upsert(id, body.task, **given)
        return ScheduleBody.model_validate(redaction.shown(stored))

    @acting.route(
        "DELETE",
        "/schedules/{id}",
        problems.DECLARED_IN_CODE,
        summary="Remove a schedule",
        answers="The schedule is removed.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def remove_schedule(id: ScheduleId, operator: Operator = operating) -> None:
        """Remove a schedule and the record of its ticks; its jobs stay.

        A schedule that is declared in code cannot be removed.
        """
        async with operator.act("schedules.remove", target=id):
            await operator.queue.schedules.remove(id)


async def _args_of(schedules: Schedules, id: str, task: str) -> Mapping[str, Any]:
    """Return the stored arguments of a schedule; none if it does not exist or is of another task."""
    try:
        stored = await schedules.get(id)
    except ScheduleNotFound:
        return {}
    return stored.args if stored.task == task else {}


def _add_run_now(acting: Operations, operating: Any) -> None:
    @acting.route(
        "POST",
        "/schedules/{id}/run",
        problems.NO_HANDLER,
        summary="Run a schedule now",
        answers="The job that will run.",
        status=HTTPStatus.ACCEPTED,
    )
    async def run_schedule_now(id: ScheduleId, operator: Operator = operating) -> JobBody:
        """Store a job of the schedule that is due at once.

        The job has the same options as the other jobs of the schedule. The ticks do not change.
        """
        try:
            async with operator.act("schedules.run_now", target=id) as act:
                job = await operator.queue.schedules.run_now(id)
                act.count = 1 if job.created else 0
        except UnknownTask as error:
            raise Refusal(problems.NO_HANDLER, str(error)) from error
        return JobBody.model_validate(job)


def _add_pauses(acting: Operations, operating: Any, redaction: Redaction) -> None:
    @acting.route(
        "POST",
        "/schedules/{id}/pause",
        summary="Pause a schedule",
        answers="The schedule is paused.",
    )
    async def pause_schedule(id: ScheduleId, operator: Operator = operating) -> ScheduleBody:
        """Stop making jobs for a schedule, in all processes, until it is resumed."""
        async with operator.act("schedules.pause", target=id):
            paused = await operator.queue.schedules.pause(id)
        return ScheduleBody.model_validate(redaction.shown(paused))

    @acting.route(
        "POST",
        "/schedules/{id}/resume",
        summary="Resume a schedule",
        answers="The schedule is not paused.",
    )
    async def resume_schedule(id: ScheduleId, operator: Operator = operating) -> ScheduleBody:
        """Make jobs for a schedule again. Ticks during the pause make no jobs."""
        async with operator.act("schedules.resume", target=id):
            resumed = await operator.queue.schedules.resume(id)
        return ScheduleBody.model_validate(redaction.shown(resumed))
