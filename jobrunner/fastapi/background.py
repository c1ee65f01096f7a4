"""Stores a request's background tasks after its route has succeeded.

They are stored before the response is sent.  FastAPI ends a ``yield`` dependency after the response unless its scope is
"function", which each ``Depends(...)`` would have to name.  So routes depend on a plain function, and the ``yield`` is
in a private dependency of that function.

In a WebSocket route the ``yield`` lasts until the client disconnects, and then usually ends with an error: tasks that
the client believes stored would be lost.  Such a route is refused when the runner opens, or at the latest when a client
connects.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends, params
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.logs import log_of
from jobrunner.core.model import Enqueue
from jobrunner.core.shield import at_once
from jobrunner.fastapi.dependencies import get_queue, name_of
from jobrunner.queue.background import DurableBackgroundTasks
from jobrunner.queue.enqueuer import Enqueuer
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.store.session_writer import Caller
from jobrunner.tasks.dependencies import kind_of, label, supplied, supply_of

logger = log_of("jobrunner")

FindQueue = Callable[[HTTPConnection], Awaitable[JobQueue]]
GetBackground = Callable[..., Awaitable[DurableBackgroundTasks]]
YieldBackground = Callable[..., AsyncIterator[DurableBackgroundTasks]]
StoreJobs = Callable[[Sequence[Enqueue]], Awaitable[None]]

_IN_THREAD: Final = ("function", "generator")
"""The kinds of dependencies that FastAPI calls in a thread. Their session belongs to threads, and may block one."""

_STORED = "the response of this request is made, and what was added before is stored"
_FAILED = "this request has failed, and nothing that it added is stored"


def yield_alone(find: FindQueue) -> YieldBackground:
    """Return the private dependency that stores tasks in a separate commit."""

    async def yield_background(connection: HTTPConnection) -> AsyncIterator[DurableBackgroundTasks]:
        queue = await find(connection)
        async with _stored_at_the_end(
            connection, queue, None, enqueuer_of(queue).store_alone
        ) as tasks:
            yield tasks

    return yield_background


def yield_in_session(find: FindQueue, session: params.Depends) -> YieldBackground:
    """Return the private dependency that stores tasks with the session's changes, if any.

    It is entered after the session and left before it, so that a commit after the session's ``yield`` includes them.
    """
    in_thread = session.dependency is not None and kind_of(session.dependency) in _IN_THREAD

    async def yield_background(
        connection: HTTPConnection, joined: Any = session
    ) -> AsyncIterator[DurableBackgroundTasks]:
        queue = await find(connection)
        enqueuer = enqueuer_of(queue).joined(joined, Caller(name_of(connection)))
        store = partial(_store_with_session, enqueuer, in_thread)
        async with _stored_at_the_end(connection, queue, joined, store) as tasks:
            yield tasks

    return yield_background


@asynccontextmanager
async def _stored_at_the_end(
    connection: HTTPConnection, queue: JobQueue, session: object, store: StoreJobs
) -> AsyncIterator[DurableBackgroundTasks]:
    """Collect tasks inside the block, and store them unless the block raises."""
    if connection.scope["type"] == "websocket":
        raise ConfigurationError(f"{name_of(connection)}: {_in_websocket('the route')}")
    # `Background` and `Depends(jobs.background)` in one request share one object. The one that is entered first is left
    # last, and stores the tasks.
    shared: dict[tuple[int, int], DurableBackgroundTasks]
    shared = connection.scope.setdefault("jobrunner.background", {})
    key = id(queue), id(session)
    if key in shared:
        yield shared[key]
        return
    tasks = shared[key] = DurableBackgroundTasks(enqueuer_of(queue).prepare)
    try:
        yield tasks
    except BaseException as error:
        dropped = tasks.take(_FAILED)
        if dropped and isinstance(error, GeneratorExit):
            # The route has raised no error that would explain the loss: the code that resolved the dependencies has
            # never closed them.
            logger.error(
                "%s: the dependencies of this request were never closed, so that %d background task(s) that it had"
                " added are not stored (%s)",
                name_of(connection),
                len(dropped),
                ", ".join(sorted({job.task for job in dropped})),
            )
        raise
    if jobs := tasks.take(_STORED):
        await store(jobs)


async def _store_with_session(enqueuer: Enqueuer, in_thread: bool, jobs: Sequence[Enqueue]) -> None:
    """Store tasks with the session's uncommitted rows, otherwise in a separate commit.

    The application commits no session that has no changes, or that it has already committed.
    """
    storing = enqueuer.store_with_changes(jobs)
    if in_thread and enqueuer.is_blocking(()):
        is_stored = await run_in_threadpool(at_once, storing)
    else:
        is_stored = await storing
    if not is_stored:
        await enqueuer.store_alone(jobs)


def check_background(title: str, route: Any, dependant: Any) -> None:
    """Refuse a route whose background tasks could not be stored.

    Args:
        title: The route's methods and path, for the error.
        route: The route.
        dependant: FastAPI's analysis of the route's function; None if it has none.

    Raises:
        ConfigurationError: The route or one of its dependencies takes background tasks, and the route is a WebSocket,
            or a stream, which begins only after they are stored.
    """
    through = None if dependant is None else _way_to_background(dependant)
    if through is None:
        return
    holder = f"{label(dependant.call)}()"
    if through:
        holder += f", through {' > '.join(map(label, through))},"
    if not getattr(route, "methods", None):
        raise ConfigurationError(f"{title}: {_in_websocket(holder)}")
    if not through and kind_of(dependant.call).endswith("generator"):
        raise ConfigurationError(
            f"{title}: {holder} yields its response and holds Background, whose tasks are stored before the first part"
            " leaves: write `queue: Queue` in its place, and `await queue.enqueue(task, ...)`"
        )


def _in_websocket(holder: str) -> str:
    return (
        f"{holder} holds Background, and its tasks would be stored when the WebSocket ends, if at all: leave it out,"
        " and write `await task.enqueue(...)` for each message"
    )


def _way_to_background(dependant: Any) -> list[Callable[..., Any]] | None:
    """Return the chain of dependencies from a function to its background tasks.

    Returns:
        The dependencies in between, an empty list if the function itself takes background tasks. None if neither the
        function nor a dependency takes any.
    """
    for dependency in dependant.dependencies:
        if supply_of(dependency.call) == "background":
            return []
        way = _way_to_background(dependency)
        if way is not None:
            return [dependency.call, *way]
    return None


def background_dependency(private: YieldBackground, owner: object = None) -> GetBackground:
    """Return the public dependency for routes, which depends on the private one.

    Args:
        private: Collects and stores the tasks.
        owner: The runner that stores the tasks; None for the runner of the request or of the attempt.
    """

    @supplied("background", owner)
    async def get_background(
        tasks: DurableBackgroundTasks = Depends(private, scope="function"),
    ) -> DurableBackgroundTasks:
        return tasks

    return get_background


get_background = background_dependency(yield_alone(get_queue))

Background = Annotated[DurableBackgroundTasks, Depends(get_background)]
"""The background tasks of a request or an attempt, for routes, their dependencies and tasks.

Write ``background: Background``, then ``background.add_task(task, ...)``.
"""
