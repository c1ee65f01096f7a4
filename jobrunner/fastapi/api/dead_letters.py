"""Routes that list, get, replay and delete dead letters."""

from dataclasses import asdict
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
    Path(description="The id of the dead letter, which is the id of its job."),
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
        answers="Dead letters, most recent death first.",
    )
    async def list_dead_letters(
        where: DeadLetterFilter, queue: JobQueue = provided
    ) -> DeadLetterPageBody:
        """List dead letters, most recent death first, with their arguments.

        A dead letter is a job that will not run again by itself.
        """
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
        """Get a dead letter with its arguments, its last traceback and its attempts."""
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
        """Put a dead letter back into its queue, with a new count of attempts.

        Without changed arguments the job keeps its id. With changed arguments a new job with a new id is stored, linked
        to the dead letter.
        """
        changes = body.args if body else None
        try:
            # An empty object changes nothing: the same job runs again and keeps its id.
            job = await queue.dead_letters.replay(str(id), args=changes or None)
        except (UnknownTask, UnknownQueue) as error:
            raise Refusal(problems.NO_HANDLER, str(error)) from error
        except JobNotFound:
            # The second click of a double click: the replay is already done. If the job never existed, get() raises.
            job = await queue.get(str(id))
            raise Refusal(
                problems.ALREADY_REPLAYED,
                f"the job is {job.state}, not (or no longer) a dead letter",
            ) from None
        return JobBody.model_validate(job)

    @acting.route(
        "POST",
        "/dead-letters/replay",
        summary="Replay dead letters by filter",
        answers="The number of replayed dead letters.",
    )
    async def replay_dead_letters(body: ReplayFilter, queue: JobQueue = provided) -> ReplayedBody:
        """Replay every dead letter that matches all given filters, with its arguments unchanged.

        `dry_run` only counts them. `per_minute` spreads the due times of the jobs, which are then `scheduled`.
        """
        letters = queue.dead_letters
        where = body.where()
        matched = await letters.count(**where)
        counts = await letters.replay_all(**where, per_minute=body.per_minute, dry_run=body.dry_run)
        return ReplayedBody.model_validate(
            {
                **asdict(counts),
                "matched": max(matched, counts.replayed + counts.conflicts),
                "dry_run": body.dry_run,
            }
        )


def _add_delete(acting: Operations, provided: Any) -> None:
    @acting.route(
        "DELETE",
        "/dead-letters/{id}",
        summary="Delete a dead letter",
        answers="The dead letter is deleted.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def delete_dead_letter(id: DeadLetterId, queue: JobQueue = provided) -> None:
        """Delete a dead letter and its attempts permanently."""
        await queue.dead_letters.delete(str(id))
