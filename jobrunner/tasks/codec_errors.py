"""Words the errors of values that cannot be stored as JSON."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

MISSING: Final = object()
"""Stands for a part that does not exist."""

MAX_PATHS: Final = 64
"""The depth to which a path is followed; JSON that nests deeper is refused as a whole."""

STARRED: Final = (
    "a secret is written as stars, so the job would not get it; pass the name under which the task finds it, or, if it"
    " may lie readable in the database, annotate it as Annotated[SecretStr,"
    ' PlainSerializer(SecretStr.get_secret_value, when_used="json")]'
)
EXCLUDED: Final = (
    "it has exclude=True, so it is not written and the job would not get it; pass it as a separate parameter, or"
    " leave out exclude=True"
)
LEFT_OUT: Final = (
    "it was set and would come back as not set, since exclude or a serializer of its model leaves it out; have it"
    " written, or do not set it"
)
AGAIN: Final = (
    "validators run again on what is stored, at each attempt: they must leave alone what they have already changed;"
    " write them so, or change the value in the task"
)


def fault_of_validation(error: ValidationError) -> str:
    """Word pydantic's findings without the values.

    The values may be secrets, and errors end up in logs.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(_worded(detail) for detail in found)


def fault_of_dump(value: object, error: Exception) -> str:
    """Word an error of writing JSON, with the place of the value at fault."""
    if "depth exceeded" in str(error) or isinstance(error, RecursionError):
        return "nested too deep to be stored as JSON"
    if "Circular reference" in str(error):
        return "it holds itself, which JSON cannot say"
    path, culprit = _culprit(value, "")
    if isinstance(culprit, str):
        return at(path, "the text holds a lone surrogate, which is not UTF-8")
    if isinstance(culprit, bytes):
        return at(
            path,
            "these bytes are not UTF-8, as which their model wants them stored; "
            'give it model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")',
        )
    return at(path, f"{named(culprit)} cannot be stored as JSON ({_first_line(error)})")


def fault_of_load(error: ValidationError) -> str:
    """Word an error of reading the written JSON back."""
    worded = fault_of_validation(error)
    if "recursion limit exceeded" in worded:
        return "nested too deep to be stored as JSON"
    if "number out of range" in worded:
        return "an int with that many digits cannot be stored"
    kinds = {detail["type"] for detail in error.errors(include_url=False, include_input=False)}
    why = ""
    if kinds & {"value_error", "assertion_error"}:
        why = f"; {AGAIN}"
    elif "missing" in kinds:
        why = (
            "; what exclude or a serializer of its model leaves out is not stored: have it written"
        )
    return f"it would not come back from JSON: {worded}{why}"


def parts_of(value: object) -> Mapping[str, object] | None:
    """Return the parts of a value by name; None if it has another ``==``.

    Only a model, a dataclass, or an object that is compared by identity has parts here.
    """
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if dataclasses.is_dataclass(value):
        # Fields that are neither passed nor compared are private to the class, like a model's private attributes.
        return {
            f.name: getattr(value, f.name, MISSING)
            for f in dataclasses.fields(value)
            if f.init or f.compare
        }
    if type(value).__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return dict(vars(value))
    return None


def _culprit(
    value: object, path: str, *, in_model: bool = False, depth: int = 0
) -> tuple[str, object]:
    """Return the path and the value of the innermost part that JSON refuses."""
    in_model = in_model or isinstance(value, BaseModel)  # a model writes bytes as its config says
    for name, part in _children(value) if depth < MAX_PATHS else ():
        try:
            to_json(part, bytes_mode="utf8" if in_model else "base64", inf_nan_mode="strings")
        except Exception:  # noqa: BLE001 - whatever it raises, this is the part that raises it
            return _culprit(part, joined(path, name), in_model=in_model, depth=depth + 1)
    return path, value


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key), item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield "[]", item
    elif not isinstance(value, type):
        yield from (parts_of(value) or {}).items()


def _worded(detail: ErrorDetails) -> str:
    path = ""
    for part in detail["loc"]:
        path = joined(path, f"[{part}]" if isinstance(part, int) else part)
    return at(path, detail["msg"])


def joined(path: str, name: str) -> str:
    return f"{path}{name}" if not path or name.startswith("[") else f"{path}.{name}"


def at(path: str, fault: str) -> str:
    return f"{path}: {fault}" if path else fault


def named(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removeprefix("Error serializing to JSON: ")
