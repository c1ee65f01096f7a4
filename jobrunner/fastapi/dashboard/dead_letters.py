"""The page that lists dead letters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.responses import Response

from jobrunner.core.clock import from_us
from jobrunner.core.model import JobRow
from jobrunner.fastapi.dashboard.facts import REASONS
from jobrunner.fastapi.dashboard.groups import show_groups
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.search import known_queues, known_tasks
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.filters import REASONS as ALL_REASONS
from jobrunner.queue.filters import dead_letter_filter, read_cursor, write_cursor

ROWS: Final = 50
FILTERS: Final = ("task", "queue", "reason", "tag", "group")


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter in the list."""

    id: str
    task: str
    queue: str
    reason: str
    error_type: str
    error: str
    attempt: int
    died_at: datetime


@dataclass(frozen=True, slots=True)
class DeadView:
    """The list of dead letters."""

    filters: Mapping[str, str]
    tasks: Sequence[str]
    queues: Sequence[str]
    reasons: Mapping[str, str]
    letters: Sequence[Letter]
    cursor: str
    next_cursor: str | None
    complete: bool

    @property
    def is_filtered(self) -> bool:
        """True if a filter is set."""
        return any(self.filters.values())


def letter_of(row: JobRow) -> Letter:
    """Return a dead letter for a list."""
    assert row.finished_at is not None  # noqa: S101 - every dead letter has died
    return Letter(
        id=row.id,
        task=row.task,
        queue=row.queue,
        reason=REASONS[row.reason] if row.reason is not None else "",
        error_type=(row.error_type or "").rpartition(".")[2],
        error=row.error or "",
        attempt=row.attempt,
        died_at=from_us(row.finished_at),
    )


def add_dead_letters(pages: Pages) -> None:
    """Add the page of dead letters: in groups, or one by one with ``view=letters``."""

    @pages.show("/dead")
    async def list_dead(visit: Visit) -> Response:
        filters = {name: visit.asked(name) for name in FILTERS}
        if visit.asked("view") != "letters":
            return await show_groups(visit)
        cursor = visit.asked("cursor")
        page = await visit.parts.store.dead_letters.list(
            dead_letter_filter("list", {name: value for name, value in filters.items() if value}),  # type: ignore[arg-type]  # of these words
            before=read_cursor(cursor or None),
            limit=ROWS,
        )
        view = DeadView(
            filters=filters,
            tasks=await known_tasks(visit),
            queues=await known_queues(visit),
            reasons={reason: REASONS[reason] for reason in ALL_REASONS},
            letters=[letter_of(row) for row in page.rows],
            cursor=cursor,
            next_cursor=write_cursor(page.next),
            complete=page.complete,
        )
        return await visit.page("dead.html", view, title="Dead letters", section="dead")
