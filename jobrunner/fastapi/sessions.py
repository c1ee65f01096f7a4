"""Offers dependencies whose queue stores jobs in the transaction of the request's session.

The route and the queue get the same session from FastAPI's dependency cache.  The key of the cache is the function and
its scope, so the same function in another scope yields another session.  That cannot be detected during a request, so
the routes are checked when the runner opens (``route_checks``).
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from fastapi import Depends, params
from starlette.requests import HTTPConnection

import jobrunner.queue.sync
from jobrunner.core.errors import ConfigurationError
from jobrunner.fastapi.background import (
    FindQueue,
    GetBackground,
    background_dependency,
    yield_alone,
    yield_in_session,
)
from jobrunner.fastapi.dependencies import find_queue, name_of
from jobrunner.queue.queue import JobQueue
from jobrunner.queue.queue import joined as joined_to
from jobrunner.store.session_writer import Caller
from jobrunner.tasks.dependencies import supplied

GetQueue = Callable[..., Awaitable[JobQueue]]
GetSyncQueue = Callable[..., Awaitable[jobrunner.queue.sync.SyncQueue]]

_JOINS: Final = "_jobrunner_joins"
"""The attribute of a dependency function that holds the dependency of the session that it joins."""


class Dependencies(NamedTuple):
    """The dependencies of routes for a queue in a session's transaction."""

    queue: GetQueue
    sync_queue: GetSyncQueue


def job_queue(session: params.Depends | Callable[..., Any]) -> GetQueue:
    """Return the dependency for a queue that stores jobs in the request's transaction.

    ::

        SessionDep = Annotated[AsyncSession, Depends(get_session)]
        Queue = Annotated[JobQueue, Depends(job_queue(get_session))]

        @app.post("/register")
        async def register(email: str, session: SessionDep, queue: Queue) -> None:
            session.add(User(email=email))
            await queue.enqueue(send_welcome_email, email)
            await session.commit()

    The jobs are committed or rolled back with the session's rows, and run after the commit. Each call with the same
    argument returns the same function.

    Args:
        session: The dependency that yields the session, or ``Depends(get_session, scope="function")``. The routes must
            depend on the session with the same scope.

    Raises:
        ConfigurationError: The session is not a dependency, or has ``use_cache=False``.
    """
    marker = marker_of(session)
    return _by_request(marker.dependency, marker.use_cache, marker.scope).queue


def sync_job_queue(session: params.Depends | Callable[..., Any]) -> GetSyncQueue:
    """Return the dependency of ``job_queue`` in its blocking form, for ``def`` routes.

    ::

        Queue = Annotated[SyncQueue, Depends(sync_job_queue(get_session))]

    With a ``Session`` of SQLAlchemy or a ``sqlite3.Connection`` the jobs are written in the route's own thread.

    Args:
        session: The dependency that yields the session; see ``job_queue``.

    Raises:
        ConfigurationError: The session is not a dependency, or has ``use_cache=False``.
    """
    marker = marker_of(session)
    return _by_request(marker.dependency, marker.use_cache, marker.scope).sync_queue


def job_background(session: params.Depends | Callable[..., Any]) -> GetBackground:
    """Return the dependency for background tasks that are stored in the request's transaction.

    ::

        Background = Annotated[DurableBackgroundTasks, Depends(job_background(get_session))]

    If the session has uncommitted changes when the route returns, the tasks are committed or rolled back with them.
    Otherwise they are stored in a separate commit.

    Args:
        session: The dependency that yields the session; see ``job_queue``.

    Raises:
        ConfigurationError: The session is not a dependency, or has ``use_cache=False``.
    """
    marker = marker_of(session)
    return _background_by_request(marker.dependency, marker.use_cache, marker.scope)


def background_of(
    owner: object,
    session: params.Depends | Callable[..., Any] | None,
    queue: Callable[[], JobQueue],
) -> GetBackground:
    """Return one runner's dependency for background tasks.

    Args:
        owner: The runner.
        session: The dependency that yields the session; None to store the tasks in a separate commit.
        queue: Returns the runner's open queue.

    Raises:
        ConfigurationError: The session is not a dependency, or has ``use_cache=False``.
    """

    async def find(_: HTTPConnection) -> JobQueue:
        return queue()

    if session is None:
        return background_dependency(yield_alone(find), owner)
    return _background(marker_of(session), find, owner)


def queues_of(
    owner: object, session: params.Depends | Callable[..., Any], queue: Callable[[], JobQueue]
) -> Dependencies:
    """Return one runner's dependencies for queues in a session's transaction.

    Args:
        owner: The runner.
        session: The dependency that yields the session.
        queue: Returns the runner's open queue.

    Raises:
        ConfigurationError: The session is not a dependency, or has ``use_cache=False``.
    """

    async def find(connection: HTTPConnection) -> JobQueue:
        return queue()

    return _dependencies(marker_of(session), find, owner)


def marker_of(session: object) -> params.Depends:
    """Return the session's dependency as ``Depends(...)``.

    Raises:
        ConfigurationError: The session is not a dependency.
    """
    if isinstance(session, params.Depends) and session.dependency is not None:
        return session
    if callable(session) and not isinstance(session, params.Depends):
        return params.Depends(session)
    raise ConfigurationError(
        f"session={session!r} is no dependency: write session=get_session, or"
        ' session=Depends(get_session, scope="function")'
    )


@cache
def _by_request(dependency: Callable[..., Any] | None, use_cache: bool, scope: Any) -> Dependencies:
    return _dependencies(params.Depends(dependency, use_cache, scope), find_queue)


