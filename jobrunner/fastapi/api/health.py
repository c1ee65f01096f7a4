"""The route of the runner's health."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import Response

from jobrunner.fastapi.api.health_schemas import HealthBody
from jobrunner.fastapi.api.operations import Operations
from jobrunner.queue.queue import JobQueue

_UNAVAILABLE: Final[int] = HTTPStatus.SERVICE_UNAVAILABLE


def add_health(reading: Operations, provided: Any) -> None:
    """Add the route to the jobs router."""

    @reading.route(
        "GET",
        "/health",
        summary="Health",
        answers="Jobs are safe; `problems` says what needs a look.",
        responses={
            _UNAVAILABLE: {
                "model": HealthBody,
                "description": "or the health of a worker that has stopped",
            }
        },
    )
    async def get_health(response: Response, queue: JobQueue = provided) -> HealthBody:
        """Say whether the promises are being kept: 200 while they are, 503 once this worker stops or has failed."""
        health = await queue.health()
        if health.status in {"stopping", "failed"}:
            response.status_code = _UNAVAILABLE
        return HealthBody.model_validate(health)
