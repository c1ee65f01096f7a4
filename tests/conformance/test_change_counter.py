"""The number by which a page knows that nothing has changed since it was made."""

from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from tests.conformance.conftest import StartPeer
from tests.support.factories import NOW, enqueue, new


async def test_counter_stands_still_while_nobody_writes(store: Store) -> None:
    await enqueue(store, new())
    # On a server that other tests share, their commits count too: there, a moment without any is enough.
    for _ in range(100):
        before = await store.change_counter()
        await store.jobs.list(Filter(), before=None, limit=5)
        await store.jobs.queues()
        if await store.change_counter() == before:
            return
    raise AssertionError("the counter changes though nobody writes")


async def test_counter_differs_after_every_commit(store: Store) -> None:
    seen = {await store.change_counter()}
    for _ in range(5):
        await enqueue(store, new())
        seen.add(await store.change_counter())
    await store.jobs.pause("mail", now=NOW)
    seen.add(await store.change_counter())

    assert len(seen) == 7


async def test_counter_differs_after_a_commit_of_another_process(
    store: Store, peer: StartPeer
) -> None:
    other = peer().opened()
    before = await store.change_counter()
    other.call("jobs.pause", "mail", now=NOW)

    assert await store.change_counter() != before
