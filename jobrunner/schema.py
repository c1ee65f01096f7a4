"""Reads pydantic's core schemas: what the values of a type hold."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

_COMPARED: Final = frozenset((
    "any", "none", "bool", "int", "float", "decimal", "str", "bytes", "date", "datetime", "timedelta", "literal",
    "enum", "uuid", "url", "multi-host-url", "list", "tuple", "set", "frozenset", "dict", "nullable", "default",
    "union", "tagged-union", "typed-dict", "model", "model-fields", "dataclass", "dataclass-args", "function-after",
    "lax-or-strict", "json-or-python", "definition-ref",
))  # fmt: skip
"""Core schemas whose values ``==`` compares completely, if their classes leave it as it is."""

_NOT_SCHEMAS: Final = frozenset(
    ("metadata", "default", "cls", "expected", "members", "serialization", "function", "config")
)


def is_compared(schema: Any) -> bool:
    """Return whether ``==`` compares the values of a core schema completely."""
    return all(_is_compared(part) for part in _parts(schema))


def _may_hold_objects(schema: Mapping[str, Any]) -> bool:
    return any(part["type"] in ("model", "dataclass", "definition-ref") for part in _parts(schema))


def _is_compared(schema: Mapping[str, Any]) -> bool:
    """Return whether ``==`` compares what a schema adds; what it does not know, it takes for not compared."""
    kind = schema["type"]
    if kind == "function-before":
        return not _may_hold_objects(schema["schema"])  # of which it may drop what was set
    if kind == "is-instance":
        return schema["cls"].__module__.partition(".")[0] in ("pathlib", "ipaddress")
    if kind not in _COMPARED:
        return False
    if kind == "model":
        own_way = "serialization" in schema or schema.get("custom_init")
        return schema["cls"].__eq__ is BaseModel.__eq__ and not own_way
    if kind == "dataclass":
        # One that was written by the decorator has no file.
        code = getattr(schema["cls"].__eq__, "__code__", None)
        fields = dataclasses.fields(schema["cls"])
        return getattr(code, "co_filename", "") == "<string>" and all(
            f.compare and f.init for f in fields
        )
    return not any(
        field.get("serialization_exclude") or "serialization_exclude_if" in field
        for _, field in _fields(schema)
    )


def _parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Return a schema and all that it is made of; each definition once."""
    definitions: dict[str, Any] = {}
    todo = [schema]
    while todo:
        part = todo.pop()
        if part["type"] == "definitions":
            definitions.update((d["ref"], d) for d in part["definitions"])
            todo.append(part["schema"])
        elif part["type"] == "definition-ref" and part["schema_ref"] in definitions:
            todo.append(definitions.pop(part["schema_ref"]))
        else:
            yield part
            todo.extend(_children(part))


def _children(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for _, field in _fields(schema):
        yield field["schema"]
    for key, value in schema.items():
        if key not in _NOT_SCHEMAS and key != "fields":
            yield from _schemas(value)


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    fields = schema.get("fields", ())
    if isinstance(fields, dict):
        yield from fields.items()
    else:
        yield from ((f["name"], f) for f in fields if isinstance(f, dict))


def _schemas(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("type"), str):
            yield value
        else:
            yield from (v for v in value.values() if isinstance(v, dict) and "type" in v)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _schemas(item)
