"""Types of arguments, and codecs of functions that take them."""

import dataclasses
import enum
import inspect
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from jobrunner.tasks.codec import ArgsCodec


class User(BaseModel):
    """A model with an optional field."""

    name: str
    joined: datetime | None = None


class Attachment(BaseModel):
    """A model that writes bytes as text."""

    content: bytes


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    seen: set[int]


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"


class Surly:
    """A class that raises when it is compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not today")

    __hash__ = None  # type: ignore[assignment]


def codec_of(fn: Callable[..., Any]) -> ArgsCodec:
    """Return the codec of a function."""
    return ArgsCodec(fn.__name__, tuple(inspect.signature(fn).parameters.values()))


def codec_for(annotation: Any) -> ArgsCodec:
    """Return the codec of a function ``note`` with one parameter, ``detail``."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return ArgsCodec("note", [inspect.Parameter("detail", kind, annotation=annotation)])


def nested(depth: int) -> list[Any]:
    """Return an empty list inside so many others."""
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def send(email: str, username: str = "you", *, copies: int = 1) -> None:
    """Take arguments, of which the first alone has no default."""
    raise NotImplementedError
