"""Offers two routes for the liveness and readiness probes of a platform.

They answer with one word and have no guard, because probes send no token.  The reasons are in the guarded ``/health``
of the jobs router.
"""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.requests import Request

from jobrunner.core.errors import NotRunning
from jobrunner.fastapi.dependencies import find_queue
from jobrunner.queue.queue import enqueuer_of


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """The readiness of the process for work."""

    status: Literal["ready", "not ready"]


def probes() -> APIRouter:
    """Return a router with ``GET /live`` and ``GET /ready`` for probes.

    ::

        app.include_router(probes(), prefix="/health")

    ``/live`` answers 200 while the event loop runs. Restart the process if it does not answer.

    ``/ready`` answers 200 while the supervisor makes progress, that is, while its rounds reach the disk. Otherwise it
    answers 503: after the shutdown signal, after a failure, or with a full disk. Send no requests to a process that is
    not ready, but do not restart it: it may be finishing its jobs.

    Both routes are open to all clients.
    """
    router = APIRouter(tags=["health"])
    unavailable: int = HTTPStatus.SERVICE_UNAVAILABLE

    @router.get("/live", summary="Alive")
    async def get_live() -> Alive:
        """Answer while the event loop runs."""
        return Alive()

    @router.get(
        "/ready",
        summary="Ready",
        responses={unavailable: {"model": Readiness, "description": "Send it no work."}},
    )
    async def get_ready(request: Request, response: Response) -> Readiness:
        """Answer 200 while the supervisor makes progress, otherwise 503."""
        try:
            ready = enqueuer_of(await find_queue(request)).parts.worker.is_ready()
        except NotRunning:
            ready = False
        response.headers["cache-control"] = "no-store"
        if not ready:
            response.status_code = unavailable
        return Readiness(status="ready" if ready else "not ready")

    return router
