"""Reads pydantic's core schemas: what the values of a type hold, and which of them cannot be stored."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from jobrunner.tasks.codec_errors import EXCLUDED, STARRED, joined

_ONE_WAY: Final = {
    "callable": "a function cannot be stored; pass its name and look it up in the task",
    "generator": "an iterator can be read only once; annotate it as list[...]",
    "is-subclass": "a class cannot be stored; pass its name and look it up in the task",
}
"""Core schemas that validate but whose values JSON has no word for."""

_COMPARED: Final = frozenset((
    "any", "none", "bool", "int", "float", "decimal", "str", "bytes", "date", "datetime", "timedelta", "literal",
    "enum", "uuid", "url", "multi-host-url", "list", "tuple", "set", "frozenset", "dict", "nullable", "default",
    "union", "tagged-union", "typed-dict", "model", "model-fields", "dataclass", "dataclass-args", "function-after",
    "lax-or-strict", "json-or-python",
))  # fmt: skip
"""Core schemas whose values ``==`` compares completely, if their classes leave it as it is."""

_OBJECTS: Final = frozenset(("model", "model-fields", "dataclass", "dataclass-args"))
_NOT_SCHEMAS: Final = frozenset(
    ("metadata", "default", "cls", "expected", "members", "serialization", "function", "config")
)
_REWRITES: Final = frozenset(("function-before", "function-wrap", "function-plain"))


class Parts(NamedTuple):
    """What is to be known of a model or a dataclass to find its unset fields."""

    is_root: bool
    names: frozenset[str]
    """Its fields with a default that is a constant and may be left out."""
    defaults: tuple[tuple[str, object], ...]
    """The same, each with its default."""
    deep: tuple[str, ...]
    """Its fields that may hold such objects."""
    extra: bool
    """Whether its extra fields may."""


class Holds(NamedTuple):
    """What the values of a type hold, as far as comparing and writing them goes."""

    compared: bool
    """Whether ``==`` compares them completely."""
    parts: dict[type, Parts]
    """By class; empty if no field of any has a default that may be left out."""
    keys: tuple[str, ...] | None
    """Of a TypedDict, as arguments are one: the keys whose values may hold such objects."""


class Fault(NamedTuple):
    """What of a type cannot be stored, and what to write instead."""

    path: str
    text: str


class _Node(NamedTuple):
    schema: Mapping[str, Any]
    path: str
    certain: bool
    """Whether each value of the type has it, written in the type's own way."""
    in_union: bool


def holds(schema: Any) -> Holds:
    """Return what the values of a core schema hold."""
    nodes = list(_nodes(schema))
    written = _discriminators(nodes)
    parts: dict[type, Parts] = {}
    for node in nodes:
        if node.schema["type"] in ("model", "dataclass"):
            parts[node.schema["cls"]] = _parts_of(node.schema, written)
    if not any(part.defaults for part in parts.values()):
        parts = {}
    whole = schema["schema"] if schema["type"] == "definitions" else schema
    keys = None
    if whole["type"] == "typed-dict" and "extras_schema" not in whole:
        keys = tuple(name for name, f in _fields(whole) if _may_hold_objects(f["schema"]))
    return Holds(all(_is_compared(node.schema) for node in nodes), parts, keys)


def _parts_of(schema: Mapping[str, Any], written: frozenset[str]) -> Parts:
    inner = schema["schema"]
    while inner["type"] not in _OBJECTS and "schema" in inner:
        inner = inner["schema"]  # a validator of the whole
    fields = dict(_fields(inner))
    defaults: list[tuple[str, object]] = []
    if schema["type"] == "model":
        for name, field in fields.items():
            if field["schema"]["type"] == "default" and "default" in field["schema"]:
                defaults.append((name, field["schema"]["default"]))
    kept = tuple(pair for pair in defaults if pair[0] not in written)
    extra = inner.get("extras_schema")
    return Parts(
        is_root=schema.get("root_model", False),
        names=frozenset(name for name, _ in kept),
        defaults=kept,
        deep=tuple(name for name, f in fields.items() if _may_hold_objects(f["schema"])),
        extra=extra is not None and _may_hold_objects(extra),
    )


