"""Checks an application's routes when its runner opens.

It refuses dependencies that would silently lose jobs.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import fastapi.routing

from jobrunner.core.errors import ConfigurationError
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


def paths_of(app: object) -> dict[Callable[..., object], str]:
    """Return the paths of an application's routes, by their functions; of several, the first one."""
    paths: dict[Callable[..., object], str] = {}
    for path, call in _calls_of(app):
        paths.setdefault(call, path)
    return paths


def refuse_respond(app: object, runner: object, advice: str) -> None:
    """Refuse routes that call ``respond`` of a runner without a status router.

    Found are route functions, their dependencies, and the functions of the same package that these name, if they name
    the runner itself; any other call, such as one in a method, raises when it is made.

    Args:
        app: The application.
        runner: The runner, which has no status router on the application.
        advice: The line to write, for the error.

    Raises:
        ConfigurationError: There is such a route. The message names it and the line to write.
    """
    seen: set[FunctionType] = set()
    for path, route in _routes_of(app):
        for dependant in _all_of(getattr(route, "dependant", None)):
            if dependant.call is not None and _responds(dependant.call, runner, seen):
                raise ConfigurationError(f"{path}: {advice}")


def _responds(call: Callable[..., Any], runner: object, seen: set[FunctionType]) -> bool:
    """Return whether a function, or one that it names, calls ``respond`` of the runner; ``seen`` ones do not."""
    found = inspect.unwrap(call)
    function = found.__func__ if isinstance(found, MethodType) else found
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    names = set(_names_of(function.__code__))
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    known = {name: function.__globals__.get(name) for name in names}
    known |= {name: cell.cell_contents for name, cell in cells if not _is_empty(cell)}
    if "respond" in names and any(value is runner for value in known.values()):
        return True
    package = function.__module__.partition(".")[0]
    return any(
        _responds(value, runner, seen)
        for value in known.values()
        if isinstance(value, FunctionType) and value.__module__.partition(".")[0] == package
    )


def _names_of(code: CodeType) -> Iterator[str]:
    """Yield the names that a function and those inside it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_of(constant)


def _is_empty(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises if the name has no value yet
    except ValueError:
        return True
    return False


def _calls_of(app: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    for path, route in _routes_of(app):
        call = getattr(getattr(route, "dependant", None), "call", None)
        if call is not None:
            yield path, call


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
