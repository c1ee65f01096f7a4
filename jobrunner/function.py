"""Reads a function that is to be a task: what its callers fill, what it is handed, and why it cannot be one."""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from jobrunner.context import JobContext
from jobrunner.errors import InvalidTask

_UNIONS: Final = (Union, types.UnionType)


class Function(NamedTuple):
    """A function as a task sees it."""

    parameters: tuple[inspect.Parameter, ...]
    """Those that a caller fills, with resolved annotations."""
    returns: Any
    """The resolved return annotation; ``inspect.Signature.empty`` if there is none."""
    is_async: bool
    wants_context: bool
    where: str
    """``file.py:12``, for the errors."""


def read_function(fn: Callable[..., Any], namespace: Mapping[str, Any] | None = None) -> Function:
    """Read a function that is to be a task.

    Args:
        fn: a function or a bound method.
        namespace: the names around the decorator, for annotations that are text and name something local.

    Raises:
        InvalidTask: it cannot be a task as it stands; the message says what to write.
    """
    where = place_of(fn)
    _check_kind(fn, where)
    signature = _signature(fn, namespace, where)
    parameters = list(signature.parameters.values())
    wants_context = bool(parameters) and _is_context(parameters[0])
    if wants_context:
        del parameters[0]
    for parameter in parameters:
        fault = _fault_of(parameter)
        if fault is not None:
            raise InvalidTask(f"{fn.__name__} ({where}): parameter {parameter.name!r} {fault}")
    return Function(
        tuple(parameters),
        signature.return_annotation,
        inspect.iscoroutinefunction(fn),
        wants_context,
        where,
    )


def place_of(fn: object) -> str:
    """Return where a function was written, as ``file.py:12``."""
    code = getattr(inspect.unwrap(fn) if callable(fn) else fn, "__code__", None)
    if code is None:
        return f"module {getattr(fn, '__module__', None) or type(fn).__module__}"
    return f"{code.co_filename}:{code.co_firstlineno}"


def _check_kind(fn: Any, where: str) -> None:
    if isinstance(fn, (staticmethod, classmethod)):
        raise InvalidTask(
            f"{fn.__name__} ({where}): put @{type(fn).__name__} above the task decorator, or use a plain function"
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
            "make the wrapper an `async def`, or put it above the task decorator"
        )


def _signature(
    fn: Callable[..., Any], namespace: Mapping[str, Any] | None, where: str
) -> inspect.Signature:
    try:
        signature = inspect.signature(fn)
        hints = _hints(fn, namespace)
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


def _hints(fn: Callable[..., Any], namespace: Mapping[str, Any] | None) -> dict[str, Any]:
    # Not inspect's eval_str: it leaves the text inside list["Order"] as it is.
    try:
        return get_type_hints(fn, include_extras=True)
    except NameError:
        return get_type_hints(fn, localns=dict(namespace or {}), include_extras=True)


def _fault_of(parameter: inspect.Parameter) -> str | None:
    name, annotation = parameter.name, parameter.annotation
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return "takes any arguments: name each one, so that it can be checked and stored"
    if annotation is parameter.empty:
        return _fault_of_bare(name)
    if _names_context(annotation):
        return f"must come first and be no other than a JobContext: write `{name}: JobContext` as the first parameter"
    if _is_depends(parameter.default) or any(map(_is_depends, _metadata(annotation))):
        return (
            "is a FastAPI dependency, but a task runs outside any request and nobody would resolve it: "
            "pass an id, and open what is needed inside the function"
        )
    if isinstance(parameter.default, FieldInfo):
        return (
            "has a Field as its default, which the function would be handed as it is: "
            f"write `{name}: Annotated[..., Field(...)]`"
        )
    return None


def _fault_of_bare(name: str) -> str:
    if name in ("self", "cls"):
        return "cannot be stored: decorate a function, or the bound method of an object that the module has"
    return (
        f"has no annotation, so it cannot be checked and stored: write `{name}: str`, or what it is"
    )


def _is_context(parameter: inspect.Parameter) -> bool:
    if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
        return False
    return _bare(parameter.annotation) is JobContext


def _names_context(annotation: Any) -> bool:
    bare = _bare(annotation)
    if get_origin(bare) in _UNIONS:
        return any(_names_context(part) for part in get_args(bare))
    return bare is JobContext


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _is_depends(value: object) -> bool:
    # By name: the core does not import FastAPI.
    return any(
        kind.__name__ == "Depends" and kind.__module__.partition(".")[0] == "fastapi"
        for kind in type(value).__mro__
    )
