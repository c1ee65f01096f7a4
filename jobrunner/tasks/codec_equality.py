"""Compares a value with its copy from JSON or with a default."""

import dataclasses
from collections import deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import BaseModel, RootModel, Secret, SecretBytes, SecretStr

from jobrunner.tasks.codec_errors import (
    EXCLUDED,
    LEFT_OUT,
    MISSING,
    STARRED,
    at,
    joined,
    named,
    parts_of,
)

PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes, Decimal, UUID, date, timedelta))
"""Types without parts whose values ``==`` compares completely."""

_SECRETS: Final = (SecretStr, SecretBytes, Secret)
_MINUTE: Final = timedelta(minutes=1)


class Difference(NamedTuple):
    """The place where a value would come back changed, and the reason if known."""

    path: str
    text: str
    plain: bool = False
    """True if the type is the same, so that a validator may have changed the value on reading."""

    def __str__(self) -> str:
        return at(self.path, self.text)

    def inside(self, step: str) -> "Difference":
        """Return the difference with the path from one level further out."""
        return self._replace(path=joined(step, self.path) if self.path else step)


def difference(sent: object, back: object) -> Difference | None:
    """Return the first difference of two values; None if their contents are equal.

    The result of ``==`` does not count. Aware datetimes are compared by their instant. Models are also compared by
    which fields were set: ``back`` may have more.
    """
    return _differ(sent, back, strict=False)


def identical(value: object, default: object) -> bool:
    """Return whether two values are equal in content, types and set fields: 1 is not True."""
    if type(value) in PLAIN:
        return type(value) is type(default) and value == default
    return value is default or _differ(value, default, strict=True) is None


def _differ(sent: Any, back: Any, *, strict: bool) -> Difference | None:
    kind = type(sent)
    if strict and kind is not type(back):
        return _changed(sent, back)
    if kind not in PLAIN:
        for kinds, differ in _WITH_PARTS:
            if isinstance(sent, kinds):
                return differ(sent, back, strict=strict)
    is_data = dataclasses.is_dataclass(sent)  # a dataclass may leave fields out of ``==``
    if _same(sent, back) and not (is_data and kind is type(back)):
        return None
    if kind is type(back):
        return _parts_differ(sent, back, strict=strict)
    return _changed(sent, back)


def _models_differ(sent: BaseModel, back: object, *, strict: bool) -> Difference | None:
    if not isinstance(back, BaseModel) or _class_of(sent) is not _class_of(back):
        return _changed(sent, back)
    ours, theirs = sent.__dict__, back.__dict__
    fields = type(sent).__pydantic_fields__
    for name in fields:
        a, b = ours.get(name, MISSING), theirs.get(name, MISSING)
        if type(a) in PLAIN and type(a) is type(b) and a == b:
            continue
        found = _differ(a, b, strict=strict)
        if found is not None:
            if fields[name].exclude and not found.path:
                found = Difference("", EXCLUDED)
            return found.inside(name)
    if sent.__pydantic_extra__ or back.__pydantic_extra__:
        extra = _dicts_differ(
            sent.__pydantic_extra__ or {}, back.__pydantic_extra__ or {}, strict=strict
        )
        if extra is not None:
            return extra
    if isinstance(sent, RootModel):
        return None
    ours_set, theirs_set = sent.__pydantic_fields_set__, back.__pydantic_fields_set__
    if ours_set <= theirs_set and not (strict and ours_set != theirs_set):
        return None
    lost = min(ours_set ^ theirs_set)
    return Difference(lost, EXCLUDED if lost in fields and fields[lost].exclude else LEFT_OUT)


def _dicts_differ(sent: dict[Any, Any], back: object, *, strict: bool) -> Difference | None:
    if not isinstance(back, dict) or not isinstance(sent, type(back)):
        return _changed(sent, back)
    keys = back
    if not PLAIN.issuperset(map(type, sent)):
        keys = {_normal(key): item for key, item in back.items()}
    for key, item in sent.items():
        mine = key if keys is back else _normal(key)
        if mine not in keys:
            return _lost_key(sent, key)
        found = _differ(item, keys[mine], strict=strict)
        if found is not None:
            return found.inside(str(key))
    return None if len(sent) == len(back) else _unlike(sent, back)


def _lists_differ(sent: Any, back: Any, *, strict: bool) -> Difference | None:
    if not isinstance(sent, type(back)):
        return _changed(sent, back)
    if len(sent) != len(back):
        return _unlike(sent, back)
    kinds = list(map(type, sent))
    # A list of a hundred thousand numbers is compared in C.
    if PLAIN.issuperset(kinds) and sent == back and not (strict and kinds != list(map(type, back))):
        return None
    for index, (a, b) in enumerate(zip(sent, back, strict=True)):
        found = _differ(a, b, strict=strict)
        if found is not None:
            return found.inside(f"[{index}]")
    return None


