"""Routes that list, set and reset limits."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Query

from jobrunner.core.limits import LimitScope
from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.limit_schemas import (
    MAX_NAME,
    LimitBody,
    LimitListQuery,
    LimitPageBody,
    NewLimitBody,
)
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import BODY, Problems
from jobrunner.queue.limits import made_rate, meant
from jobrunner.queue.queue import JobQueue

LimitFilter = Annotated[LimitListQuery, Query(), Problems(problems.INVALID_OPTIONS)]
Scope = Annotated[
    LimitScope,
    Query(
        description="`queue`, `task`, `lanes` (each value of the task's `by`) or `lane` (one value)."
    ),
    Problems(),
]
LimitedName = Annotated[
    str,
    Query(
        description="The name of the queue or the task, or the lane, such as `sync[42]`.",
        examples=["sync"],
        min_length=1,
        max_length=MAX_NAME,
    ),
    Problems(problems.UNKNOWN_QUEUE, problems.UNKNOWN_TASK, problems.INVALID_OPTIONS),
]
NewLimit = Annotated[NewLimitBody, Problems(*BODY)]


def add_limits(reading: Operations, acting: Operations, provided: Any, operating: Any) -> None:
    """Add the routes of limits to the jobs router."""

    @reading.route("GET", "/limits", summary="List limits", answers="Limits.")
    async def list_limits(where: LimitFilter, queue: JobQueue = provided) -> LimitPageBody:
        """List the limits in force: of queues and tasks first, then of single lanes."""
        page = await queue.limits.list(limit=where.limit, cursor=where.cursor)
        return LimitPageBody.model_validate(page)

    @acting.route("PUT", "/limits", summary="Set a limit", answers="The limit as it is now.")
    async def set_limit(
        scope: Scope, name: LimitedName, body: NewLimit, operator: Operator = operating
    ) -> LimitBody:
        """Set numbers that count instead of those in the code.

        They hold in all processes until the limit is reset. Running jobs are not stopped.
        """
        async with operator.act("limits.set", target=f"{scope} {name}"):
            rate = body.rate_limit
            limit = await operator.queue.limits.set(
                **meant(scope, name),
                concurrency=body.concurrency,
                rate_limit=None
                if rate is None
                else made_rate(rate.limit, rate.per, burst=rate.burst),
                max_waiting=body.max_waiting,
            )
        return LimitBody.model_validate(limit)

    @acting.route(
        "DELETE",
        "/limits",
        summary="Reset a limit",
        answers="The limit is reset.",
        status=HTTPStatus.NO_CONTENT,
    )
    async def reset_limit(scope: Scope, name: LimitedName, operator: Operator = operating) -> None:
        """Let the numbers in the code count again; without effect if none were set."""
        async with operator.act("limits.reset", target=f"{scope} {name}") as act:
            act.count = int(await operator.queue.limits.reset(**meant(scope, name)))
