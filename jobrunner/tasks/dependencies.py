"""Reads the dependencies of a task's parameters when it is registered, by FastAPI's rules.

Uses FastAPI's public marker, ``fastapi.params.Depends``, but not its solver.  A task runs outside any request, so a
dependency that needs one is refused here with its name, and not only when an attempt runs.
"""

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar

from jobrunner.core.errors import InvalidTask
from jobrunner.tasks.annotations import bare, field_of, is_depends, is_of, marker_of, parameters_of

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["function", "coroutine", "generator", "async generator"]
Scope = Literal["function", "request"]

_MARK: Final = "__jobrunner_supplies__"
_OWNER: Final = "__jobrunner_owner__"
_SESSION: Final = "__jobrunner_session__"

_OF_A_REQUEST: Final = (
    "Request",
    "HTTPConnection",
    "WebSocket",
    "Response",
    "BackgroundTasks",
    "SecurityScopes",
)
_OUTSIDE: Final = "but a task runs outside any request"


class _Injected:
    """The type of ``Injected``."""

    def __repr__(self) -> str:
        return "Injected"

    def __reduce__(self) -> str:
        return "Injected"  # copying or unpickling returns the same object


Injected: Final[Any] = _Injected()
"""The default of a task's parameter that is filled by a dependency, not by the caller.

Each attempt resolves the dependency of the annotation, as FastAPI does for a route. Callers of ``enqueue`` leave the
parameter out::

    @jobs.task
    async def send_invoice(
        order_id: int,
        session: Annotated[AsyncSession, Depends(get_session)] = Injected,
    ) -> None: ...

    await queue.enqueue(send_invoice, order_id)
"""


def supplied(what: str, owner: object = None, session: object = None) -> Callable[[F], F]:
    """Mark a dependency that is replaced by an object of the attempt inside tasks.

    Args:
        what: The name of that object among those that the attempt supplies.
        owner: The only runner to which the mark applies; not needed for a method of the runner.
        session: The ``Depends`` of the session that the supplied object joins.
    """

    def mark(call: F) -> F:
        setattr(call, _MARK, what)
        if owner is not None:
            setattr(call, _OWNER, owner)
        if session is not None:
            setattr(call, _SESSION, session)
        return call

    return mark


class Dependency(NamedTuple):
    """One parameter's dependency."""

    name: str
    """The name of the parameter."""
    call: Callable[..., Any]
    kind: Kind
    supply: str | None
    """The name of the attempt's object that replaces it; None if it is called."""
    use_cache: bool
    scope: Scope | None
    """The scope as written."""
    limit: int | None
    """The ``max_concurrency`` of its mark: how many may be open at the same time."""
    mark: Any
    """The ``Depends`` itself, to which the limit belongs."""
    key: Hashable
    """The cache key: dependencies with the same key are resolved once per attempt."""
    needs: tuple["Dependency", ...]
    """The dependencies of the parameters of ``call``."""
    given: Mapping[str, Callable[[], Any]]
    """Functions that make the default of a parameter: a mutable one, or one inside a marker of FastAPI."""


def dependency_of(
    task: str,
    parameter: inspect.Parameter,
    mark: Any,
    namespace: Mapping[str, Any] | None = None,
) -> Dependency:
    """Read the dependency of a task's parameter, and all that it depends on.

    Args:
        task: The task's name and source location, for the errors.
        parameter: The parameter.
        mark: Its ``Depends``.
        namespace: The local names around the task, to which an annotation that is text may refer.

    Raises:
        InvalidTask: A dependency cannot be resolved outside a request; the message names its parameter.
    """
    return _Reader(task, namespace).read(parameter, mark, ())


def check_sessions(task: str, needs: Sequence[Dependency]) -> None:
    """Check that a task's queue joins the same session that the task holds.

    Raises:
        InvalidTask: The two are different sessions of one function; the message says what to write.
    """
    every = list(_all_of(needs))
    for joining in every:
        # Among supplied dependencies only a queue that joins a session has needs.
        for session in joining.needs if joining.supply is not None else ():
            for one in every:
                if one.call == session.call and (one.key != session.key or not one.use_cache):
                    written, held = _written(session), _written(one)
                    raise InvalidTask(
                        f"{task}: it holds {held} and its queue joins {written}, which are two sessions, so that the"
                        f" jobs would not be in the task's transaction: write {written} in both places"
                    )


