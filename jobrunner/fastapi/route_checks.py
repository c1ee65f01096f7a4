"""Checks an application's routes when its runner opens.

It refuses dependencies that would silently lose jobs.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import fastapi.routing

from jobrunner.fastapi.background import check_background
from jobrunner.fastapi.sessions import check_scopes, check_websocket


def check_routes(app: object) -> None:
    """Refuse routes whose queues or background tasks would lose jobs.

    Raises:
        ConfigurationError: A route depends on one session in two scopes, or on a queue or background tasks whose jobs
            would never be stored. The message names the route and the line to write.
    """
    for path, route in _routes_of(app):
        methods = getattr(route, "methods", None)
        title = f"{' '.join(sorted(methods or ('WebSocket',)))} {path}"
        dependant = getattr(route, "dependant", None)
        check_background(title, route, dependant)
        dependants = list(_all_of(dependant))
        check_scopes(title, dependants)
        if not methods:
            check_websocket(title, dependants)


def _all_of(dependant: Any) -> Iterator[Any]:
    if dependant is not None:
        yield dependant
        for dependency in dependant.dependencies:
            yield from _all_of(dependency)


def _routes_of(app: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for route in _flat(getattr(app, "routes", None) or ()):
        path = prefix + str(getattr(route, "path", ""))
        yield path, route
        mounted = getattr(route, "app", None)
        if mounted is not None and hasattr(mounted, "routes"):
            yield from _routes_of(mounted, path)


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    # Newer versions of FastAPI do not copy the routes of an included router into the application. Their
    # `iter_route_contexts` yields each of them with the prefix and the dependencies that the inclusion added.
    contexts = getattr(fastapi.routing, "iter_route_contexts", None)
    return routes if contexts is None else contexts(routes)
