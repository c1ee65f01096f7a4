"""Stands for the result of a call that has not run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NoReturn, Protocol

from jobrunner.tasks.codec_errors import joined, parts_of

MOST_SEARCHED: Final = 10_000
"""The most values inside the arguments of a refused call that are searched for placeholders."""

_OPERATORS: Final = """
    add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow rpow matmul rmatmul
    and rand or ror xor rxor lshift rlshift rshift rrshift neg pos abs invert round trunc floor ceil
    lt le gt ge eq ne bool int float complex index len iter next reversed contains call await aiter anext
    enter exit aenter aexit bytes str format hash fspath
""".split()  # noqa: SIM905 - one to a line, they would fill a page
"""The special methods that use a value."""


class Source(Protocol):
    """The call whose result a placeholder stands for."""

    spec: Any


class Placeholder:
    """The result of a call that has not run; any use of it as a value raises TypeError."""

    __slots__ = ("_call",)

    def __init__(self, call: Source) -> None:
        object.__setattr__(self, "_call", call)

    def __repr__(self) -> str:
        return f"<the result of {_task_of(self)}, which has not run>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):
            # Asked by protocols such as `copy` and `inspect`, and not by the user's code.
            raise AttributeError(name)
        raise used_as_value(self, f"`.{name}`")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise used_as_value(self, f"`.{name} = ...`")

    def __getitem__(self, key: object) -> NoReturn:
        raise used_as_value(self, f"`[{key!r}]`")

    def __reduce__(self) -> NoReturn:
        raise used_as_value(self, "copied or pickled")


def _refusing(operator: str) -> Any:
    def refuse(self: Placeholder, *_: object) -> NoReturn:
        raise used_as_value(self, f"in `__{operator}__`")

    return refuse


for _operator in _OPERATORS:
    setattr(Placeholder, f"__{_operator}__", _refusing(_operator))


Handed = Placeholder | list[Placeholder]
"""The value of a parameter that takes the result of one call, or those of several."""


def source_of(placeholder: Placeholder) -> Any:
    """Return the call whose result a placeholder stands for."""
    return object.__getattribute__(placeholder, "_call")


MAY_HAND: Final = frozenset({Placeholder, list, tuple})
"""The types of arguments that may be, or hold, results of other calls."""


def handed_in(given: Mapping[str, Any]) -> dict[str, Handed] | None:
    """Return the arguments of a call that are results of other calls; None if there are none.

    Args:
        given: The arguments by parameter name.

    Raises:
        TypeError: A list holds results of other calls and also plain values.
    """
    handed: dict[str, Handed] = {}
    # Runs once per enqueue, so only the first item of a list is looked at: `refuse_inside` finds the others.
    for name, value in given.items():
        kind = type(value)
        if kind is Placeholder:
            handed[name] = value
        elif (kind is list or kind is tuple) and value and type(value[0]) is Placeholder:
            handed[name] = _all_placeholders(name, value)
    return handed or None


def handed_names(handed: str | None) -> frozenset[str]:
    """Return the parameters that a stored job takes from other jobs; see ``Enqueue.handed``."""
    return frozenset() if handed is None else frozenset(json.loads(handed))


def _all_placeholders(name: str, values: Sequence[object]) -> list[Placeholder]:
    found = [value for value in values if type(value) is Placeholder]
    if len(found) < len(values):
        raise _mixed(name, found[0])
    return found


def refuse_inside(given: Mapping[str, object]) -> None:
    """Raise if an argument holds the result of another call anywhere inside.

    Args:
        given: The arguments by parameter name.

    Raises:
        TypeError: It does; the message names the place.
    """
    for path, value in islice(_inside(given), MOST_SEARCHED):
        if type(value) is Placeholder:
            name, bracket, _ = path.partition("[")
            if bracket and isinstance(given.get(name), (list, tuple)) and path.count("[") == 1:
                raise _mixed(name, value)
            task = _task_of(value)
            raise TypeError(
                f"{path}: the result of {task} is known only when it has run, and cannot be a part of another value:"
                f" hand it on as a whole, `paid = {task}.call(...)` and `task.call(paid.result)`, and put the value"
                " together in the task that takes it"
            )


def _inside(given: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    left: list[tuple[str, object]] = list(given.items())
    seen: set[int] = set()
    while left:
        path, value = left.pop()
        yield path, value
        if type(value) is Placeholder or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            left += [(joined(path, f"[{key!r}]"), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            left += [(joined(path, f"[{index}]"), item) for index, item in enumerate(value)]
        elif not isinstance(value, (str, bytes, type)):
            parts = parts_of(value) or {}
            left += [(joined(path, name), item) for name, item in parts.items()]


def _mixed(name: str, placeholder: Placeholder) -> TypeError:
    task = _task_of(placeholder)
    return TypeError(
        f"{name}: a list takes results of other calls, or plain values, not both: give the plain ones by a parameter of"
        f" their own, or write a list of {task}'s results alone, [one.result for one in ...]"
    )


def used_as_value(placeholder: Placeholder, use: str) -> TypeError:
    """Return the error for a placeholder that is used as a value."""
    task = _task_of(placeholder)
    return TypeError(
        f"the result of {task} is known only when it has run, and has no value yet ({use}): hand it on as a whole,"
        f" `paid = {task}.call(...)` and `task.call(paid.result)`, and use it in the task that takes it"
    )


def _task_of(placeholder: Placeholder) -> str:
    name: str = source_of(placeholder).spec.name
    return name.rpartition(".")[2]
