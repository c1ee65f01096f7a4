"""Finds unset model fields that can be left out of the JSON without loss."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from jobrunner.tasks.codec_equality import PLAIN, identical
from jobrunner.tasks.codec_errors import MISSING
from jobrunner.tasks.codec_schema import Holds, Parts

MAX_DEPTH: Final = 200
"""JSON that nests deeper cannot be read back; the limit also ends the walk of a value that contains itself."""

Omitted = dict[Any, Any]
"""An argument for pydantic's ``exclude``: by field, index or key, either True or a nested mapping of this kind."""


def omitted(value: Any, holds: Holds) -> Omitted | None:
    """Return the unset fields to leave out of the JSON; None if there are none.

    Left out, they are still unset after reading. Only fields that still have their constant default qualify. A field
    with a ``default_factory`` is written, because the factory may return another id or time on reading. Fields of
    unknown classes are written too.
    """
    try:
        if holds.keys is None:
            return _omitted(value, holds.parts, 0)
        # Only the keys that may hold models: a mebibyte of plain data beside a model is not walked.
        found: Omitted = {}
        for key in holds.keys:
            inner = _omitted(value.get(key), holds.parts, 0)
            if inner is not None:
                found[key] = inner
        return found or None
    except (RecursionError, AttributeError):
        return None  # it contains itself or is incomplete, which the serialiser reports


def _omitted(value: Any, known: Mapping[type, Parts], depth: int) -> Omitted | None:
    kind = type(value)
    found: Omitted | None = None
    parts = known.get(kind)
    if parts is None:
        if depth > MAX_DEPTH:
            raise RecursionError
        items = value.items() if kind is dict else _items(value)
    elif parts.is_root:
        return _omitted(value.root, known, depth + 1)
    else:
        if parts.names and not parts.names <= value.__pydantic_fields_set__:
            found = _unset(value, parts)
        if not parts.deep and not parts.extra:
            return found
        items = [(name, getattr(value, name, None)) for name in parts.deep]
        if parts.extra:
            items += (value.__pydantic_extra__ or {}).items()
    for name, part in items:
        if type(part) not in PLAIN and not (found and name in found):
            inner = _omitted(part, known, depth + 1)
            if inner is not None:
                found = found or {}
                found[name] = inner
    # For pydantic this key stands for all keys.
    return None if found and "__all__" in found else found


def _unset(model: BaseModel, parts: Parts) -> Omitted | None:
    state, set_by_caller = model.__dict__, model.__pydantic_fields_set__
    found: Omitted = {}
    for name, default in parts.defaults:
        if name not in set_by_caller:
            value = state.get(name, MISSING)
            if value is default or identical(value, default):
                found[name] = True
    return found or None


def _items(value: object) -> Iterable[tuple[Any, object]]:
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, (list, tuple, deque)):
        # issuperset checks a list of a hundred thousand numbers in C.
        return () if PLAIN.issuperset(map(type, value)) else enumerate(value)
    return ()
