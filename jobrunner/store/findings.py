"""Defines the findings of the doctor, for every database."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """The result of one check."""

    level: Level
    about: str
    what: str
    do: str | None = None
    """The remedy, in the imperative; None if there is nothing to do."""