def _all_of(needs: Sequence[Dependency]) -> Iterator[Dependency]:
    for need in needs:
        yield need
        yield from _all_of(need.needs)


def _written(dependency: Dependency) -> str:
    scope = "" if dependency.scope is None else f', scope="{dependency.scope}"'
    cache = "" if dependency.use_cache else ", use_cache=False"
    return f"Depends({label(dependency.call)}{scope}{cache})"


def overriding(task: str, dependency: Dependency, call: Callable[..., Any]) -> Dependency:
    """Return a dependency with another function, whose parameters are read now.

    FastAPI does the same. If ``call`` is the dependency's own function, the function itself is called instead of being
    replaced by the attempt's object. That is used for a marked function that belongs to another runner.

    Raises:
        InvalidTask: The function cannot be resolved outside a request.
    """
    supply = supply_of(call) if call != dependency.call else None
    reader = _Reader(task, None)
    needs, given = reader.read_call(dependency.name, call, dependency.scope, (), supply)
    return dependency._replace(
        call=call, kind=kind_of(call), supply=supply, needs=needs, given=given
    )


class _Reader:
    """Reads the dependencies of one task."""

    def __init__(self, task: str, namespace: Mapping[str, Any] | None) -> None:
        self._task = task
        self._namespace = namespace

    def read(
        self, parameter: inspect.Parameter, mark: Any, path: tuple[Callable[..., Any], ...]
    ) -> Dependency:
        name = parameter.name
        if is_of(type(mark), "Security"):
            raise self._unfit(
                path, name, f"is a Security, {_OUTSIDE} and nobody calls it: write Depends"
            )
        call = bare(parameter.annotation) if mark.dependency is None else mark.dependency
        if not callable(call) or call is inspect.Parameter.empty:
            raise self._unfit(
                path, name, f"depends on {call!r}, which cannot be called: write Depends(f)"
            )
        if call in path:
            raise self._unfit(path, name, f"depends on {label(call)}, which depends on itself")
        kind, scope = kind_of(call), mark.scope
        supply = supply_of(call)
        needs, given = self.read_call(name, call, scope, path, supply)
        key = (call, scope or ("request" if kind.endswith("generator") else ""))
        try:
            hash(key)
        except TypeError:
            raise self._unfit(
                path, name, f"depends on {call!r}, which has no hash: give its class one"
            ) from None
        return Dependency(
            name=name,
            call=call,
            kind=kind,
            supply=supply,
            use_cache=mark.use_cache,
            scope=scope,
            limit=getattr(mark, "max_concurrency", None),
            mark=mark,
            key=key,
            needs=needs,
            given=given,
        )

    def read_call(
        self,
        name: str,
        call: Callable[..., Any],
        scope: Scope | None,
        path: tuple[Callable[..., Any], ...],
        supply: str | None,
    ) -> tuple[tuple[Dependency, ...], Mapping[str, Callable[[], Any]]]:
        """Read the parameters of a dependency.

        Returns:
            The dependencies of the parameters, and the functions that make defaults by parameter name.
        """
        if supply is not None:
            session = getattr(call, _SESSION, None)
            if session is None:
                return (), {}
            joined = inspect.Parameter("session", inspect.Parameter.KEYWORD_ONLY)
            return (self.read(joined, session, (*path, call)),), {}
        try:
            parameters = parameters_of(call, self._namespace)
        except (TypeError, ValueError) as error:
            raise self._unfit(
                path, name, f"depends on {label(call)}, whose signature cannot be read: {error}"
            ) from error
        needs: list[Dependency] = []
        given: dict[str, Callable[[], Any]] = {}
        within = (*path, call)
        outlives = scope != "function" and kind_of(call).endswith("generator")
        for parameter in parameters:
            mark = self._mark_of(parameter, within)
            if mark is None:
                self._read_plain(parameter, within, given)
                continue
            if outlives and mark.scope == "function":
                raise self._unfit(
                    within,
                    parameter.name,
                    f'has the scope "function", but {label(call)} is cleaned up later: write'
                    f' Depends({label(call)}, scope="function")',
                )
            needs.append(self.read(parameter, mark, within))
        return tuple(needs), given

    def _mark_of(self, parameter: inspect.Parameter, path: tuple[Callable[..., Any], ...]) -> Any:
        annotated, default = marker_of(parameter.annotation), parameter.default
        if annotated is not None and is_depends(default):
            raise self._unfit(
                path, parameter.name, "has a Depends in its annotation and another one as default"
            )
        mark = default if is_depends(default) else annotated
        if mark is not None and parameter.kind is parameter.POSITIONAL_ONLY:
            raise self._unfit(
                path, parameter.name, "is handed over by name: leave out the `/` behind it"
            )
        return mark

    def _read_plain(
        self,
        parameter: inspect.Parameter,
        path: tuple[Callable[..., Any], ...],
        given: dict[str, Callable[[], Any]],
    ) -> None:
        """Refuse a parameter that only a request could fill; note a default to pass."""
        name, default, kind = parameter.name, parameter.default, bare(parameter.annotation)
        advice = f"{_OUTSIDE}: hand what it needs to the task as an argument, or give it another dependency"
        if is_of(kind, *_OF_A_REQUEST):
            raise self._unfit(path, name, f"is a {kind.__name__}, {advice}")
        field = field_of(parameter)
        if field is not None and (default is field or default is parameter.empty):
            if field.is_required():
                what = type(field).__name__
                raise self._unfit(path, name, f"is a {what} without a default, {advice}")
            given[name] = functools.partial(field.get_default, call_default_factory=True)
            return
        if default is parameter.empty or default is Injected:
            raise self._unfit(
                path,
                name,
                f"has no default, so FastAPI would read it from the request, {advice}, or a default",
            )
        if isinstance(default, (list, dict, set)):
            # As FastAPI does, each call gets its own copy.
            given[name] = functools.partial(type(default), default)

    def _unfit(self, path: Sequence[Callable[..., Any]], name: str, fault: str) -> InvalidTask:
        of = f" of {' > '.join(map(label, path))}" if path else ""
        return InvalidTask(f"{self._task}: parameter {name!r}{of} {fault}")


