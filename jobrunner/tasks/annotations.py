"""Signatures with their annotations resolved, and what FastAPI's marks in them say.

The core does not import FastAPI: its public classes are known by their names.
"""

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo


def place_of(fn: object) -> str:
    """Return where a function was written, as ``file.py:12``."""
    code = getattr(inspect.unwrap(fn) if callable(fn) else fn, "__code__", None)
    if code is None:
        return f"module {getattr(fn, '__module__', None) or type(fn).__module__}"
    return f"{code.co_filename}:{code.co_firstlineno}"


def wrapper_of(fn: Callable[..., Any]) -> str | None:
    """Return where what stands around a function was written, as ``file.py:12``; None if nothing does."""
    code = getattr(fn, "__code__", None)
    if code is None or not hasattr(fn, "__wrapped__"):
        return None
    return f"{code.co_filename}:{code.co_firstlineno}"


def own_signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    """Return what a function itself takes, if ``functools.wraps`` or ``__signature__`` may show another thing."""
    inner = fn.__func__ if inspect.ismethod(fn) else fn
    if not inspect.isfunction(inner):
        return None
    if not (hasattr(inner, "__wrapped__") or hasattr(inner, "__signature__")):
        return None
    same = types.FunctionType(
        inner.__code__, {}, inner.__name__, inner.__defaults__, inner.__closure__
    )
    same.__kwdefaults__ = inner.__kwdefaults__
    return inspect.signature(same if inner is fn else types.MethodType(same, fn))


def wraps_line(fn: Callable[..., Any]) -> str | None:
    """Return the line that a wrapper without ``functools.wraps`` lacks; None if the function is none."""
    inner = fn.__func__ if inspect.ismethod(fn) else fn
    if not inspect.isfunction(inner) or hasattr(inner, "__wrapped__"):
        return None
    for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:
            continue  # not bound yet
        # Not isroutine: a function may hold a task as well, and calls it by enqueuing.
        if inspect.isfunction(held) or inspect.ismethod(held) or inspect.isbuiltin(held):
            return f"`@functools.wraps({name})` above `{def_of(inner)} {inner.__name__}`"
    return None


def def_of(fn: object) -> str:
    """Return the word that a function begins with."""
    return "async def" if inspect.iscoroutinefunction(fn) else "def"


def hints_of(fn: Callable[..., Any], namespace: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a function's annotations by name, text resolved.

    Args:
        fn: what has the annotations.
        namespace: the names around it, for text that names something local.

    Raises:
        NameError: one names what is nowhere.
    """
    # Not inspect's eval_str: it leaves the text inside list["Order"] as it is.
    try:
        return get_type_hints(fn, include_extras=True)
    except NameError:
        return get_type_hints(fn, localns=dict(namespace or {}), include_extras=True)


def parameters_of(
    call: Callable[..., Any], namespace: Mapping[str, Any] | None
) -> list[inspect.Parameter]:
    """Return what a dependency is called with: a function, a class, an object that can be called, a partial.

    An annotation that names what is nowhere stays text: FastAPI takes such a dependency, as long as nobody needs it.

    Raises:
        TypeError, ValueError: it has no signature.
    """
    parameters = inspect.signature(call).parameters.values()
    source = _annotated_part(call)
    try:
        hints = hints_of(source, namespace)
    except NameError:
        # One by one: mostly it is the return annotation, imported under TYPE_CHECKING, that cannot be resolved.
        hints = _hints_one_by_one(source, namespace)
    return [p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters]


def _annotated_part(call: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(call, functools.partial):
        call = call.func
    if inspect.isclass(call):
        maker: Any = call.__init__ if call.__init__ is not object.__init__ else call.__new__
        return maker  # type: ignore[no-any-return]
    return call if inspect.isroutine(call) else type(call).__call__


def _hints_one_by_one(
    source: Callable[..., Any], namespace: Mapping[str, Any] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    outer = getattr(inspect.unwrap(source), "__globals__", {})
    for name, annotation in getattr(source, "__annotations__", {}).items():
        one = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found |= get_type_hints(one, outer, dict(namespace or {}), include_extras=True)
        except NameError:
            continue
    return found


def bare(annotation: Any) -> Any:
    """Return an annotation without what ``Annotated`` and a ``type`` statement put around it."""
    annotation = _unaliased(annotation)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def metadata(annotation: Any) -> tuple[Any, ...]:
    """Return what ``Annotated`` adds to a type."""
    annotation = _unaliased(annotation)
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _unaliased(annotation: Any) -> Any:
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def union_parts(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union; an annotation that is none is its only part."""
    inner = bare(annotation)
    return get_args(inner) if get_origin(inner) in (Union, types.UnionType) else (inner,)


def marker_of(annotation: Any) -> Any:
    """Return the ``Depends`` in an annotation; None if there is none, or another mark of FastAPI's comes after it."""
    marks = [m for m in metadata(annotation) if is_depends(m) or _is_param(m)]
    return marks[-1] if marks and is_depends(marks[-1]) else None


def is_depends(value: object) -> bool:
    """Return whether a value is FastAPI's ``Depends``, or its child ``Security``."""
    return is_of(type(value), "Depends")


def is_of(kind: Any, *names: str) -> bool:
    """Return whether a class is, or is a child of, one of FastAPI's or Starlette's public classes of that name."""
    return inspect.isclass(kind) and any(
        base.__name__ in names and base.__module__.partition(".")[0] in ("fastapi", "starlette")
        for base in kind.__mro__
    )


def field_of(parameter: inspect.Parameter) -> FieldInfo | None:
    """Return the ``Query``, ``Header``, ``Body`` or the like that is a parameter's default or in its annotation."""
    if isinstance(parameter.default, FieldInfo):
        return parameter.default
    found = [m for m in metadata(parameter.annotation) if _is_param(m)]
    return found[-1] if found else None


def _is_param(value: object) -> bool:
    return isinstance(value, FieldInfo) and is_of(type(value), "Param", "Body")
