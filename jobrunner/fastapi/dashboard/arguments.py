"""Shows arguments and results as coloured JSON, or hides their values."""

import json
from collections.abc import Iterator
from typing import Any, Final

from markupsafe import Markup

from jobrunner.fastapi.dashboard.visit import Visit

_KEY: Final = Markup('<span class="key">{}</span>')
_HIDDEN: Final = Markup('<span class="hid">hidden</span>')
_VALUE: Final = Markup('<span class="{}">{}</span>')
_LINE: Final = Markup("{}{}: {}")
_COMMA: Final = Markup(",\n")
_OBJECT: Final = Markup("{{\n{}\n}}")
_MOST_DEEP: Final = 60


async def record_shown(visit: Visit, id: str) -> None:
    """Record that a viewer sees a job's arguments or result.

    Every page calls it before it shows any.  Its guard has let the viewer through.
    """
    async with visit.act("arguments.show", target=id):
        pass


def written(value: object) -> str:
    """Return a value as JSON text for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def coloured(value: object) -> Markup:
    """Return a value as indented JSON with a class for each kind of token."""
    return Markup("").join(_tokens(value, 0))


def hidden(arguments: dict[str, Any]) -> Markup:
    """Return the names of arguments with their values hidden."""
    lines = _COMMA.join(_LINE.format("  ", _KEY.format(_text(name)), _HIDDEN) for name in arguments)
    return _OBJECT.format(lines) if arguments else Markup("{}")


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tokens(value: object, depth: int) -> Iterator[str]:
    indent, inner = "  " * depth, "  " * (depth + 1)
    if isinstance(value, dict) and value and depth < _MOST_DEEP:
        yield "{\n"
        for index, (name, item) in enumerate(value.items()):
            yield _COMMA if index else ""
            yield _LINE.format(inner, _KEY.format(_text(name)), "")
            yield from _tokens(item, depth + 1)
        yield f"\n{indent}}}"
    elif isinstance(value, list) and value and depth < _MOST_DEEP:
        yield "[\n"
        for index, item in enumerate(value):
            yield (_COMMA if index else "") + inner
            yield from _tokens(item, depth + 1)
        yield f"\n{indent}]"
    else:
        yield _VALUE.format("str" if isinstance(value, str) else "num", _text(value))