def supply_of(call: object) -> str | None:
    """Return the name in a dependency's mark; None if it is not marked."""
    what = getattr(call, _MARK, None)
    return what if isinstance(what, str) else None


def belongs_to(call: object, owner: object) -> bool:
    """Return whether the mark of a dependency applies to this runner.

    It applies to every runner, except for a method of another runner or a mark with another ``owner``.
    """
    of = getattr(call, "__self__", getattr(call, _OWNER, None))
    return of is None or of is owner


def label(call: object) -> str:
    """Return the name of a dependency in messages."""
    while isinstance(call, functools.partial):
        call = call.func
    name = getattr(call, "__qualname__", None) or type(call).__qualname__
    return str(name).rpartition("<locals>.")[2]


def kind_of(call: Callable[..., Any]) -> Kind:
    """Return the kind of a dependency: function, coroutine, generator or async generator.

    Like FastAPI it also inspects the wrapped function and the ``__call__`` of an object.
    """
    forms = _forms(call)
    if not inspect.isclass(forms[-1]):
        forms += [part for form in forms for part in _forms(getattr(form, "__call__", form))]  # noqa: B004
    if any(map(inspect.isasyncgenfunction, forms)):
        return "async generator"
    if any(map(inspect.isgeneratorfunction, forms)):
        return "generator"
    return "coroutine" if any(map(_is_coroutine, forms)) else "function"


def _forms(call: Callable[..., Any]) -> list[Callable[..., Any]]:
    while isinstance(call, functools.partial):
        call = call.func
    return [call, inspect.unwrap(call)]


# A callable may mark itself as a coroutine function without being an `async def`; inspect supports that since 3.12.
_is_coroutine: Final[Callable[[object], bool]] = (
    asyncio if sys.version_info < (3, 12) else inspect
).iscoroutinefunction
