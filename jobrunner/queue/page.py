"""The page that every ``list`` method returns."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from jobrunner.core.exports import exported

T = TypeVar("T")


@exported
@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, and the cursor of the next page.

    ::

        cursor = None
        while True:
            page = await jobs.list(state="queued", cursor=cursor)
            for job in page.items:
                print(job.id, job.task)
            cursor = page.next_cursor
            if cursor is None:
                break
    """

    items: list[T]
    next_cursor: str | None
    """The ``cursor`` argument for the next page; None on the last page."""
    complete: bool = True
    """False if the search stopped before it had found ``limit`` entries; ``next_cursor`` continues from there."""
