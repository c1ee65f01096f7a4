"""The jobs router: everything that can be asked of and done to a runner, over HTTP.

Two locks: ``read`` for what only looks, ``act`` for what changes something.  Each stands before the queue, so that a
stranger learns nothing, not even that the runner is closed.
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Response, params
from fastapi.routing import APIRoute

from jobrunner.core.errors import ConfigurationError, JobNotFound, UnknownQueue, UnknownTask
from jobrunner.core.job import JobBody
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.hosts import ONLY_LOCAL
from jobrunner.fastapi.api.operations import BODY, FILTER, READ, WRITE, Operations
from jobrunner.fastapi.api.problems import Refusal, with_schema
from jobrunner.fastapi.api.route import ProblemRoute
from jobrunner.fastapi.api.schedules import add_schedules
from jobrunner.fastapi.api.schemas import (
    CancelledBody,
    DeadLetterBody,
    DeadLetterPageBody,
    DeadLetterQuery,
    HealthBody,
    JobArgumentsBody,
    JobDetailBody,
    JobPageBody,
    JobQuery,
    Name,
    PausedBody,
    QueuesBody,
    ReplayBody,
    ReplayedBody,
    ReplayFilterBody,
)
from jobrunner.queue.queue import JobQueue

Guard = params.Depends | Callable[..., object]
"""A lock: ``Depends(f)``, or ``f`` itself."""

OPEN_TO_ALL = (
    "jobs.router() has no lock, so everyone could read and replay jobs: write"
    " jobs.router(read=bearer(TOKEN)) with `from jobrunner.fastapi import bearer` (or a dependency of your"
    " own), or jobs.router(insecure=True) for an app that only localhost can reach"
)
OPEN_TO_READ = (
    "jobs.router(act=...) locks what changes jobs, but everyone could read them: write"
    " jobs.router(read=..., act=...), or jobs.router(act=..., insecure=True) if that is meant"
)

JobId = Annotated[UUID, Path(description="The job's id.")]
DeadLetterId = Annotated[UUID, Path(description="The dead letter's id, which is its job's.")]
QueueName = Annotated[Name, Path(description="The queue's name.", examples=["mail"])]


def build_router(
    queue: Callable[..., object],
    *,
    read: Guard | None = None,
    act: Guard | None = None,
    arguments: Guard | None = None,
    insecure: bool = False,
) -> APIRouter:
    """Return the routes, to be included under a prefix: ``app.include_router(..., prefix="/jobs")``.

    Args:
        queue: the dependency that gives the ``JobQueue``; the key to override it by in ``app.dependency_overrides``.
        read: lets those pass who may look.
        act: lets those pass who may replay, cancel, delete, pause and schedule; by default the same as ``read``.
        arguments: lets those pass who may see the arguments and result of any job; without it nobody may, and there is
            no such route, whatever ``insecure`` says.
        insecure: where ``read`` or ``act`` is not given, let all pass that name a local host.

    Raises:
        ConfigurationError: everyone could read, and ``insecure`` does not say that this is meant.
    """
    if read is None and not insecure:
        raise ConfigurationError(OPEN_TO_ALL if act is None else OPEN_TO_READ)
    may_read = ONLY_LOCAL if read is None else _lock("read", read)
    may_act = may_read if act is None else _lock("act", act)

    router = APIRouter(
        tags=["jobs"], route_class=ProblemRoute, generate_unique_id_function=_operation_id
    )
    reading = Operations(router, may_read, READ)
    acting = Operations(router, may_act, (*WRITE, problems.CROSS_ORIGIN))
    provided = Depends(queue)
    _add_list(reading, provided)
    _add_dead_letters(reading, provided)
    _add_replays(acting, provided)
    _add_delete(acting, provided)
    _add_queues(reading, acting, provided)
    add_schedules(reading, acting, provided)
    _add_health(reading, provided)
    if arguments is not None:
        _add_arguments(Operations(router, _lock("arguments", arguments), READ), provided)
    _add_job(reading, acting, provided)  # last: its path takes every word
    return router


def _lock(side: str, guard: Guard) -> params.Depends:
    if isinstance(guard, params.Depends):
        if guard.dependency is not None:
            return guard
    elif callable(guard):
        made: params.Depends = Depends(guard)
        return made
    raise ConfigurationError(
        f"jobs.router({side}=...) takes a dependency: bearer(TOKEN), Depends(f), or the function itself"
    )


def _operation_id(route: APIRoute) -> str:
    """Name an operation by its prefix and function: the routers of two runners may stand in one app."""
    # FastAPI hands in the route under its prefix, which knows the route that it stands for.
    own = getattr(route, "original_route", route)
    prefix = route.path_format.removesuffix(own.path_format)
    words = re.findall(r"[A-Za-z0-9]+", prefix)
    return "_".join([*words, route.name])


# -- jobs ---------------------------------------------------------------------------------------------


def _add_list(reading: Operations, provided: Any) -> None:
    responses, schema = with_schema(reading.problems(*FILTER, problems.INVALID_CURSOR))

    @reading.route(
        "GET",
        "",
        summary="List jobs",
        answers="Jobs, newest first.",
        responses=responses,
        openapi_extra=schema,
    )
    async def list_jobs(
        where: Annotated[JobQuery, Query()], queue: JobQueue = provided
    ) -> JobPageBody:
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


def _add_job(reading: Operations, acting: Operations, provided: Any) -> None:
    @reading.route(
        "GET",
        "/{id}",
        problems.NOT_FOUND,
        problems.INVALID_REQUEST,
        summary="Get a job",
        answers="The job.",
    )
    async def get_job(id: JobId, queue: JobQueue = provided) -> JobDetailBody:
        """Get a job with its attempts, without its arguments; a dead one is found too."""
        return JobDetailBody.model_validate(await queue.get(str(id)))

    @acting.route(
        "POST",
        "/{id}/cancel",
        problems.NOT_FOUND,
        problems.INVALID_REQUEST,
        summary="Cancel a job",
        answers="What became of it.",
    )
    async def cancel_job(id: JobId, queue: JobQueue = provided) -> CancelledBody:
        """Cancel a waiting job at once; ask a running one to stop. A finished or dead one is left alone."""
        return CancelledBody(status=await queue.cancel(str(id)))


def _add_arguments(seeing: Operations, provided: Any) -> None:
    @seeing.route(
        "GET",
        "/{id}/arguments",
        problems.NOT_FOUND,
        problems.INVALID_REQUEST,
        summary="Get a job's arguments and result",
        answers="The arguments and the result.",
    )
    async def get_job_arguments(id: JobId, queue: JobQueue = provided) -> JobArgumentsBody:
        """Get what a job was given and what it returned, in any state; a dead one is found too."""
        return JobArgumentsBody.model_validate(await queue.payload(str(id)))


# -- dead letters -------------------------------------------------------------------------------------


def _add_dead_letters(reading: Operations, provided: Any) -> None:
    @reading.route(
        "GET",
        "/dead-letters",
        *FILTER,
        problems.INVALID_CURSOR,
        summary="List dead letters",
        answers="Dead letters, last died first.",
    )
    async def list_dead_letters(
        where: Annotated[DeadLetterQuery, Query()], queue: JobQueue = provided
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
        "GET",
        "/dead-letters/{id}",
        problems.NOT_FOUND,
        problems.INVALID_REQUEST,
        summary="Get a dead letter",
        answers="The dead letter.",
    )
    async def get_dead_letter(id: DeadLetterId, queue: JobQueue = provided) -> DeadLetterBody:
        """Get a dead letter whole: arguments, last traceback, attempts."""
        return DeadLetterBody.model_validate(await queue.dead_letters.get(str(id)))


def _add_replays(acting: Operations, provided: Any) -> None:
    @acting.route(
        "POST",
        "/dead-letters/{id}/replay",
        problems.NOT_FOUND,
        problems.KEY_TAKEN,
        problems.ALREADY_REPLAYED,
        problems.NO_HANDLER,
        problems.INVALID_REQUEST,
        problems.INVALID_ARGUMENTS,
        *BODY,
        summary="Replay a dead letter",
        answers="The job that will run.",
        status=HTTPStatus.ACCEPTED,
    )
    async def replay_dead_letter(
        id: DeadLetterId, body: ReplayBody | None = None, queue: JobQueue = provided
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
        *FILTER,
        *BODY,
        summary="Replay dead letters by filter",
        answers="How many.",
    )
    async def replay_dead_letters(
        body: ReplayFilterBody, queue: JobQueue = provided
    ) -> ReplayedBody:
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
        problems.NOT_FOUND,
        problems.INVALID_REQUEST,
        summary="Delete a dead letter",
        answers="It is gone.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def delete_dead_letter(id: DeadLetterId, queue: JobQueue = provided) -> None:
        """Delete a dead letter and its attempts for good."""
        await queue.dead_letters.delete(str(id))


# -- queues and health --------------------------------------------------------------------------------


def _add_queues(reading: Operations, acting: Operations, provided: Any) -> None:
    @reading.route("GET", "/queues", summary="List queues", answers="The queues.")
    async def list_queues(queue: JobQueue = provided) -> QueuesBody:
        """List the queues over all workers: what waits, what runs, what is paused."""
        return QueuesBody.model_validate(await queue.queues.list())

    @acting.route(
        "POST",
        "/queues/{name}/pause",
        problems.UNKNOWN_QUEUE,
        problems.INVALID_REQUEST,
        summary="Pause a queue",
        answers="The queue is paused.",
    )
    async def pause_queue(name: QueueName, queue: JobQueue = provided) -> PausedBody:
        """Start none of the queue's jobs, in any process, until it is resumed; running ones go on."""
        await queue.queues.pause(name)
        return PausedBody(name=name, paused=True)

    @acting.route(
        "POST",
        "/queues/{name}/resume",
        problems.UNKNOWN_QUEUE,
        problems.INVALID_REQUEST,
        summary="Resume a queue",
        answers="The queue is not paused.",
    )
    async def resume_queue(name: QueueName, queue: JobQueue = provided) -> PausedBody:
        """Start the queue's jobs again."""
        await queue.queues.resume(name)
        return PausedBody(name=name, paused=False)


def _add_health(reading: Operations, provided: Any) -> None:
    responses = reading.problems()
    unavailable: int = HTTPStatus.SERVICE_UNAVAILABLE
    responses[unavailable] |= {"model": HealthBody}
    responses[unavailable]["description"] += "; or the health of a worker that has stopped"

    @reading.route(
        "GET",
        "/health",
        summary="Health",
        answers="Jobs are safe; `problems` says what needs a look.",
        responses=responses,
    )
    async def get_health(response: Response, queue: JobQueue = provided) -> HealthBody:
        """Say whether the promises are being kept: 200 while they are, 503 once this worker stops or has failed."""
        health = HealthBody.model_validate(await queue.health())
        if health.status in {"stopping", "failed"}:
            response.status_code = unavailable
        return health
