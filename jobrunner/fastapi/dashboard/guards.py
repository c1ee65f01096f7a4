"""Finds out what a viewer may do: read, act, and see arguments.

A guard is any FastAPI dependency that raises.  One made by ``bearer()`` also accepts the cookie of the sign-in page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from fastapi import Depends, params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message

from jobrunner.core.errors import ConfigurationError
from jobrunner.fastapi.api.hosts import is_local
from jobrunner.fastapi.api.problems import HOST_NOT_LOCAL, Refusal
from jobrunner.fastapi.bearer import BearerToken
from jobrunner.fastapi.dashboard.login import has_pass

Guard = params.Depends | Callable[..., object]
"""A guard: ``Depends(f)``, or the function ``f`` itself."""

OPEN_TO_ALL: Final = (
    "jobs.dashboard() has no guard, so everyone could read and replay jobs: write"
    " jobs.dashboard(read=bearer(TOKEN)) with `from jobrunner.fastapi import bearer` (or a dependency of your"
    " own), or jobs.dashboard(insecure=True) for an app that only localhost can reach"
)
OPEN_TO_READ: Final = (
    "jobs.dashboard(act=...) guards what changes jobs, but everyone could read them: write"
    " jobs.dashboard(read=..., act=...), or jobs.dashboard(act=..., insecure=True) if that is meant"
)
_MOST_SHOWN: Final = 100


async def refuse_other_hosts(connection: HTTPConnection) -> None:
    """Refuse a request that names a host that is not local, against DNS rebinding.

    Raises:
        Refusal: The request names such a host.
    """
    for host in connection.headers.getlist("host"):
        if not is_local(host):
            raise Refusal(
                HOST_NOT_LOCAL,
                f"jobs.dashboard(insecure=True) has no guard, so it answers on this machine alone and not as"
                f" {host[:_MOST_SHOWN]!r}: open it as http://127.0.0.1 with its port, or write"
                " jobs.dashboard(read=bearer(TOKEN)), or read=... with a dependency of your own",
            )


@dataclass(frozen=True, slots=True)
class Guards:
    """The guards of one dashboard."""

    read: params.Depends
    act: params.Depends
    arguments: params.Depends
    tokens: tuple[BearerToken, ...]
    """The tokens of those that ``bearer()`` made: with them people sign in."""


def guards_of(
    read: Guard | None, act: Guard | None, arguments: Guard | None, *, insecure: bool
) -> Guards:
    """Return the guards of a dashboard; see ``build_dashboard``.

    Raises:
        ConfigurationError: There is no ``read`` without ``insecure``, or a guard is no dependency.
    """
    if read is None and not insecure:
        raise ConfigurationError(OPEN_TO_ALL if act is None else OPEN_TO_READ)
    may_read = Depends(refuse_other_hosts) if read is None else depends_on("read", read)
    may_act = may_read if act is None else depends_on("act", act)
    may_see = may_act if arguments is None else depends_on("arguments", arguments)
    found = (one.dependency for one in (may_read, may_act, may_see))
    tokens = tuple(dict.fromkeys(one for one in found if isinstance(one, BearerToken)))

    def with_cookie(guard: params.Depends, opened_by: tuple[BearerToken, ...]) -> params.Depends:
        return (
            _or_signed_in(guard, opened_by) if isinstance(guard.dependency, BearerToken) else guard
        )

    # A page is needed to act, so that the token of `act` also opens the pages.
    reads = with_cookie(may_read, tokens)
    acts = reads if may_act is may_read else with_cookie(may_act, _tokens_of(may_act))
    sees = acts if may_see is may_act else with_cookie(may_see, _tokens_of(may_see))
    return Guards(reads, acts, sees, tokens)


def _tokens_of(guard: params.Depends) -> tuple[BearerToken, ...]:
    return (guard.dependency,) if isinstance(guard.dependency, BearerToken) else ()


def depends_on(name: str, guard: Guard) -> params.Depends:
    """Return a guard as a dependency.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(guard, params.Depends):
        if guard.dependency is not None:
            return guard
    elif callable(guard):
        made: params.Depends = Depends(guard)
        return made
    raise ConfigurationError(
        f"jobs.dashboard({name}=...) takes a dependency: bearer(TOKEN), Depends(f), or the function itself"
    )


def _or_signed_in(guard: params.Depends, opened_by: tuple[BearerToken, ...]) -> params.Depends:
    bearer = guard.dependency
    assert isinstance(bearer, BearerToken)  # noqa: S101 - checked by the caller

    async def signed_in(connection: HTTPConnection) -> None:
        if not has_pass(connection, opened_by):
            await bearer(connection)

    made: params.Depends = Depends(signed_in)
    return made


class Question:
    """Asks a guard quietly whether it would let a request through, to hide buttons."""

    def __init__(self, guard: params.Depends) -> None:
        self._guard = guard
        self._routes: WeakKeyDictionary[object, APIRoute] = WeakKeyDictionary()

    async def is_allowed(self, request: Request) -> bool:
        """Return whether the guard lets the request through; its other errors are raised."""
        route = self._routes.get(request.app)
        if route is None:
            route = self._routes[request.app] = APIRoute(
                "/",
                _nothing,
                dependencies=[self._guard],
                response_model=None,
                dependency_overrides_provider=request.app,
            )
        refused = False

        async def refuse(_: Request, error: Exception) -> Response:
            nonlocal refused
            refused = True
            return Response(status_code=403)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(_: Message) -> None:
            pass

        handlers = {HTTPException: refuse, RequestValidationError: refuse}
        scope = {**request.scope, "starlette.exception_handlers": (handlers, {})}
        await route.app(scope, receive, send)
        return not refused


async def _nothing() -> Response:
    return Response(status_code=204)
