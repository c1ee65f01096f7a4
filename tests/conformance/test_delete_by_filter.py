"""Dead letters deleted by a filter, slice by slice."""

from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from tests.conformance.test_dead_letters import bury
from tests.support.factories import HOUR, NOW, enqueue, make_dead, new, row_of


async def test_delete_all_goes_slice_by_slice_from_the_last_that_died(store: Store) -> None:
    letters = await bury(store, *[new() for _ in range(5)])
    slices, cursor = [], None
    while True:
        done = await store.dead_letters.delete_all(Filter(), before=cursor, limit=2)
        left = [one for one in letters if await store.jobs.get(one.id) is not None]
        slices.append((done.deleted, len(left)))
        cursor = done.cursor
        if cursor is None:
            break
    assert slices == [(2, 3), (2, 1), (1, 0)]
    for letter in letters:
        assert await store.jobs.attempts(letter.seq) == []


async def test_delete_all_deletes_what_the_filter_means_and_no_more(store: Store) -> None:
    wanted = await make_dead(store, new("work", queue="mail", tag="shop"), at=NOW + HOUR)
    others = [
        await make_dead(store, new("play", queue="mail", tag="shop"), at=NOW + HOUR),
        await make_dead(store, new("work", tag="shop"), at=NOW + HOUR),
        await make_dead(store, new("work", queue="mail"), at=NOW + HOUR),
        await make_dead(store, new("work", queue="mail", tag="shop"), at=NOW + HOUR - 1),
    ]
    waiting = new("work", queue="mail", tag="shop")
    await enqueue(store, waiting)
    where = Filter(task="work", queue="mail", reason="exhausted", tag="shop", since=NOW + HOUR)
    assert await store.dead_letters.delete_all(where, before=None, limit=100) == (1, None)
    assert await store.jobs.get(wanted.id) is None
    assert {(await row_of(store, one.id)).state for one in others} == {"dead"}
    assert len(await store.jobs.attempts(others[0].seq)) == 1
    assert (await row_of(store, waiting.id)).state == "queued"


async def test_delete_all_of_nothing_deletes_nothing(store: Store) -> None:
    assert await store.dead_letters.delete_all(Filter(), before=None, limit=2) == (0, None)


async def test_delete_all_leaves_a_letter_that_was_replayed_with_other_arguments(
    store: Store,
) -> None:
    # The new job points to it.
    letter = await make_dead(store)
    await store.dead_letters.replay_edited(letter.id, new(replay_of=letter.id))
    assert (await store.dead_letters.delete_all(Filter(), before=None, limit=9)).deleted == 0
    assert (await row_of(store, letter.id)).state == "dead"
