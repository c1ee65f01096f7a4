"""Finds a request's queue on ``app.state``, where the open runner has put it."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

import jobrunner.queue.sync
from jobrunner.core.errors import ConfigurationError, NotRunning
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.tasks.dependencies import supplied

NO_RUNNER = (
    "no runner is open for this app. Either the app was made without it: write"
    " FastAPI(lifespan=jobs.lifespan), or `async with jobs.running(app):` in a lifespan of your own."
    " Or its lifespan has not run: TestClient(app) runs it only as a context manager, so write"
    " `with TestClient(app) as client:`."
)
MOUNTED = (
    " This app is mounted inside another one, and servers run the lifespan of the outermost app alone:"
    " open the runner in that one's lifespan, with the app that has these routes:"
    " `async with jobs.running(inner_app):`."
)


@supplied("queue")
async def get_queue(connection: HTTPConnection) -> JobQueue:
    """Return the queue of the runner that is open on the request's application.

    This is the dependency of the alias ``Queue``, and its key in ``app.dependency_overrides``. If the application is
    mounted in another one, the runner of the outer one is found too.

    Raises:
        NotRunning: No runner is open; the message names the line to write.
        ConfigurationError: The runner has a ``session``, which this queue would not join.
    """
    queue = await find_queue(connection)
    advice = enqueuer_of(queue).parts.session_advice
    if advice is not None:
        raise ConfigurationError(advice)
    return queue


async def find_queue(connection: HTTPConnection) -> JobQueue:
    """Return the queue of the request's runner, even if that has a session.

    Raises:
        NotRunning: No runner is open; the message names the line to write.
    """
    for app in _apps(connection):
        queue: JobQueue | None = getattr(getattr(app, "state", None), "jobrunner", None)
        if queue is not None:
            return queue
    raise NotRunning(
        NO_RUNNER + (MOUNTED if connection.scope.get("app_root_path") is not None else "")
    )


def name_of(connection: HTTPConnection) -> str:
    """Return a request's name for messages: ``POST /register``."""
    path = getattr(connection.scope.get("route"), "path", connection.scope.get("path"))
    return f"{connection.scope.get('method', 'WebSocket')} {path}"


def _apps(connection: HTTPConnection) -> Iterator[object]:
    """Yield the application that serves the connection, then the outermost one."""
    yield connection.scope.get("app")
    # A mounted application has replaced the outer one in the scope. Only the request's first router is still there.
    yield getattr(connection.scope.get("router"), "dependency_overrides_provider", None)


Queue = Annotated[JobQueue, Depends(get_queue)]
"""The queue of the request's application, for ``async def`` routes.

Write ``queue: Queue``, then ``await queue.enqueue(task, ...)``.
"""


async def get_sync_queue(queue: Queue) -> jobrunner.queue.sync.SyncQueue:
    """Return the blocking queue for a ``def`` route, which runs in a thread."""
    return jobrunner.queue.sync.SyncQueue(queue)


SyncQueue = Annotated[jobrunner.queue.sync.SyncQueue, Depends(get_sync_queue)]
"""The blocking queue of the request's application, for ``def`` routes.

Write ``queue: SyncQueue``, then ``queue.enqueue(task, ...)``.
"""
