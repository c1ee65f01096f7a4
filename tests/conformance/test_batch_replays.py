"""Replays open a batch again, and deleted dead letters leave it failed."""

import pytest

from jobrunner.core.errors import KeyTaken
from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
    HOUR,
    NOW,
    claim_of,
    dead,
    enqueue,
    new,
    quiet,
    row_of,
    settle,
    succeeded,
)
from tests.support.workflows import (
    a_batch,
    add,
    batch_row,
    claim_all,
    graph_of_three,
    needs,
    states_of,
)


async def test_replay_runs_the_batch_again_and_revives_what_the_death_cancelled(
    store: Store,
) -> None:
    made, first, second, third = await graph_of_three(store)
    await settle(store, dead((await claim_all(store))[first.id]))
    assert (await batch_row(store, made.id)).state == "failed"
    called = await claim_all(store)
    assert set(called) == {made.otherwise, made.at_end}
    await settle(store, *map(succeeded, called.values()))
    await store.dead_letters.replay(first.id, now=NOW)
    row = await batch_row(store, made.id)
    assert (row.state, row.ended_at, row.waiting) == ("running", None, 3)
    assert await states_of(store, [first, second, third]) == ["queued", "blocked", "blocked"]
    for job in (first, second, third):
        await settle(store, succeeded((await claim_all(store))[job.id]))
    assert (await batch_row(store, made.id)).state == "succeeded"
    # `otherwise` and `at_end` never start again.
    assert set(await claim_all(store)) == {made.then}


async def test_fault_16_job_behind_two_dead_ones_waits_for_both_replays(store: Store) -> None:
    left, right, sink = new(), new(), new()
    await a_batch(store, left, right, sink, edges=needs(sink, left, right))
    await settle(store, *map(dead, (await claim_all(store)).values()))
    await store.dead_letters.replay(left.id, now=NOW)
    assert await states_of(store, [sink]) == ["cancelled"]
    await settle(store, succeeded((await claim_all(store))[left.id]))
    assert await states_of(store, [sink]) == ["cancelled"]
    await store.dead_letters.replay(right.id, now=NOW)
    assert await states_of(store, [sink]) == ["blocked"]
    await settle(store, succeeded((await claim_all(store))[right.id]))
    assert await states_of(store, [sink]) == ["queued"]


@pytest.mark.parametrize("swept", [False, True])
async def test_fault_17_replayed_job_of_a_cancelled_batch_runs_alone(
    store: Store, swept: bool
) -> None:
    made, first, second, _ = await graph_of_three(store)
    late = new(run_at=NOW + HOUR)
    await add(store, made.id, late)
    await settle(store, dead((await claim_all(store))[first.id]))
    await store.workflows.cancel(made.id, now=NOW)
    if swept:
        await quiet(store)
    await store.dead_letters.replay(first.id, now=NOW)
    assert (await row_of(store, first.id)).batch is None
    await settle(store, succeeded((await claim_all(store))[first.id]))
    await quiet(store)
    assert await states_of(store, [first, second, late]) == ["succeeded", "cancelled", "cancelled"]
    assert (await batch_row(store, made.id)).state == "cancelled"


async def test_fault_15_replay_while_slices_still_cancel_what_waited(rig: Rig) -> None:
    store = rig.store
    root = new()
    leaves = [new() for _ in range(20)]
    edges = [edge for leaf in leaves for edge in needs(leaf, root)]
    with rig.slice(3):
        made = await a_batch(store, root, *leaves, edges=edges)
        assert (await settle(store, dead((await claim_all(store))[root.id]))).more_due
        assert (await batch_row(store, made.id)).state == "running"
        await store.dead_letters.replay(root.id, now=NOW)
        await quiet(store)
        assert await states_of(store, leaves) == ["blocked"] * 20
        await settle(store, succeeded((await claim_all(store))[root.id]))
        await quiet(store)
        assert await states_of(store, leaves) == ["queued"] * 20
    assert list(await store.workflows.check(limit=1)) == []


async def test_fault_15_batch_does_not_end_while_slices_still_revive_members(rig: Rig) -> None:
    store = rig.store
    root = new()
    leaves = [new() for _ in range(9)]
    edges = [edge for leaf in leaves for edge in needs(leaf, root)]
    with rig.slice(3):
        made = await a_batch(store, root, *leaves, edges=edges)
        await settle(store, dead((await claim_all(store))[root.id]))
        await quiet(store)
        assert await states_of(store, leaves) == ["cancelled"] * 9
        await store.dead_letters.replay(root.id, now=NOW)
        while True:
            # No round here promotes, so none goes on with the slices.
            written = await store.write(Round(NOW, claim=claim_of()))
            if not written.claimed:
                break
            await settle(store, *map(succeeded, written.claimed))
        assert "cancelled" in await states_of(store, leaves)
        assert (await batch_row(store, made.id)).state == "running"
        await quiet(store)
        await settle(
            store, *map(succeeded, (await store.write(Round(NOW, claim=claim_of()))).claimed)
        )
    assert (await batch_row(store, made.id)).state == "succeeded"


