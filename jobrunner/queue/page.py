"""A page: the form in which every list of jobs, dead letters, schedules and queues is returned."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from jobrunner.core.exports import exported

T = TypeVar("T")


@exported
@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some entries of a list, and the cursor of the page after; None at the end."""

    items: list[T]
    next_cursor: str | None
    complete: bool = True
    """False if the search stopped before ``limit`` entries were found; ``next_cursor`` goes on from there."""