def _may_hold_objects(schema: Mapping[str, Any]) -> bool:
    return any(
        node.schema["type"] in ("model", "dataclass", "definition-ref") for node in _nodes(schema)
    )


def _discriminators(nodes: Iterable[_Node]) -> frozenset[str]:
    """Return the fields, by name, by which one model of a union is told from the others."""
    keys = {
        key
        for node in nodes
        if node.schema["type"] == "tagged-union"
        for key in _texts(node.schema["discriminator"])
    }
    named: set[str] = set()
    for node in nodes:
        for name, field in _fields(node.schema):
            inner = field["schema"]
            is_one_word = inner["type"] == "default" and inner["schema"]["type"] == "literal"
            if (node.in_union and is_one_word) or {
                name,
                *_texts(field.get("validation_alias")),
            } & keys:
                named.add(name)
    return frozenset(named)


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


def clock_fault(schema: Any) -> Fault | None:
    """Return which validator of a type asks the clock; None if none does."""
    for node in _nodes(schema):
        op = node.schema.get("now_op")
        if op is not None:
            kind = node.schema["type"]
            return Fault(
                node.path,
                f"{op.capitalize()}{kind.capitalize()} asks the clock, and validators run again at each attempt, when"
                f" its answer may be another one; annotate it as {kind} (in a model of the task's own, if this one is"
                " needed elsewhere too) and check it before the job is enqueued",
            )
    return None


def storing_fault(schema: Any) -> Fault | None:
    """Return why no arguments of these types can be stored; None if some can."""
    for node in _nodes(schema):
        if not node.certain:
            continue
        if node.schema["type"] in _ONE_WAY:
            return Fault(node.path, _ONE_WAY[node.schema["type"]])
        if _is_secret(node.schema):
            return Fault(node.path, STARRED)
        for name, field in _fields(node.schema):
            required = field["schema"]["type"] != "default" and field.get("required", True)
            if field.get("serialization_exclude") and required:
                return Fault(joined(node.path, name), EXCLUDED)
    return None


def _nodes(schema: Any) -> Iterator[_Node]:
    """Return a schema and all that it is made of; a definition once for each way in which it is held."""
    definitions: dict[str, Any] = {}
    seen: set[tuple[str, bool, bool]] = set()
    todo = [_Node(schema, "", certain=True, in_union=False)]
    while todo:
        node = todo.pop()
        inner, kind = node.schema, node.schema["type"]
        if kind == "definitions":
            definitions.update((d["ref"], d) for d in inner["definitions"])
            todo.append(node._replace(schema=inner["schema"]))
            continue
        if kind == "definition-ref" and inner["schema_ref"] in definitions:
            way = (inner["schema_ref"], node.certain, node.in_union)
            if way not in seen:
                seen.add(way)
                todo.append(node._replace(schema=definitions[inner["schema_ref"]]))
            continue
        yield node
        todo.extend(reversed(list(_children(node))))


def _children(node: _Node) -> Iterator[_Node]:
    schema, kind = node.schema, node.schema["type"]
    union = kind in ("union", "tagged-union")
    # What is written in a way of its own, may be missing, or is one of several, need not be what a value has.
    certain = node.certain and not (
        union or kind == "default" or kind in _REWRITES or "serialization" in schema
    )
    for name, field in _fields(schema):
        # The whole is a call's arguments, each of which is there in some call.
        there = certain and (field.get("required", True) or not node.path)
        yield _Node(field["schema"], joined(node.path, name), there, in_union=node.in_union)
    step = "[]" if kind in ("list", "set", "frozenset", "tuple", "dict") else ""
    for key, value in schema.items():
        if key in _NOT_SCHEMAS or key == "fields":
            continue
        for part in _schemas(value):
            yield _Node(part, node.path + step, certain, node.in_union or union)


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


def _is_secret(schema: Mapping[str, Any]) -> bool:
    """Return whether it is written by pydantic's own function for secrets; unknown ones are refused at the call."""
    written = schema.get("serialization", {}).get("function")
    name = getattr(written, "__qualname__", "")
    return getattr(written, "__module__", "") == "pydantic.types" and name.startswith(
        "_serialize_secret"
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
