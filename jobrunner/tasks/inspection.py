"""Reads and checks a function that is to become a task."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from jobrunner.core.errors import InvalidTask
from jobrunner.tasks.annotations import (
    bare,
    def_of,
    hints_of,
    is_depends,
    marker_of,
    own_signature,
    place_of,
    union_parts,
    wrapper_of,
    wraps_line,
)
from jobrunner.tasks.context import JobContext
from jobrunner.tasks.dependencies import Dependency, Injected, check_sessions, dependency_of


class Function(NamedTuple):
    """The signature of a task's function, as the task needs it."""

    parameters: tuple[inspect.Parameter, ...]
    """All parameters except the job context, injected ones included, with resolved annotations."""
    injected: tuple[Dependency, ...]
    """The dependencies of the injected parameters."""
    returns: Any
    """The resolved return annotation; ``inspect.Signature.empty`` if there is none."""
    is_async: bool
    wants_context: bool
    where: str
    """The source location, as ``file.py:12``, for the errors."""
    wrapper: str | None
    """The source location of the function's wrapper; None if it has none."""


def read_function(fn: Callable[..., Any], namespace: Mapping[str, Any] | None = None) -> Function:
    """Read and check a function that is to become a task.

    Args:
        fn: A function or a bound method.
        namespace: The local names around the decorator, to which an annotation that is text may refer.

    Raises:
        InvalidTask: The function cannot be used as a task; the message says what to write.
    """
    where = place_of(fn)
    _check_kind(fn, where)
    signature = _signature(fn, namespace, where)
    parameters = list(signature.parameters.values())
    wants_context = bool(parameters) and _is_context(parameters[0])
    if wants_context:
        del parameters[0]
    task = f"{fn.__name__} ({where})"
    injected: list[Dependency] = []
    for parameter in parameters:
        fault = _fault_of_variable(parameter, fn) or _fault_of(parameter)
        if fault is not None:
            raise InvalidTask(f"{task}: parameter {parameter.name!r} {fault}")
        mark = _mark_of(parameter)
        if mark is not None:
            injected.append(dependency_of(task, parameter, mark, namespace))
    check_sessions(task, injected)
    handed = {need.name for need in injected}
    _check_own_signature(task, fn, parameters, handed, wants_context=wants_context)
    return Function(
        tuple(parameters),
        tuple(injected),
        signature.return_annotation,
        inspect.iscoroutinefunction(fn),
        wants_context,
        where,
        wrapper_of(fn),
    )