async def test_fault_13_slice_of_one_lets_every_job_go(rig: Rig) -> None:
    store = rig.store
    with rig.slice(1):
        made, first, second, third = await graph_of_three(store)
        for job in (first, second, third):
            await settle(store, succeeded((await claim_all(store))[job.id]))
            await quiet(store)
        assert (await batch_row(store, made.id)).state == "succeeded"


async def test_replay_with_edits_takes_the_place_of_the_dead_job(rig: Rig) -> None:
    store = rig.store
    root = new()
    leaves = [new()._replace(handed='{"x":"' + root.id + '"}') for _ in range(7)]
    edges = [edge for leaf in leaves for edge in needs(leaf, root)]
    with rig.slice(3):
        made = await a_batch(store, root, *leaves, edges=edges)
        await settle(store, dead((await claim_all(store))[root.id]))
        await quiet(store)
        edited = new(replay_of=root.id)
        answer = await store.dead_letters.replay_edited(root.id, edited)
        assert answer.created
        await quiet(store)
        assert (await row_of(store, edited.id)).batch == made.id
        assert await states_of(store, leaves) == ["blocked"] * 7
        await settle(store, succeeded((await claim_all(store))[edited.id], "7"))
        await quiet(store)
    running = await claim_all(store)
    assert {job.handed for job in running.values()} == {'{"x":"' + edited.id + '"}'}
    await settle(store, *map(succeeded, running.values()))
    row = await batch_row(store, made.id)
    assert (row.state, row.total, row.succeeded, row.dead) == ("succeeded", 8, 8, 0)


async def test_key_taken_since_the_death_keeps_a_job_cancelled(store: Store) -> None:
    root, keyed, other = new(), new(key="k"), new()
    edges = [*needs(keyed, root), *needs(other, root)]
    made = await a_batch(store, root, keyed, other, edges=edges)
    await settle(store, dead((await claim_all(store))[root.id]))
    (holder,) = await enqueue(store, new(key="k", run_at=NOW + DAY))
    assert holder.created
    await store.dead_letters.replay(root.id, now=NOW)
    assert await states_of(store, [keyed, other]) == ["cancelled", "blocked"]
    await settle(store, succeeded((await claim_all(store))[root.id]))
    await settle(store, succeeded((await claim_all(store))[other.id]))
    assert (await batch_row(store, made.id)).state == "failed"
    assert await states_of(store, [made.then]) == ["cancelled"]


async def test_replay_whose_key_is_taken_changes_nothing_of_the_batch(store: Store) -> None:
    job = new(key="k")
    made = await a_batch(store, job)
    await settle(store, dead((await claim_all(store))[job.id]))
    await enqueue(store, new(key="k", run_at=NOW + DAY))
    before = await batch_row(store, made.id)
    with pytest.raises(KeyTaken):
        await store.dead_letters.replay(job.id, now=NOW)
    assert await batch_row(store, made.id) == before


async def test_replay_by_filter_retries_the_dead_members_of_a_batch(store: Store) -> None:
    jobs = [new() for _ in range(3)]
    made = await a_batch(store, *jobs)
    other = new()
    await enqueue(store, other)
    await settle(store, *map(dead, (await claim_all(store)).values()))
    done = await store.dead_letters.replay_all(Filter(batch=made.id), before=None, now=NOW, limit=9)
    assert done.replayed == 3
    assert await states_of(store, [*jobs, other]) == ["queued"] * 3 + ["dead"]


@pytest.mark.parametrize("by_filter", [False, True])
async def test_deleted_dead_letter_leaves_the_batch_failed_for_ever(
    store: Store, by_filter: bool
) -> None:
    good, bad = new(), new()
    made = await a_batch(store, good, bad)
    await settle(store, *map(dead, (await claim_all(store)).values()))
    assert await states_of(store, [made.then]) == ["blocked"]
    if by_filter:
        await store.dead_letters.delete_all(Filter(batch=made.id), before=None, limit=1)
    else:
        await store.dead_letters.delete(bad.id)
    assert await states_of(store, [made.then]) == ["cancelled"]
    left = (await store.dead_letters.list(Filter(), before=None, limit=9)).rows
    await store.dead_letters.replay(left[0].id, now=NOW)
    await settle(store, succeeded((await claim_all(store))[left[0].id]))
    row = await batch_row(store, made.id)
    assert (row.state, row.total, row.succeeded, row.dead) == ("failed", 2, 1, 1)
