"""Builds the jobs router from the routes of each noun.

Two guards protect the routes: ``read`` those that only read, ``act`` those that change something.  FastAPI resolves
the guard before the queue, so that a stranger cannot find out even that the runner is closed.
"""

import re
from collections.abc import Callable

from fastapi import APIRouter, Depends, params
from fastapi.routing import APIRoute

from jobrunner.core.errors import ConfigurationError
from jobrunner.core.redaction import Redaction
from jobrunner.fastapi.api.audit import add_audit
from jobrunner.fastapi.api.batches import add_batches
from jobrunner.fastapi.api.dead_letters import add_dead_letters
from jobrunner.fastapi.api.health import add_health
from jobrunner.fastapi.api.hosts import ONLY_LOCAL
from jobrunner.fastapi.api.jobs import add_arguments, add_job, add_job_list, add_many
from jobrunner.fastapi.api.limits import add_limits
from jobrunner.fastapi.api.operations import READ, WRITE, Operations
from jobrunner.fastapi.api.operators import operator_of
from jobrunner.fastapi.api.queues import add_queues
from jobrunner.fastapi.api.route import ProblemRoute
from jobrunner.fastapi.api.schedules import add_schedules
from jobrunner.fastapi.api.signals import add_signals
from jobrunner.fastapi.api.stats import add_stats

Guard = params.Depends | Callable[..., object]
"""A guard or another dependency: ``Depends(f)``, or the function ``f`` itself."""

OPEN_TO_ALL = (
    "jobs.router() has no guard, so everyone could read and replay jobs: write"
    " jobs.router(read=bearer(TOKEN)) with `from jobrunner.fastapi import bearer` (or a dependency of your"
    " own), or jobs.router(insecure=True) for an app that only localhost can reach"
)
OPEN_TO_READ = (
    "jobs.router(act=...) guards the routes that change jobs, but everyone could read them: write"
    " jobs.router(read=..., act=...), or jobs.router(act=..., insecure=True) if that is meant"
)


def build_router(
    queue: Callable[..., object],
    *,
    read: Guard | None = None,
    act: Guard | None = None,
    arguments: Guard | None = None,
    signal: Guard | None = None,
    actor: Guard | None = None,
    insecure: bool = False,
    redaction: Redaction,
) -> APIRouter:
    """Return the router with all routes of jobs.

    Include it under a prefix: ``app.include_router(..., prefix="/jobs")``.

    Args:
        queue: the dependency that provides the ``JobQueue``; also its key in ``app.dependency_overrides``.
        read: the guard of the routes that only read.
        act: the guard of the routes that replay, cancel, delete, pause and schedule; by default ``read``.
        arguments: the guard of the route that shows the arguments and the result of any job.  Without it the route does
            not exist, even with ``insecure``.
        signal: the guard of the route that sends signals to jobs; by default ``act``.
        actor: the dependency that returns the client's name for the audit log; by default it is ``"unknown"``.
        insecure: without ``read`` or ``act``, accept every request that names a local host.
        redaction: hides sensitive arguments and results.

    Raises:
        ConfigurationError: The router has no ``read``, and ``insecure`` is not set.
    """
    if read is None and not insecure:
        raise ConfigurationError(OPEN_TO_ALL if act is None else OPEN_TO_READ)
    may_read = ONLY_LOCAL if read is None else marker("read", read)
    may_act = may_read if act is None else marker("act", act)
    may_signal = may_act if signal is None else marker("signal", signal)

    router = APIRouter(
        tags=["jobs"], route_class=ProblemRoute, generate_unique_id_function=operation_id
    )
    reading = Operations(router, may_read, READ)
    acting = Operations(router, may_act, WRITE)
    provided = Depends(queue)
    operator = Depends(operator_of(queue, None if actor is None else marker("actor", actor)))
    add_job_list(reading, provided)
    add_dead_letters(reading, acting, provided, operator, redaction)
    add_batches(reading, acting, provided, operator)
    add_queues(reading, acting, provided, operator)
    add_limits(reading, acting, provided, operator)
    add_schedules(reading, acting, provided, operator, redaction)
    add_stats(reading, provided)
    add_audit(reading, provided)
    add_health(reading, provided)
    if arguments is not None:
        seeing = Operations(router, marker("arguments", arguments), READ)
        add_arguments(seeing, provided, redaction)
    add_many(acting, operator)
    add_job(reading, acting, provided, operator)
    add_signals(Operations(router, may_signal, WRITE), operator)
    return router


def marker(name: str, guard: Guard, call: str = "jobs.router") -> params.Depends:
    """Return a guard, or another dependency, in the form that routes take.

    Raises:
        ConfigurationError: It is none; the message names the argument of ``call``.
    """
    if isinstance(guard, params.Depends):
        if guard.dependency is not None:
            return guard
    elif callable(guard):
        made: params.Depends = Depends(guard)
        return made
    example = "" if name == "actor" else "bearer(TOKEN), "
    raise ConfigurationError(
        f"{call}({name}=...) takes a dependency: {example}Depends(f), or the function itself"
    )


def operation_id(route: APIRoute) -> str:
    """Return an operation id that starts with the prefix of the route.

    An app may include the routers of two runners, and their ids must differ.
    """
    # FastAPI passes the route under its prefix, which refers to the original route of this router.
    own = getattr(route, "original_route", route)
    prefix = route.path_format.removesuffix(own.path_format)
    words = re.findall(r"[A-Za-z0-9]+", prefix)
    return "_".join([*words, route.name])
