"""Inside a task's transaction nobody else writes: what would wait for its end is refused at once."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from jobrunner.core.errors import WouldDeadlock
from jobrunner.core.ids import new_id
from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from jobrunner.store.reentrancy import TransactionScope
from tests.support.factories import NOW, WORKER, enqueue, new


@contextmanager
def inside(store: object) -> Iterator[None]:
    """Be inside a task's transaction on the store."""
    scope = TransactionScope(store, object())
    scope.enter()
    try:
        yield
    finally:
        scope.leave()


async def _turn(store: Store) -> None:
    async with store.write_lock("a task"):
        pass


async def _blocking_write_lock(store: Store) -> None:
    with store.blocking_write_lock("a task"):
        pass


async def _refuse_wait(store: Store) -> None:
    store.refuse_wait("it")


WAIT: dict[str, Callable[[Store], Awaitable[object]]] = {
    "cancel": lambda store: store.jobs.cancel(new_id(NOW), now=NOW),
    "cancel by filter": lambda store: store.jobs.cancel_all(
        Filter(), before=None, now=NOW, limit=1
    ),
    "reschedule": lambda store: store.jobs.reschedule(new_id(NOW), run_at=NOW, now=NOW),
    "pause": lambda store: store.jobs.pause("mail", now=NOW),
    "resume": lambda store: store.jobs.resume("mail"),
    "replay": lambda store: store.dead_letters.replay(new_id(NOW), now=NOW),
    "delete": lambda store: store.dead_letters.delete(new_id(NOW)),
    "delete by filter": lambda store: store.dead_letters.delete_all(Filter(), before=None, limit=1),
    "leave": lambda store: store.workers.leave(WORKER, now=NOW),
    "turn": _turn,
    "turn of a thread": _blocking_write_lock,
    "anything else": _refuse_wait,
}


@pytest.mark.parametrize("what", WAIT)
async def test_what_would_wait_for_its_own_transaction_is_refused(store: Store, what: str) -> None:
    with inside(store), pytest.raises(WouldDeadlock):
        await WAIT[what](store)
    await store.jobs.pause("mail", now=NOW)
    store.refuse_wait("it")


async def test_reads_and_the_rounds_of_others_go_on_inside(store: Store) -> None:
    """A round is written on the committer's behalf, whatever context it was woken in."""
    with inside(store):
        (job,) = await enqueue(store, new())
        row = await store.jobs.get(job.id)
        assert row is not None
        (listed,) = (await store.jobs.list(Filter(), before=None, limit=10)).rows
        assert listed.id == row.id


async def test_transaction_on_another_store_refuses_nothing(store: Store) -> None:
    with inside(object()):
        store.refuse_wait("it")
        await store.jobs.pause("mail", now=NOW)
