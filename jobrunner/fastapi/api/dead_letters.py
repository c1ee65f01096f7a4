"""Routes that list, group, get, replay and delete dead letters."""

from dataclasses import asdict, replace
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Query

from jobrunner.core.errors import JobNotFound, UnknownQueue, UnknownTask
from jobrunner.core.job import JobBody
from jobrunner.core.redaction import Redaction
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.dead_letter_schemas import (
    DeadLetterBody,
    DeadLetterGroupsBody,
    DeadLetterPageBody,
    DeadLetterQuery,
    ReplayBody,
    ReplayedBody,
    ReplayFilterBody,
)
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
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
Replay = Annotated[
    ReplayBody | None, Problems(problems.INVALID_ARGUMENTS, problems.INVALID_OPTIONS, *BODY)
]
ReplayFilter = Annotated[ReplayFilterBody, Problems(problems.INVALID_OPTIONS, *BODY)]


def add_dead_letters(
    reading: Operations, acting: Operations, provided: Any, operating: Any, redaction: Redaction
) -> None:
    """Add the routes of dead letters to the jobs router."""
    _add_reads(reading, provided, redaction)
    _add_replay(acting, operating, redaction)
    _add_replay_all(acting, operating)
    _add_delete(acting, operating)


def _add_reads(reading: Operations, provided: Any, redaction: Redaction) -> None:
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
            group=where.group,
            batch=where.batch,
            since=where.since,
            until=where.until,
            limit=where.limit,
            cursor=where.cursor,
        )
        items = [redaction.shown(letter) for letter in page.items]
        return DeadLetterPageBody.model_validate(replace(page, items=items))

    @reading.route(
        "GET",
        "/dead-letters/groups",
        summary="List groups of dead letters",
        answers="The groups, most recent death first.",
    )
    async def list_dead_letter_groups(queue: JobQueue = provided) -> DeadLetterGroupsBody:
        """List groups of dead letters that failed in the same way.

        The group with the most recent death comes first. Jobs that wait for a retry are counted in the group of their
        last failure.
        """
        return DeadLetterGroupsBody.model_validate(await queue.dead_letters.groups())

    @reading.route(
        "GET", "/dead-letters/{id}", summary="Get a dead letter", answers="The dead letter."
    )
    async def get_dead_letter(id: DeadLetterId, queue: JobQueue = provided) -> DeadLetterBody:
        """Get a dead letter with its arguments, its last traceback and its attempts."""
        letter = redaction.shown(await queue.dead_letters.get(str(id)))
        return DeadLetterBody.model_validate(letter)


def _add_replay(acting: Operations, operating: Any, redaction: Redaction) -> None:
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
        id: DeadLetterId, body: Replay = None, operator: Operator = operating
    ) -> JobBody:
        """Put a dead letter back into its queue, with a new count of attempts.

        Without changed arguments the job keeps its id. With changed arguments a new job with a new id is stored, linked
        to the dead letter. An argument that is sent as `[redacted]`, as it was shown, keeps its value. The job's
        finished steps are not done again, except those in `forget`.
        """
        queue, given = operator.queue, body.args if body else None
        forget = body.forget if body else []
        try:
            # An empty object changes nothing: the same job runs again and keeps its id.
            if not given:
                async with operator.act("dead_letters.replay", target=str(id)):
                    job = await queue.dead_letters.replay(str(id), forget=forget)
            else:
                async with operator.act("dead_letters.replay_edited", target=str(id)):
                    letter = await queue.dead_letters.get(str(id))
                    changes = redaction.restored(given, letter.args)
                    job = await queue.dead_letters.replay(str(id), args=changes, forget=forget)
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


def _add_replay_all(acting: Operations, operating: Any) -> None:
    @acting.route(
        "POST",
        "/dead-letters/replay",
        summary="Replay dead letters by filter",
        answers="The number of replayed dead letters.",
    )
    async def replay_dead_letters(
        body: ReplayFilter, operator: Operator = operating
    ) -> ReplayedBody:
        """Replay every dead letter that matches all given filters, with its arguments unchanged.

        Those whose arguments no longer fit their task stay. A dry run checks the first 1,000 for that.

        `dry_run` only counts them. `per_minute` spreads the due times of the jobs, which are then `scheduled`.
        """
        letters = operator.queue.dead_letters
        where = body.where()
        matched = await letters.count(**where)
        if body.dry_run:
            counts = await letters.replay_all(**where, per_minute=body.per_minute, dry_run=True)
        else:
            async with operator.act("dead_letters.replay_all", filter=where) as act:
                counts = await letters.replay_all(**where, per_minute=body.per_minute)
                act.count = counts.replayed
        return ReplayedBody.model_validate(
            {
                **asdict(counts),
                "matched": max(matched, counts.replayed + counts.conflicts + counts.invalid),
                "dry_run": body.dry_run,
            }
        )


def _add_delete(acting: Operations, operating: Any) -> None:
    @acting.route(
        "DELETE",
        "/dead-letters/{id}",
        summary="Delete a dead letter",
        answers="The dead letter is deleted.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def delete_dead_letter(id: DeadLetterId, operator: Operator = operating) -> None:
        """Delete a dead letter and its attempts permanently."""
        async with operator.act("dead_letters.delete", target=str(id)):
            await operator.queue.dead_letters.delete(str(id))
