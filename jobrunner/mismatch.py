"""Says where a value cannot be kept as JSON, once it is known that it cannot: the slow half of the codec."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, to_json

MAX_PATHS = 64
"""How deep a path is followed; JSON that nests deeper is refused as a whole."""


def fault_of_validation(error: ValidationError) -> str:
    """Word what pydantic found, without the values: they may be secrets, and errors end up in logs."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(_worded(detail) for detail in found)


def fault_of_dump(value: object, error: Exception) -> str:
    """Say where the value is that could not be written as JSON."""
    if "depth exceeded" in str(error) or isinstance(error, RecursionError):
        return "nested too deep to be stored as JSON"
    if "Circular reference" in str(error):
        return "it holds itself, which JSON cannot say"
    path, culprit = _culprit(value, "")
    if isinstance(culprit, str):
        return _at(path, "the text holds a lone surrogate, which is not UTF-8")
    if isinstance(culprit, bytes):
        return _at(
            path,
            "these bytes are not UTF-8, as which their model wants them stored; "
            'give it model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")',
        )
    return _at(path, f"{_a(culprit)} cannot be stored as JSON ({_first_line(error)})")


def fault_of_load(error: ValidationError) -> str:
    """Say what of the JSON would not be taken back."""
    worded = fault_of_validation(error)
    if "recursion limit exceeded" in worded:
        return "nested too deep to be stored as JSON"
    if "number out of range" in worded:
        return "an int with that many digits cannot be stored"
    return f"it would not come back from JSON: {worded}"


def difference(sent: object, back: object, path: str = "") -> str | None:
    """Say where two values differ; None if they hold the same, although ``==`` says otherwise."""
    if _same(sent, back):
        return None
    if type(sent) is not type(back):
        return _at(path, _changed(sent, back))
    if isinstance(sent, dict) and isinstance(back, dict):
        return _dict_difference(sent, back, path)
    if isinstance(sent, (list, tuple)) and isinstance(back, (list, tuple)):
        pairs = zip(sent, back, strict=True)  # JSON keeps the length of an array
        return _first(difference(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(pairs))
    ours, theirs = _parts(sent), _parts(back)
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return _at(path, f"{_a(sent)} would come back different")
    return _first(difference(ours[name], theirs[name], _joined(path, name)) for name in ours)


def _dict_difference(sent: dict[Any, Any], back: dict[Any, Any], path: str) -> str | None:
    for key in sent:
        if key not in back:
            return _at(path, f"the key {key!r} would not come back: the keys of JSON are str")
    return _first(difference(sent[key], back[key], _joined(path, str(key))) for key in sent)


def _changed(sent: object, back: object) -> str:
    kind = type(sent).__name__
    if isinstance(sent, float):
        return f"{sent} cannot be stored as JSON"
    if isinstance(sent, (set, frozenset, tuple)):
        advice = f"pass a list, or annotate the parameter as {kind}[...]"
    elif isinstance(sent, type(back)):
        return (
            f"{_a(sent)} would come back as {_a(back)} without what it adds; "
            f"annotate the parameter as {kind}"
        )
    else:
        advice = f"annotate the parameter as {kind}, or pass what JSON has a word for"
    return f"{_a(sent)} cannot be stored as JSON here, it would come back as {_a(back)}; {advice}"


def _same(a: object, b: object) -> bool:
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001 - the caller's own __eq__ may raise anything; that of arrays does
        return False


def _parts(value: object) -> Mapping[str, object] | None:
    """Return what a value is made of, if its equality is only that of identity or of its parts."""
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if dataclasses.is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if type(value).__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return dict(vars(value))
    return None


def _culprit(
    value: object, path: str, *, in_model: bool = False, depth: int = 0
) -> tuple[str, object]:
    """Follow the parts of a value down to the one that JSON refuses."""
    in_model = in_model or isinstance(value, BaseModel)  # which writes bytes in its own way
    for name, part in _children(value) if depth < MAX_PATHS else ():
        try:
            to_json(part, bytes_mode="utf8" if in_model else "base64", inf_nan_mode="strings")
        except Exception:  # noqa: BLE001 - whatever it raises, this is the part that raises it
            return _culprit(part, _joined(path, name), in_model=in_model, depth=depth + 1)
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
        yield from (_parts(value) or {}).items()


def _worded(detail: ErrorDetails) -> str:
    path = ""
    for part in detail["loc"]:
        path = _joined(path, f"[{part}]" if isinstance(part, int) else part)
    return _at(path, detail["msg"])


def _joined(path: str, name: str) -> str:
    return f"{path}{name}" if not path or name.startswith("[") else f"{path}.{name}"


def _at(path: str, fault: str) -> str:
    return f"{path}: {fault}" if path else fault


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIO' else 'a'} {name}"


def _first(found: Iterator[str | None]) -> str | None:
    return next((fault for fault in found if fault is not None), None)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removeprefix("Error serializing to JSON: ")
