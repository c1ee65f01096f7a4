"""Two routes for probes: is the process alive, and should it be sent work?

They say one word and are open to everybody, as probes need.  The reasons behind the word are in the jobs router's
``/health``, behind its lock.
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
    """Whether to send it work."""

    status: Literal["ready", "not ready"]


def probes() -> APIRouter:
    """Return ``GET /live`` and ``GET /ready``: ``app.include_router(probes(), prefix="/health")``.

    ``/live`` is answered as long as the event loop turns: restart the process if it is not. ``/ready`` is 200 only
    while the supervisor makes progress, which is while its rounds reach the disk, and 503 otherwise: from the shutdown
    signal on, after a failure, with a full disk. A process that is not ready needs no restart: it may be finishing
    its jobs.
    """
    router = APIRouter(tags=["health"])
    unavailable: int = HTTPStatus.SERVICE_UNAVAILABLE

    @router.get("/live", summary="Alive")
    async def get_live() -> Alive:
        """Say that the event loop turns."""
        return Alive()

    @router.get(
        "/ready",
        summary="Ready",
        responses={unavailable: {"model": Readiness, "description": "Send it no work."}},
    )
    async def get_ready(request: Request, response: Response) -> Readiness:
        """Say whether the supervisor makes progress."""
        try:
            ready = enqueuer_of(await find_queue(request)).parts.worker.is_ready()
        except NotRunning:
            ready = False
        response.headers["cache-control"] = "no-store"
        if not ready:
            response.status_code = unavailable
        return Readiness(status="ready" if ready else "not ready")

    return router