def _sets_differ(sent: Any, back: Any, *, strict: bool) -> Difference | None:
    if not isinstance(back, (set, frozenset)):
        return _changed(sent, back)
    partners = {_normal(item): item for item in back}
    for item in sent:
        mine = _normal(item)
        if mine not in partners:
            return _offset_fault(item) or _unlike(sent, back)
        found = _differ(item, partners[mine], strict=strict)
        if found is not None:
            return found.inside("[]")
    return None if len(sent) == len(back) else _unlike(sent, back)


def _times_differ(sent: datetime | time, back: object, *, strict: bool) -> Difference | None:
    if not isinstance(back, (datetime, time)):
        return _changed(sent, back)
    if sent.tzinfo is None and back.tzinfo is None and sent == back:
        return None
    if _normal(sent) == _normal(back) and not (strict and sent.utcoffset() != back.utcoffset()):
        return None
    return _offset_fault(sent) or _unlike(sent, back)


def _offset_fault(moment: object) -> Difference | None:
    """Return the reason why JSON loses the offset of a time; None if it keeps it.

    None too for a value that is not a time.
    """
    if not isinstance(moment, (datetime, time)) or moment.tzinfo is None:
        return None
    offset = moment.utcoffset()
    if offset is None:
        return Difference(
            "",
            f"{named(moment)} has no offset in {moment.tzinfo} by itself, and JSON has only the offset; pass"
            f" .replace(tzinfo=None) of it and the zone's name, {str(moment.tzinfo)!r}, beside it, or a datetime",
        )
    if offset % _MINUTE:
        text = f"its offset of {offset} has seconds, which JSON does not write; "
        advice = "pass .astimezone(UTC) of it" if isinstance(moment, datetime) else "pass it in UTC"
        return Difference("", text + advice)
    return None


def _lost_key(sent: object, key: object) -> Difference:
    fault = _offset_fault(key)
    if fault is not None:
        return fault
    if type(key) is str:
        return Difference("", f"{named(sent)} would come back with other keys", plain=True)
    return Difference("", f"the key {key!r} would not come back: the keys of JSON are str")


def _parts_differ(sent: object, back: object, *, strict: bool) -> Difference | None:
    ours, theirs = parts_of(sent), parts_of(back)
    if ours is None or theirs is None or ours.keys() != theirs.keys():
        return _unlike(sent, back)
    for name, part in ours.items():
        found = _differ(part, theirs[name], strict=strict)
        if found is not None:
            return found.inside(name)
    return None


_WITH_PARTS: Final[tuple[tuple[Any, Callable[..., Difference | None]], ...]] = (
    (BaseModel, _models_differ),
    (dict, _dicts_differ),
    ((list, tuple, deque), _lists_differ),
    ((set, frozenset), _sets_differ),
    ((datetime, time), _times_differ),
)


def _unlike(sent: object, back: object) -> Difference:
    if type(sent) is not type(back):
        return _changed(sent, back)
    if isinstance(sent, _SECRETS):
        return Difference("", STARRED)
    return Difference("", f"{named(sent)} would come back different", plain=True)


def _changed(sent: object, back: object) -> Difference:
    kind = type(sent).__name__
    if back is MISSING:
        return Difference("", f"{named(sent)} would not come back")
    if isinstance(sent, _SECRETS):
        return Difference("", STARRED)
    if isinstance(sent, float):
        return Difference("", f"{sent} cannot be stored as JSON")
    if isinstance(sent, (set, frozenset, tuple)):
        advice = f"pass a list, or annotate the parameter as {kind}[...]"
    elif isinstance(sent, type(back)):
        return Difference(
            "",
            f"{named(sent)} would come back as {named(back)} without what it adds; "
            f"annotate the parameter as {kind}",
        )
    else:
        advice = f"annotate the parameter as {kind}, or pass what JSON has a word for"
    return Difference(
        "",
        f"{named(sent)} cannot be stored as JSON here, it would come back as {named(back)}; {advice}",
    )


def _normal(value: Any) -> Any:
    """Return a key that is equal for equal values.

    For an aware datetime it is the instant, which ``==`` does not always compare.
    """
    if isinstance(value, (datetime, time)):
        wall, offset = value.replace(tzinfo=None, fold=0), value.utcoffset()
        if offset is None or isinstance(wall, time):
            return wall, offset, value.tzinfo is None
        return wall - datetime.min - offset  # noqa: DTZ901 - as a duration: no datetime is before the year 1
    if type(value) is tuple:
        return tuple(map(_normal, value))
    return value


def _class_of(model: BaseModel) -> Any:
    """Return a model's class; a generic one without its parameters, as pydantic compares."""
    return model.__pydantic_generic_metadata__["origin"] or type(model)


def _same(a: object, b: object) -> bool:
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001 - the application's __eq__ may raise anything; that of arrays does
        return False
