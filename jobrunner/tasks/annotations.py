"""Reads signatures with resolved annotations, and FastAPI's markers in them.

The core does not import FastAPI: it recognises FastAPI's public classes by their names.
"""

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo


def place_of(fn: object) -> str:
    """Return the source location of a function, as ``file.py:12``."""
    code = getattr(inspect.unwrap(fn) if callable(fn) else fn, "__code__", None)
    if code is None:
        return f"module {getattr(fn, '__module__', None) or type(fn).__module__}"
    return f"{code.co_filename}:{code.co_firstlineno}"


def wrapper_of(fn: Callable[..., Any]) -> str | None:
    """Return the source location of a function's wrapper; None if it has no wrapper."""
    code = getattr(fn, "__code__", None)
    if code is None or not hasattr(fn, "__wrapped__"):
        return None
    return f"{code.co_filename}:{code.co_firstlineno}"


def own_signature(fn: Callable[..., Any]) -> inspect.Signature | None:
    """Return the signature of the wrapper itself; None if it cannot differ from the shown one.

    ``inspect.signature`` shows another one where ``functools.wraps`` or ``__signature__`` was used.
    """
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
    """Return the ``functools.wraps`` line that a wrapper lacks; None if it lacks none."""
    inner = fn.__func__ if inspect.ismethod(fn) else fn
    if not inspect.isfunction(inner) or hasattr(inner, "__wrapped__"):
        return None
    for name, cell in zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:
            continue  # not bound yet
        # Not isroutine, which is also true of a task: a function that enqueues a task is not its wrapper.
        if inspect.isfunction(held) or inspect.ismethod(held) or inspect.isbuiltin(held):
            return f"`@functools.wraps({name})` above `{def_of(inner)} {inner.__name__}`"
    return None


def def_of(fn: object) -> str:
    """Return the keyword of a function: ``async def`` or ``def``."""
    return "async def" if inspect.iscoroutinefunction(fn) else "def"


def hints_of(fn: Callable[..., Any], namespace: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a function's annotations by name, with text resolved.

    Args:
        fn: The annotated function.
        namespace: The local names around it, to which an annotation that is text may refer.

    Raises:
        NameError: An annotation refers to a name that does not exist.
    """
    # Not inspect's eval_str: it leaves the text inside list["Order"] unresolved.
    try:
        return get_type_hints(fn, include_extras=True)
    except NameError:
        return get_type_hints(fn, localns=dict(namespace or {}), include_extras=True)


def parameters_of(
    call: Callable[..., Any], namespace: Mapping[str, Any] | None
) -> list[inspect.Parameter]:
    """Return the parameters of a dependency, with resolved annotations.

    An annotation with an unknown name stays text. FastAPI accepts such a dependency too, as long as the annotation is
    not needed.

    Args:
        call: A function, a class, a callable object or a partial.
        namespace: The local names around it, to which an annotation that is text may refer.

    Raises:
        TypeError: The object has no signature.
        ValueError: The object has no signature.
    """
    parameters = inspect.signature(call).parameters.values()
    source = _annotated_part(call)
    try:
        hints = hints_of(source, namespace)
    except NameError:
        # One by one, since usually only the return annotation, imported under TYPE_CHECKING, cannot be resolved.
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
    """Return an annotation without ``Annotated`` and ``type`` aliases around it."""
    annotation = _unaliased(annotation)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def metadata(annotation: Any) -> tuple[Any, ...]:
    """Return the metadata of an ``Annotated`` type; empty for other types."""
    annotation = _unaliased(annotation)
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _unaliased(annotation: Any) -> Any:
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def union_parts(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union; for another annotation, the annotation alone."""
    inner = bare(annotation)
    return get_args(inner) if get_origin(inner) in (Union, types.UnionType) else (inner,)


def marker_of(annotation: Any) -> Any:
    """Return the ``Depends`` in an annotation.

    None if there is none, or if another marker of FastAPI comes after it.
    """
    marks = [m for m in metadata(annotation) if is_depends(m) or _is_param(m)]
    return marks[-1] if marks and is_depends(marks[-1]) else None


def is_depends(value: object) -> bool:
    """Return whether a value is FastAPI's ``Depends``, or its subclass ``Security``."""
    return is_of(type(value), "Depends")


def is_of(kind: Any, *names: str) -> bool:
    """Return whether a class is a FastAPI or Starlette class of that name.

    Subclasses count.
    """
    return inspect.isclass(kind) and any(
        base.__name__ in names and base.__module__.partition(".")[0] in ("fastapi", "starlette")
        for base in kind.__mro__
    )


def field_of(parameter: inspect.Parameter) -> FieldInfo | None:
    """Return a parameter's ``Query``, ``Header``, ``Body`` or the like; None if it has none.

    It is the parameter's default or stands in its annotation.
    """
    if isinstance(parameter.default, FieldInfo):
        return parameter.default
    found = [m for m in metadata(parameter.annotation) if _is_param(m)]
    return found[-1] if found else None


def _is_param(value: object) -> bool:
    return isinstance(value, FieldInfo) and is_of(type(value), "Param", "Body")
