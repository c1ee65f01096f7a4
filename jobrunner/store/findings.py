"""The findings of a store's doctor, for every database."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """The result of one check."""

    level: Level
    about: str
    what: str
    do: str | None = None
    """What to do, in the imperative; None if there is nothing."""
