"""The pages of batches: the list, and one batch with its numbers, callbacks and graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from starlette.responses import Response

from jobrunner.core.batch import Batch
from jobrunner.core.job import Job
from jobrunner.core.workflows import BatchState
from jobrunner.fastapi.dashboard.forms import Form
from jobrunner.fastapi.dashboard.graphs import GraphView, graph_of
from jobrunner.fastapi.dashboard.pages import Pages
from jobrunner.fastapi.dashboard.visit import Visit
from jobrunner.queue.batches import BATCH_STATES

ROWS: Final = 50
MOST_READ: Final = 1_000
"""The most members that the graph reads."""
_PER_CENT: Final = 100


@dataclass(frozen=True, slots=True)
class BatchesView:
    """The list."""

    batches: Sequence[Batch[Any]]
    states: Sequence[str]
    filters: dict[str, str]
    cursor: str
    next_cursor: str | None
    complete: bool

    def share(self, batch: Batch[Any]) -> int:
        """Return the members that have ended, in per cent."""
        return ended_share(batch)


@dataclass(frozen=True, slots=True)
class BatchView:
    """The page of one batch."""

    batch: Batch[Any]
    share: int
    numbers: Sequence[tuple[str, int]]
    """The number of members in each state."""
    callbacks: Sequence[tuple[str, Job[Any]]]
    graph: GraphView
    can_cancel: bool
    command: str


def ended_share(batch: Batch[Any]) -> int:
    """Return the members of a batch that have ended, in per cent."""
    ended = batch.succeeded + batch.dead + batch.cancelled
    return _PER_CENT if batch.total == 0 else ended * _PER_CENT // batch.total


def add_batches(pages: Pages) -> None:
    """Add the pages of batches and their forms."""

    @pages.show("/batches")
    async def list_batches(visit: Visit) -> Response:
        filters = {name: visit.asked(name) for name in ("state", "name")}
        cursor = visit.asked("cursor")
        page = await visit.queue.batches.list(
            limit=ROWS,
            cursor=cursor or None,
            state=cast("BatchState | None", filters["state"] or None),
            name=filters["name"] or None,
        )
        view = BatchesView(
            batches=page.items,
            states=BATCH_STATES,
            filters=filters,
            cursor=cursor,
            next_cursor=page.next_cursor,
            complete=page.complete,
        )
        return await visit.page("batches.html", view, title="Batches", section="jobs")

    @pages.show("/batches/{id}")
    async def show_batch(visit: Visit) -> Response:
        batch = await visit.queue.batches.get(visit.path("id"))
        graph = await visit.queue.batches.graph(batch.id, limit=MOST_READ)
        callbacks = (("then", batch.then), ("otherwise", batch.otherwise), ("at end", batch.at_end))
        view = BatchView(
            batch=batch,
            share=ended_share(batch),
            numbers=[
                ("succeeded", batch.succeeded),
                ("dead", batch.dead),
                ("cancelled", batch.cancelled),
                ("running", batch.running),
                ("waiting", batch.waiting),
            ],
            callbacks=[(name, job) for name, job in callbacks if job is not None],
            graph=graph_of(batch.id, graph),
            can_cancel=batch.state == "running" and not batch.cancel_requested,
            command=f"jobrunner batches show {batch.id}",
        )
        return await visit.page("batch.html", view, title=batch.name or "Batch", section="jobs")

    @pages.do("/batches/{id}/retry")
    async def retry_batch(visit: Visit, form: Form) -> Response:
        id = visit.path("id")
        async with visit.act("batches.retry", target=id, reason=form.get("reason")) as act:
            act.count = (await visit.queue.batches.retry(id)).replayed
        return visit.go(f"batches/{id}", "many-replayed", act.count)

    @pages.do("/batches/{id}/cancel")
    async def cancel_batch(visit: Visit, form: Form) -> Response:
        id = visit.path("id")
        async with visit.act("batches.cancel", target=id, reason=form.get("reason")) as act:
            act.count = 1 if await visit.queue.batches.cancel(id) else 0
        return visit.go(f"batches/{id}", "batch-cancelled" if act.count else "batch-ended")
