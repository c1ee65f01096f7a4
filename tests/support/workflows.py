"""Batches and their callbacks, made through the store's public verbs alone."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from jobrunner.core.errors import JobRunnerError
from jobrunner.core.ids import new_id
from jobrunner.core.model import BatchEnqueue, Claimed, Edge, Enqueue, Need, NewBatch, State
from jobrunner.core.workflows import BatchEnqueued, BatchRow
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import NOW, claim, new, row_of

CALLBACKS: dict[str, Need] = {"then": "success", "otherwise": "failure", "at_end": "end"}
TASKS = ("work", *CALLBACKS)


class Made(NamedTuple):
    """A batch that was stored."""

    id: str
    members: Sequence[Enqueue]
    then: str
    otherwise: str
    at_end: str
    answer: BatchEnqueued

    @property
    def callbacks(self) -> tuple[str, str, str]:
        return self.then, self.otherwise, self.at_end


def request(
    *members: Enqueue,
    edges: Iterable[Edge] = (),
    callbacks: Sequence[str] = tuple(CALLBACKS),
    name: str | None = None,
    parent: str | None = None,
    now: int = NOW,
    ids: Callable[[], str] | None = None,
) -> BatchEnqueue:
    """Return a new batch with its three callbacks, not yet stored."""
    next_id = ids or (lambda: new_id(now))
    id = next_id()
    called = [new(task, id=next_id(), created_at=now) for task in callbacks]
    waits = [Edge(job.id, id, CALLBACKS[job.task]) for job in called]
    return BatchEnqueue(NewBatch(id, name, now, parent), members, called, [*edges, *waits])


async def store_batch(store: Store, wanted: BatchEnqueue, *, now: int = NOW) -> BatchEnqueued:
    """Store a batch in a round; raises what the round answers."""
    (answer,) = (await store.write(Round(now, batches=[wanted]))).batches
    if isinstance(answer, JobRunnerError):
        raise answer
    return answer


async def a_batch(
    store: Store,
    *members: Enqueue,
    edges: Iterable[Edge] = (),
    name: str | None = None,
    parent: str | None = None,
    now: int = NOW,
) -> Made:
    """Store a batch with its three callbacks."""
    wanted = request(*members, edges=edges, name=name, parent=parent, now=now)
    assert isinstance(wanted.batch, NewBatch)
    answer = await store_batch(store, wanted, now=now)
    then, otherwise, at_end = (job.id for job in wanted.callbacks)
    return Made(wanted.batch.id, members, then, otherwise, at_end, answer)


async def add(
    store: Store, id: str, *members: Enqueue, edges: Iterable[Edge] = ()
) -> BatchEnqueued:
    """Add members to a batch."""
    return await store_batch(store, BatchEnqueue(id, members, (), list(edges)))


def needs(job: Enqueue, *before: Enqueue, end: Literal["success", "end"] = "success") -> list[Edge]:
    """Return the edges of a job to others."""
    return [Edge(job.id, one.id, end) for one in before]


async def claim_all(store: Store, *, now: int = NOW, slots: int = 1_000) -> dict[str, Claimed]:
    """Claim what there is; return the attempts by the ids of their jobs."""
    jobs = await claim(store, tasks=TASKS, now=now, slots=slots)
    return {job.id: job for job in jobs}


async def batch_row(store: Store, id: str) -> BatchRow:
    """Return a batch, which must be there."""
    row = await store.workflows.get(id)
    assert row is not None
    return row


async def states_of(store: Store, ids: Iterable[str | Enqueue]) -> list[State]:
    """Return the states of jobs."""
    wanted = [id if isinstance(id, str) else id.id for id in ids]
    return [(await row_of(store, id)).state for id in wanted]


async def graph_of_three(store: Store) -> tuple[Made, Enqueue, Enqueue, Enqueue]:
    """Store a batch of a job, one that needs its success, and one that needs that of the second."""
    first, second, third = new(), new(), new()
    edges = [*needs(second, first), *needs(third, second)]
    return await a_batch(store, first, second, third, edges=edges), first, second, third
