"""Reads pydantic's core schemas: the contents of a type, and the reasons why it cannot be stored."""

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
"""Core schemas that validate, but whose values cannot be written as JSON."""

_COMPARED: Final = frozenset((
    "any", "none", "bool", "int", "float", "decimal", "str", "bytes", "date", "datetime", "timedelta", "literal",
    "enum", "uuid", "url", "multi-host-url", "list", "tuple", "set", "frozenset", "dict", "nullable", "default",
    "union", "tagged-union", "typed-dict", "model", "model-fields", "dataclass", "dataclass-args", "function-after",
    "lax-or-strict", "json-or-python",
))  # fmt: skip
"""Core schemas whose values ``==`` compares completely, if their classes do not override it."""

_EXACT: Final = {
    "none": frozenset(("type", "metadata")),
    "bool": frozenset(("type", "metadata")),
    "int": frozenset(("type", "metadata")),
    "str": frozenset(("type", "metadata")),
    "nullable": frozenset(("type", "metadata", "schema")),
    "list": frozenset(("type", "metadata", "items_schema")),
}
"""Core schemas whose values come back from JSON as they were, by the only keys that they may have."""
_PLAIN_FIELD: Final = frozenset(("type", "metadata", "schema", "required"))

_OBJECTS: Final = frozenset(("model", "model-fields", "dataclass", "dataclass-args"))
_NOT_SCHEMAS: Final = frozenset(
    ("metadata", "default", "cls", "expected", "members", "serialization", "function", "config")
)
_REWRITES: Final = frozenset(("function-before", "function-wrap", "function-plain"))


class Parts(NamedTuple):
    """The fields of a model or a dataclass, as needed to find unset ones."""

    is_root: bool
    names: frozenset[str]
    """The fields with a constant default, which may be left out."""
    defaults: tuple[tuple[str, object], ...]
    """The same fields, each with its default."""
    deep: tuple[str, ...]
    """The fields that may hold models or dataclasses."""
    extra: bool
    """True if the extra fields may hold models or dataclasses."""


class Holds(NamedTuple):
    """The contents of a type's values, as needed to compare and write them."""

    compared: bool
    """True if ``==`` compares them completely."""
    parts: dict[type, Parts]
    """The fields by class; empty if no class has a field that may be left out."""
    keys: tuple[str, ...] | None
    """For a TypedDict, such as arguments: the keys whose values may hold models or dataclasses."""
    exact: bool
    """True if each value comes back from JSON as it was, so that none need be read back to know."""


class Fault(NamedTuple):
    """A part of a type that cannot be stored, and what to write instead."""

    path: str
    text: str


class _Node(NamedTuple):
    schema: Mapping[str, Any]
    path: str
    certain: bool
    """True if every value of the type has this part, and pydantic writes it in the standard way."""
    in_union: bool


def holds(schema: Any) -> Holds:
    """Return the contents of the values of a core schema."""
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
    compared = all(_is_compared(node.schema) for node in nodes)
    return Holds(compared, parts, keys, all(_is_exact(node.schema) for node in nodes))


def _parts_of(schema: Mapping[str, Any], written: frozenset[str]) -> Parts:
    inner = schema["schema"]
    while inner["type"] not in _OBJECTS and "schema" in inner:
        inner = inner["schema"]  # skip a validator around the whole model
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
    """Return the names of the fields that distinguish the models of a union."""
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
    """Return whether ``==`` compares the parts that a schema adds; False for unknown schemas."""
    kind = schema["type"]
    if kind == "function-before":
        return not _may_hold_objects(
            schema["schema"]
        )  # the validator may drop set fields of an object
    if kind == "is-instance":
        return schema["cls"].__module__.partition(".")[0] in ("pathlib", "ipaddress")
    if kind not in _COMPARED:
        return False
    if kind == "model":
        own_way = "serialization" in schema or schema.get("custom_init")
        return schema["cls"].__eq__ is BaseModel.__eq__ and not own_way
    if kind == "dataclass":
        # An __eq__ that the decorator generated has no file.
        code = getattr(schema["cls"].__eq__, "__code__", None)
        fields = dataclasses.fields(schema["cls"])
        return getattr(code, "co_filename", "") == "<string>" and all(
            f.compare and f.init for f in fields
        )
    return not any(
        field.get("serialization_exclude") or "serialization_exclude_if" in field
        for _, field in _fields(schema)
    )


def _is_exact(schema: Mapping[str, Any]) -> bool:
    """Return whether JSON holds all values of a schema, apart from its parts; False for one with constraints."""
    kind = schema["type"]
    if kind == "typed-dict":
        plain = all(field.keys() <= _PLAIN_FIELD for _, field in _fields(schema))
        # Other extra fields would hold values of any type.
        closed = schema.get("extra_behavior") == "forbid" and "serialization" not in schema
        return plain and closed and not schema.get("computed_fields")
    return kind in _EXACT and schema.keys() <= _EXACT[kind]


def clock_fault(schema: Any) -> Fault | None:
    """Return the validator of a type that reads the clock; None if none does."""
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
    """Return the reason why no value of the type can be stored; None if some can."""
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
    """Yield a schema and all schemas inside it.

    A definition comes once per combination of ``certain`` and ``in_union``.
    """
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
    # A part with a custom serialiser, with a default, or in a union need not be in every value.
    certain = node.certain and not (
        union or kind == "default" or kind in _REWRITES or "serialization" in schema
    )
    for name, field in _fields(schema):
        # At the top are a call's arguments: NotRequired, but each of them is passed in some call.
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
    """Return whether pydantic's own function for secrets writes the value.

    A secret type with another function is refused at the call instead.
    """
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