def _check_own_signature(
    task: str,
    fn: Callable[..., Any],
    parameters: list[inspect.Parameter],
    handed: set[str],
    *,
    wants_context: bool,
) -> None:
    """Refuse a wrapper that does not accept the parameters it shows: every attempt would fail."""
    own = own_signature(fn)
    if own is None:
        return
    first = ["job"] * wants_context + [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    named = [p for p in parameters if p.kind is not p.POSITIONAL_ONLY]
    needed = [p for p in named if p.default is p.empty or p.name in handed]
    try:
        for given in (named, needed):
            own.bind(*first, **{p.name: None for p in given})
    except TypeError as error:
        raise InvalidTask(
            f"{task}: its wrapper ({wrapper_of(fn) or 'its __signature__'}) shows the parameters"
            f" ({', '.join(first + [p.name for p in named])}) and does not take them: {error}. Write"
            f" `{def_of(fn)} wrapper(*args, **kwargs)` there; what it hands over by itself write as"
            " `db: Annotated[Db, Depends(get_db)] = Injected` in the function, without the wrapper"
        ) from None


def _check_kind(fn: Any, where: str) -> None:
    if isinstance(fn, staticmethod):
        raise InvalidTask(
            f"{fn.__name__} ({where}): put @staticmethod above the task decorator, or use a plain function"
        )
    if isinstance(fn, classmethod):
        owner, _, name = fn.__qualname__.rpartition(".")
        raise InvalidTask(
            f"{fn.__name__} ({where}) is bound to its class only below the class: write"
            f" `jobs.task({owner.rpartition('.')[2] or 'Class'}.{name})` there, or use a plain function"
        )
    if not (inspect.isroutine(fn) and hasattr(fn, "__name__")):
        kind = "a class" if inspect.isclass(fn) else f"a {type(fn).__name__} object"
        raise InvalidTask(
            f"{fn!r} is {kind}: a task is a function, write a def that calls it and decorate that"
        )
    inner = inspect.unwrap(fn)
    for part in (fn, inner):
        if inspect.isgeneratorfunction(part) or inspect.isasyncgenfunction(part):
            raise InvalidTask(
                f"{fn.__name__} ({where}) is a generator, which ends at its first yield: "
                "return a list, or enqueue a job per item"
            )
    if inspect.iscoroutinefunction(inner) and not inspect.iscoroutinefunction(fn):
        raise InvalidTask(
            f"{fn.__name__} ({where}) is an async function in a wrapper that is not, so nobody would await it: "
            "write `async def wrapper(*args, **kwargs)` there, and `await` the function in it"
        )


def _signature(
    fn: Callable[..., Any], namespace: Mapping[str, Any] | None, where: str
) -> inspect.Signature:
    try:
        signature = inspect.signature(fn)
        hints = hints_of(fn, namespace)
    except NameError as error:
        raise InvalidTask(
            f"{fn.__name__} ({where}): {error}; annotations are needed when the task runs, "
            "so import the name outside `if TYPE_CHECKING:`"
        ) from error
    except (TypeError, ValueError) as error:
        raise InvalidTask(
            f"{fn.__name__} ({where}): its signature cannot be read: {error}"
        ) from error
    parameters = [
        p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()
    ]
    returns = hints.get("return", signature.return_annotation)
    return signature.replace(parameters=parameters, return_annotation=returns)


def _mark_of(parameter: inspect.Parameter) -> Any:
    return parameter.default if is_depends(parameter.default) else marker_of(parameter.annotation)


def _fault_of_variable(parameter: inspect.Parameter, fn: Callable[..., Any]) -> str | None:
    if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    if (line := wraps_line(fn)) is not None:
        return f"hides those of the function that is wrapped, and its name: write {line}"
    return "takes any arguments: name each one, so that it can be checked and stored"


def _fault_of(parameter: inspect.Parameter) -> str | None:
    name, annotation = parameter.name, parameter.annotation
    if is_depends(parameter.default) or parameter.default is Injected:
        return _fault_of_injected(parameter)
    if annotation is parameter.empty:
        return _fault_of_bare(name)
    if _names_context(annotation):
        return f"must come first and be no other than a JobContext: write `{name}: JobContext` as the first parameter"
    if marker_of(annotation) is not None:
        return (
            "is a FastAPI dependency, which callers of enqueue cannot pass: "
            f"write `{name}: ... = Injected`, and each attempt is handed what it depends on"
        )
    is_field = isinstance(parameter.default, FieldInfo)
    return (
        "has a Field as its default, which the function would be handed as it is: "
        f"write `{name}: Annotated[..., Field(...)]`"
        if is_field
        else None
    )


def _fault_of_injected(parameter: inspect.Parameter) -> str | None:
    marked = marker_of(parameter.annotation) is not None
    if parameter.default is Injected and not marked:
        return (
            "is Injected, and nothing says what with: "
            f"write `{parameter.name}: Annotated[..., Depends(f)] = Injected`"
        )
    if parameter.default is not Injected and marked:
        return (
            "has a Depends in its annotation and another one as its default: "
            f"write `{parameter.name}: ... = Injected`"
        )
    return None


def _fault_of_bare(name: str) -> str:
    if name in ("self", "cls"):
        return (
            "cannot be stored: write a plain function, or for the bound method of an object that the module has"
            " `jobs.task(service.send)`"
        )
    return (
        f"has no annotation, so it cannot be checked and stored: write `{name}: str`, or what it is"
    )


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return False
    return bare(parameter.annotation) is JobContext


def _names_context(annotation: Any) -> bool:
    return any(bare(part) is JobContext for part in union_parts(annotation))
