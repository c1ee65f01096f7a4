"""The route that shows the health of the runner."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import Response

from jobrunner.fastapi.api.health_schemas import HealthBody
from jobrunner.fastapi.api.operations import Operations
from jobrunner.queue.queue import JobQueue

_UNAVAILABLE: Final[int] = HTTPStatus.SERVICE_UNAVAILABLE


def add_health(reading: Operations, provided: Any) -> None:
    """Add the health route to the jobs router."""

    @reading.route(
        "GET",
        "/health",
        summary="Get the health",
        answers="The jobs are safe; `problems` lists what needs attention.",
        responses={
            _UNAVAILABLE: {
                "model": HealthBody,
                "description": "or the health of a worker that has stopped",
            }
        },
    )
    async def get_health(response: Response, queue: JobQueue = provided) -> HealthBody:
        """Get the health of the runner and its store, with the problems found.

        The status is 200 while jobs are safe, and 503 when this worker is stopping or has failed.
        """
        health = await queue.health()
        if health.status in {"stopping", "failed"}:
            response.status_code = _UNAVAILABLE
        return HealthBody.model_validate(health)