@cache
def _background_by_request(
    dependency: Callable[..., Any] | None, use_cache: bool, scope: Any
) -> GetBackground:
    return _background(params.Depends(dependency, use_cache, scope), find_queue)


def _background(session: params.Depends, find: FindQueue, owner: object = None) -> GetBackground:
    _check_shared(session)
    private = yield_in_session(find, session)
    setattr(private, _JOINS, session)
    return background_dependency(private, owner)


def _check_shared(session: params.Depends) -> None:
    if not session.use_cache:
        raise ConfigurationError(
            "with use_cache=False the queue would get a separate session, not the route's: write"
            f" session={_written(session)}"
        )


def _dependencies(session: params.Depends, find: FindQueue, owner: object = None) -> Dependencies:
    _check_shared(session)

    # Entered after the session and left before it, so that an error of the route is known when the session ends.
    async def call_of(connection: HTTPConnection, joined: Any = session) -> AsyncIterator[Caller]:
        caller = Caller(name_of(connection))
        try:
            yield caller
        except BaseException:
            caller.has_raised = True
            raise

    setattr(call_of, _JOINS, session)

    async def get_joined_queue(
        connection: HTTPConnection,
        joined: Any = session,
        caller: Caller = Depends(call_of, scope="function"),
    ) -> JobQueue:
        return joined_to(await find(connection), joined, caller)

    async def get_joined_sync_queue(
        queue: JobQueue = Depends(get_joined_queue),
    ) -> jobrunner.queue.sync.SyncQueue:
        return jobrunner.queue.sync.SyncQueue(queue)

    setattr(get_joined_queue, _JOINS, session)
    supplied("joined queue", owner, session)(get_joined_queue)
    return Dependencies(get_joined_queue, get_joined_sync_queue)


def advice_for(session: params.Depends | Callable[..., Any]) -> str:
    """Return the error message for a plain ``Queue`` on a runner with a session."""
    written = _written(marker_of(session))
    return (
        f"this runner has session={written}, and a plain Queue, SyncQueue or Background would store jobs in a"
        f" separate transaction: write Queue = Annotated[JobQueue, Depends(job_queue({written}))], in `def` routes"
        f" SyncQueue = Annotated[SyncQueue, Depends(sync_job_queue({written}))], Background ="
        f" Annotated[DurableBackgroundTasks, Depends(job_background({written}))], with the functions"
        " from jobrunner.fastapi; or Depends(jobs.queue) and Depends(jobs.background)"
    )


def _written(session: params.Depends) -> str:
    name = getattr(session.dependency, "__name__", repr(session.dependency))
    return name if session.scope is None else f'Depends({name}, scope="{session.scope}")'


# -- checks of the routes ------------------------------------------------------------------------------


def check_scopes(title: str, dependants: Sequence[Any]) -> None:
    """Refuse a route whose queue joins the session in another scope than the route's.

    Args:
        title: The route's methods and path, for the error.
        dependants: The route's function and all of its dependencies.

    Raises:
        ConfigurationError: The scopes of the route and of its queue or background tasks differ. The message names the
            route and the line to write.
    """
    for wanted in {session for one in dependants if (session := getattr(one.call, _JOINS, None))}:
        for one in dependants:
            if one.call == wanted.dependency and not _same(one, wanted):
                raise ConfigurationError(_mismatch(title, one, wanted))


def check_websocket(title: str, dependants: Sequence[Any]) -> None:
    """Refuse a WebSocket whose queue joins a session that its route does not use.

    The session ends when the client disconnects, usually with an error. Jobs that the client believes stored would be
    rolled back.

    Args:
        title: The route's path, for the error.
        dependants: The route's function and all of its dependencies.

    Raises:
        ConfigurationError: Only the queue depends on the session, so nothing else can commit it.
    """
    for one in dependants:
        session = getattr(one.call, _JOINS, None)
        if session is not None and not any(
            held.call == session.dependency
            for holder in dependants
            if not hasattr(holder.call, _JOINS)
            for held in holder.dependencies
        ):
            raise ConfigurationError(
                f"{title}: its queue stores jobs in the transaction of {_written(session)}, which ends when the"
                " WebSocket does, and nothing in the route can commit it before: leave the queue out, and write `await"
                " task.enqueue(...)` for each message"
            )


def _same(dependant: Any, session: params.Depends) -> bool:
    return bool(dependant.use_cache) and _scope_of(dependant.scope, session) == _scope_of(
        session.scope, session
    )


def _scope_of(scope: str | None, session: params.Depends) -> str:
    """Return the scope that FastAPI uses for a dependency.

    Without a named scope it is "request" for a generator, and none for other functions.
    """
    call = inspect.unwrap(session.dependency) if session.dependency is not None else None
    call = call if inspect.isroutine(call) else getattr(call, "__call__", None)  # noqa: B004
    makes = inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)
    return scope or ("request" if makes else "")


def _mismatch(title: str, dependant: Any, session: params.Depends) -> str:
    name = getattr(session.dependency, "__name__", repr(session.dependency))
    held = f'scope="{dependant.scope}"' if dependant.scope else "no scope"
    if not dependant.use_cache:
        held = "use_cache=False"
    wanted = _written(session) if session.scope else f"Depends({name})"
    fix = f"write {wanted} in the route"
    if dependant.use_cache and dependant.scope:
        fix += f', or JobRunner(session=Depends({name}, scope="{dependant.scope}"))'
    return (
        f"{title}: the route holds {name} with {held} and its queue or background tasks with {wanted},"
        f" which FastAPI takes for two sessions, so that the jobs would not be in the route's transaction: {fix}"
    )
