"""The jobs router: puts the routes of each noun together, behind their locks.

Two locks: ``read`` for routes that only look, ``act`` for those that change something.  Each stands before the queue,
so that a stranger learns nothing, not even that the runner is closed.
"""

import re
from collections.abc import Callable

from fastapi import APIRouter, Depends, params
from fastapi.routing import APIRoute

from jobrunner.core.errors import ConfigurationError
from jobrunner.fastapi.api.dead_letters import add_dead_letters
from jobrunner.fastapi.api.health import add_health
from jobrunner.fastapi.api.hosts import ONLY_LOCAL
from jobrunner.fastapi.api.jobs import add_arguments, add_job, add_job_list
from jobrunner.fastapi.api.operations import READ, WRITE, Operations
from jobrunner.fastapi.api.queues import add_queues
from jobrunner.fastapi.api.route import ProblemRoute
from jobrunner.fastapi.api.schedules import add_schedules

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
    acting = Operations(router, may_act, WRITE)
    provided = Depends(queue)
    add_job_list(reading, provided)
    add_dead_letters(reading, acting, provided)
    add_queues(reading, acting, provided)
    add_schedules(reading, acting, provided)
    add_health(reading, provided)
    if arguments is not None:
        add_arguments(Operations(router, _lock("arguments", arguments), READ), provided)
    add_job(reading, acting, provided)  # last: its path takes every word
    return router


def _lock(name: str, guard: Guard) -> params.Depends:
    if isinstance(guard, params.Depends):
        if guard.dependency is not None:
            return guard
    elif callable(guard):
        made: params.Depends = Depends(guard)
        return made
    raise ConfigurationError(
        f"jobs.router({name}=...) takes a dependency: bearer(TOKEN), Depends(f), or the function itself"
    )


def _operation_id(route: APIRoute) -> str:
    """Name an operation by its prefix and function: the routers of two runners may stand in one app."""
    # FastAPI hands in the route under its prefix, which knows the route that it stands for.
    own = getattr(route, "original_route", route)
    prefix = route.path_format.removesuffix(own.path_format)
    words = re.findall(r"[A-Za-z0-9]+", prefix)
    return "_".join([*words, route.name])
