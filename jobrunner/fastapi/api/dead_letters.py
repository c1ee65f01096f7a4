"""The routes of dead letters: list, get, replay, delete."""

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query

from jobrunner.core.errors import JobNotFound, UnknownQueue, UnknownTask
from jobrunner.core.job import JobBody
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.dead_letter_schemas import (
    DeadLetterBody,
    DeadLetterPageBody,
    DeadLetterQuery,
    ReplayBody,
    ReplayedBody,
    ReplayFilterBody,
)
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.problems import BODY, Problems, Refusal
from jobrunner.queue.queue import JobQueue

DeadLetterFilter = Annotated[
    DeadLetterQuery, Query(), Problems(problems.INVALID_OPTIONS, problems.INVALID_CURSOR)
]
DeadLetterId = Annotated[
    UUID,
    Path(description="The dead letter's id, which is its job's."),
    Problems(problems.NOT_FOUND),
]
Replay = Annotated[ReplayBody | None, Problems(problems.INVALID_ARGUMENTS, *BODY)]
ReplayFilter = Annotated[ReplayFilterBody, Problems(problems.INVALID_OPTIONS, *BODY)]


def add_dead_letters(reading: Operations, acting: Operations, provided: Any) -> None:
    """Add the routes of dead letters to the jobs router."""
    _add_reads(reading, provided)
    _add_replays(acting, provided)
    _add_delete(acting, provided)


def _add_reads(reading: Operations, provided: Any) -> None:
    @reading.route(
        "GET",
        "/dead-letters",
        summary="List dead letters",
        answers="Dead letters, last died first.",
    )
    async def list_dead_letters(
        where: DeadLetterFilter, queue: JobQueue = provided
    ) -> DeadLetterPageBody:
        """List jobs that will not run again by themselves, last died first, with their arguments."""
        page = await queue.dead_letters.list(
            task=where.task,
            queue=where.queue,
            reason=where.reason,
            tag=where.tag,
            since=where.since,
            until=where.until,
            limit=where.limit,
            cursor=where.cursor,
        )
        return DeadLetterPageBody.model_validate(page)

    @reading.route(
        "GET", "/dead-letters/{id}", summary="Get a dead letter", answers="The dead letter."
    )
    async def get_dead_letter(id: DeadLetterId, queue: JobQueue = provided) -> DeadLetterBody:
        """Get a dead letter whole: arguments, last traceback, attempts."""
        return DeadLetterBody.model_validate(await queue.dead_letters.get(str(id)))


def _add_replays(acting: Operations, provided: Any) -> None:
    @acting.route(
        "POST",
        "/dead-letters/{id}/replay",
        problems.KEY_TAKEN,
        problems.ALREADY_REPLAYED,
        problems.NO_HANDLER,
        summary="Replay a dead letter",
        answers="The job that will run.",
        status=HTTPStatus.ACCEPTED,
    )
    async def replay_dead_letter(
        id: DeadLetterId, body: Replay = None, queue: JobQueue = provided
    ) -> JobBody:
        """Put a dead letter back, with fresh attempts.

        As it was, it keeps its id. With changed arguments it becomes a new job with a new id, linked to it.
        """
        changes = body.args if body else None
        try:
            # No change is no edit: the same job runs again, and keeps the id that others know it by.
            job = await queue.dead_letters.replay(str(id), args=changes or None)
        except (UnknownTask, UnknownQueue) as error:
            raise Refusal(problems.NO_HANDLER, str(error)) from error
        except JobNotFound:
            # The second click of a double click: what it asks for has been done (or raises again, if it never was).
            job = await queue.get(str(id))
            raise Refusal(
                problems.ALREADY_REPLAYED, f"the job is {job.state}, not (or no more) a dead letter"
            ) from None
        return JobBody.model_validate(job)

    @acting.route(
        "POST",
        "/dead-letters/replay",
        summary="Replay dead letters by filter",
        answers="How many.",
    )
    async def replay_dead_letters(body: ReplayFilter, queue: JobQueue = provided) -> ReplayedBody:
        """Put back every dead letter to which everything given applies, as it was; `dry_run` only counts them."""
        letters = queue.dead_letters
        where: dict[str, Any] = body.model_dump(exclude={"all", "dry_run"})
        matched = await letters.count(**where)
        replayed = 0 if body.dry_run else await letters.replay_all(**where)
        return ReplayedBody(matched=max(matched, replayed), replayed=replayed, dry_run=body.dry_run)


def _add_delete(acting: Operations, provided: Any) -> None:
    @acting.route(
        "DELETE",
        "/dead-letters/{id}",
        summary="Delete a dead letter",
        answers="It is gone.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def delete_dead_letter(id: DeadLetterId, queue: JobQueue = provided) -> None:
        """Delete a dead letter and its attempts for good."""
        await queue.dead_letters.delete(str(id))
