"""Batches are deleted as a whole, once they have ended and are old enough."""

from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import DAY, NOW, claim_of, dead, new, settle, succeeded
from tests.support.workflows import a_batch, claim_all, needs, states_of


async def prune(store: Store, *, finished: int = NOW + DAY, limit: int = 100) -> int:
    """Delete what finished before a time; of dead letters what died before it."""
    return await store.jobs.prune(
        finished_before=finished,
        by_task={},
        died_before=finished,
        keep_finished=1_000,
        limit=limit,
    )


async def finish_callbacks(store: Store) -> None:
    await settle(store, *map(succeeded, (await claim_all(store)).values()))


async def test_fault_31_prune_takes_no_member_before_its_batch_has_ended(store: Store) -> None:
    first, second = new(), new()
    made = await a_batch(store, first, second, edges=needs(second, first))
    await settle(store, succeeded((await claim_all(store))[first.id]))
    assert await prune(store) == 0
    await settle(store, succeeded((await claim_all(store))[second.id]))
    assert await prune(store) == 1, (
        "only `otherwise`, which was cancelled: a callback is unfinished"
    )
    await finish_callbacks(store)
    assert await prune(store, finished=NOW) == 0, "it has ended only now"
    assert await prune(store) == 4
    assert await store.workflows.get(made.id) is None
    for id in (first.id, second.id, *made.callbacks):
        assert await store.jobs.get(id) is None
    assert list(await store.workflows.check(limit=1)) == []


async def test_fault_31_prune_leaves_a_batch_with_a_dead_callback(store: Store) -> None:
    made = await a_batch(store, job := new())
    await settle(store, succeeded((await claim_all(store))[job.id]))
    called = await claim_all(store)
    await settle(store, dead(called[made.then], at=NOW + DAY), succeeded(called[made.at_end]))
    await prune(store)
    assert await states_of(store, [job]) == ["succeeded"]
    await store.dead_letters.delete(made.then)
    await prune(store)
    assert await store.workflows.get(made.id) is None


async def test_callback_that_is_replayed_with_edits_still_belongs_to_its_batch(
    store: Store,
) -> None:
    made = await a_batch(store, job := new())
    await settle(store, dead((await claim_all(store))[job.id]))
    called = await claim_all(store)
    await settle(store, dead(called[made.otherwise]), succeeded(called[made.at_end]))
    edited = new(replay_of=made.otherwise)
    await store.dead_letters.replay_edited(made.otherwise, edited)
    row = await store.workflows.of_job(edited.id)
    assert row is not None
    assert row.id == made.id
    await prune(store)
    assert await store.workflows.get(made.id) is not None
    await settle(store, succeeded((await claim_all(store))[edited.id]))
    await prune(store)
    assert await store.workflows.get(made.id) is None


async def test_prune_deletes_a_failed_batch_with_its_dead_letters_and_what_waits_for_a_replay(
    store: Store,
) -> None:
    good, bad = new(), new()
    made = await a_batch(store, good, bad)
    running = await claim_all(store)
    await settle(store, succeeded(running[good.id]), dead(running[bad.id], at=NOW))
    await finish_callbacks(store)
    assert (
        await store.jobs.prune(
            finished_before=NOW + DAY, by_task={}, died_before=NOW, keep_finished=99, limit=99
        )
        == 2
    ), "the dead letter is too young, the callbacks are no members"
    assert await states_of(store, [good, bad, made.then]) == ["succeeded", "dead", "blocked"]
    await prune(store)
    for id in (good.id, bad.id, made.then):
        assert await store.jobs.get(id) is None
    assert await store.workflows.get(made.id) is None


async def test_prune_deletes_a_large_batch_in_slices_and_its_row_last(store: Store) -> None:
    made = await a_batch(store, *(new() for _ in range(7)))
    await settle(store, *map(succeeded, (await claim_all(store)).values()))
    await finish_callbacks(store)
    await prune(store, limit=3)
    sizes = []
    while await store.workflows.get(made.id) is not None:
        sizes.append(await prune(store, limit=3))
    assert sizes == [3, 3, 1]


async def test_prune_keeps_a_batch_as_long_as_the_longest_retention_of_its_tasks(
    store: Store,
) -> None:
    made = await a_batch(store, new("work"), new("play"))
    running = (await store.write(Round(NOW, claim=claim_of(tasks=["work", "play"])))).claimed
    await settle(store, *map(succeeded, running))
    await finish_callbacks(store)
    for kept, gone in (({"play": NOW}, False), ({"play": NOW + DAY}, True)):
        await store.jobs.prune(
            finished_before=NOW + DAY, by_task=kept, died_before=NOW, keep_finished=99, limit=99
        )
        assert (await store.workflows.get(made.id) is None) is gone
