"""Batches are cancelled in slices, opened again by replays, and deleted as a whole; every end of a job counts."""

from collections.abc import Awaitable, Callable

import pytest

from jobrunner.core.errors import KeyTaken
from jobrunner.core.model import Edge, Ended, Enqueue, Filter, NewBatch, Parked
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
    HOUR,
    NOW,
    SECOND,
    WORKER,
    cancelled,
    claim_of,
    dead,
    enqueue,
    new,
    quiet,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)
from tests.support.workflows import (
    TASKS,
    Made,
    a_batch,
    add,
    batch_row,
    claim_all,
    needs,
    request,
    states_of,
)


async def graph_of_three(store: Store) -> tuple[Made, Enqueue, Enqueue, Enqueue]:
    """Store a batch of a job, one that needs its success, and one that needs that of the second."""
    first, second, third = new(), new(), new()
    edges = [*needs(second, first), *needs(third, second)]
    return await a_batch(store, first, second, third, edges=edges), first, second, third


# -- other ends ------------------------------------------------------------------------------------


async def test_fault_9_expiry_of_the_last_member_ends_the_batch(store: Store) -> None:
    made = await a_batch(store, new(expires_at=NOW + SECOND))
    written = await store.write(Round(NOW + HOUR, promote_due=True, claim=claim_of(tasks=TASKS)))
    assert list(written.ended) == [made.id]
    assert {job.id for job in written.claimed} == {made.otherwise, made.at_end}
    assert await states_of(store, [made.then]) == ["cancelled"]


@pytest.mark.parametrize("by_filter", [False, True])
async def test_fault_9_cancel_of_the_last_member_ends_the_batch(
    store: Store, by_filter: bool
) -> None:
    job = new(tag="t")
    made = await a_batch(store, job)
    if by_filter:
        await store.jobs.cancel_all(Filter(tag="t"), before=None, now=NOW, limit=9)
    else:
        await store.jobs.cancel(job.id, now=NOW)
    assert (await batch_row(store, made.id)).state == "failed"
    assert await states_of(store, made.callbacks) == ["cancelled", "queued", "queued"]


async def test_fault_10_member_buried_as_lost_ends_the_batch(rig: Rig) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    made = await a_batch(store, new(max_attempts=1))
    await claim_all(store)
    rig.kill_worker(WORKER)
    await store.workers.recover(now=NOW + SECOND, thorough=False)
    row = await batch_row(store, made.id)
    assert (row.state, row.dead) == ("failed", 1)
    assert await states_of(store, made.callbacks) == ["blocked", "queued", "queued"]


async def test_fault_11_member_of_an_unknown_task_that_is_buried_ends_the_batch(
    store: Store,
) -> None:
    made = await a_batch(store, new("unknown"))
    await store.dead_letters.bury_waiting(
        "default",
        "unknown",
        due_before=NOW + DAY,
        reason="unknown_task",
        error="nobody knows it",
        now=NOW + DAY,
        limit=9,
    )
    assert (await batch_row(store, made.id)).state == "failed"


async def lost(rig: Rig) -> None:
    rig.kill_worker(WORKER)
    await rig.store.workers.recover(now=NOW + SECOND, thorough=False)


async def left(rig: Rig) -> None:
    await rig.store.workers.leave(WORKER, now=NOW + SECOND)


@pytest.mark.parametrize("go", [lost, left])
async def test_running_member_that_was_asked_to_stop_and_whose_worker_goes_ends_the_batch(
    rig: Rig, go: Callable[[Rig], Awaitable[None]]
) -> None:
    store = rig.store
    await store.workers.join(worker_row(), lambda: None)
    job = new()
    made = await a_batch(store, job)
    await claim_all(store)
    await store.jobs.cancel(job.id, now=NOW)
    await go(rig)
    assert (await batch_row(store, made.id)).state == "failed"


# -- cancel ----------------------------------------------------------------------------------------


async def test_cancel_of_a_batch_is_a_request_that_rounds_carry_out_in_slices(rig: Rig) -> None:
    store = rig.store
    members = [new() for _ in range(12)]
    made = await a_batch(store, *members)
    with rig.slice(5):
        before = await store.workflows.cancel(made.id, now=NOW + 1)
        assert before is not None
        assert (before.state, before.cancelled_at) == ("running", None)
        row = await batch_row(store, made.id)
        assert (row.state, row.cancelled_at, row.waiting) == ("running", NOW + 1, 12)
        written = await store.write(Round(NOW + 2, promote_due=True))
        assert written.more_due
        assert (await batch_row(store, made.id)).cancelled == 5
        await quiet(store)
    row = await batch_row(store, made.id)
    assert (row.state, row.cancelled, row.waiting) == ("cancelled", 12, 0)
    assert await states_of(store, made.callbacks) == ["cancelled", "queued", "queued"]


async def test_fault_14_any_round_goes_on_with_a_cancel_that_another_process_began(
    rig: Rig,
) -> None:
    made = await a_batch(rig.store, *(new() for _ in range(9)))
    with rig.slice(2):
        await rig.store.workflows.cancel(made.id, now=NOW)
        assert (await rig.store.write(Round(NOW, promote_due=True))).next_due == 0
        await rig.close()
        await rig.open()
        await quiet(rig.store)
    assert (await batch_row(rig.store, made.id)).state == "cancelled"


async def test_fault_35_running_member_of_a_cancelled_batch_is_asked_to_stop(store: Store) -> None:
    stops, succeeds, fails, adds = (new() for _ in range(4))
    made = await a_batch(store, stops, succeeds, fails, adds, new(run_at=NOW + HOUR))
    running = await claim_all(store)
    await store.workflows.cancel(made.id, now=NOW)
    asked = await store.jobs.cancel_requests(WORKER)
    assert {seq for seq, _ in asked} == {job.seq for job in running.values()}
    late = new()._replace(batch=running[adds.id].batch)
    written = await settle(
        store,
        cancelled(running[stops.id]),
        succeeded(running[succeeds.id]),
        retry(running[fails.id], NOW + HOUR),
        succeeded(running[adds.id])._replace(enqueues=[late]),
    )
    assert written.cancelled == {running[fails.id].seq}
    assert written.more_due
    await quiet(store)
    assert await states_of(store, [stops, succeeds, fails, adds, late]) == [
        "cancelled",
        "succeeded",
        "cancelled",
        "succeeded",
        "cancelled",
    ]
    assert (await batch_row(store, made.id)).state == "cancelled"


async def test_cancel_of_a_batch_that_has_ended_changes_nothing(store: Store) -> None:
    made = await a_batch(store)
    row = await batch_row(store, made.id)
    assert await store.workflows.cancel(made.id, now=NOW) == row
    assert await batch_row(store, made.id) == row
    assert await store.workflows.cancel(new().id, now=NOW) is None


async def test_fault_18_cancel_of_one_member_is_not_undone_by_a_replay(store: Store) -> None:
    root, child = new(), new()
    made = await a_batch(store, root, child, edges=needs(child, root))
    running = await claim_all(store)
    await store.jobs.cancel(child.id, now=NOW)
    await settle(store, dead(running[root.id]))
    await store.dead_letters.replay(root.id, now=NOW)
    await settle(store, succeeded((await claim_all(store))[root.id]))
    assert await states_of(store, [root, child]) == ["succeeded", "cancelled"]
    assert (await batch_row(store, made.id)).state == "failed"
    assert await states_of(store, [made.then]) == ["cancelled"]


async def parked_parent(store: Store, *children: Enqueue) -> tuple[Enqueue, str]:
    """Store a job that has parked until a batch that it has made ends; return it and the batch."""
    parent = new("parent")
    await enqueue(store, parent)
    (claimed,) = (await store.write(Round(NOW, claim=claim_of(tasks=["parent"])))).claimed
    wanted = request(*children, callbacks=(), parent=parent.id)
    assert isinstance(wanted.batch, NewBatch)
    wait = Edge(parent.id, wanted.batch.id, "end")
    await settle(store, Parked(claimed, Ended("released", NOW), None, [wait], (), wanted))
    return parent, wanted.batch.id


async def test_fault_25_cancel_of_a_parked_parent_cancels_the_batch_that_it_waits_for(
    store: Store,
) -> None:
    child = new()
    parent, id = await parked_parent(store, child)
    assert await states_of(store, [parent, child]) == ["blocked", "queued"]
    await store.jobs.cancel(parent.id, now=NOW)
    await quiet(store)
    assert await states_of(store, [parent, child]) == ["cancelled", "cancelled"]
    assert (await batch_row(store, id)).state == "cancelled"


async def test_cancel_of_a_batch_reaches_the_batches_that_its_members_wait_for(
    store: Store,
) -> None:
    member, child = new(), new()
    made = await a_batch(store, member)
    running = (await claim_all(store))[member.id]
    wanted = request(child, callbacks=(), parent=member.id)
    assert isinstance(wanted.batch, NewBatch)
    wait = Edge(member.id, wanted.batch.id, "end")
    await settle(store, Parked(running, Ended("released", NOW), None, [wait], (), wanted))
    await store.workflows.cancel(made.id, now=NOW)
    await quiet(store)
    assert await states_of(store, [member, child]) == ["cancelled", "cancelled"]
    assert (await batch_row(store, wanted.batch.id)).state == "cancelled"


async def test_fault_8_parent_of_an_empty_batch_goes_on_at_once(store: Store) -> None:
    parent, id = await parked_parent(store)
    assert await states_of(store, [parent]) == ["queued"]
    assert (await batch_row(store, id)).state == "succeeded"
    assert await store.workflows.of_job(parent.id) is None


# -- replay ----------------------------------------------------------------------------------------


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


# -- retention -------------------------------------------------------------------------------------


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


# -- reads -----------------------------------------------------------------------------------------


async def test_of_job_finds_the_batch_of_members_dead_ones_and_callbacks(store: Store) -> None:
    made = await a_batch(store, good := new(), bad := new())
    running = await claim_all(store)
    await settle(store, succeeded(running[good.id]), dead(running[bad.id]))
    for id in (good.id, bad.id, *made.callbacks):
        row = await store.workflows.of_job(id)
        assert row is not None
        assert row.id == made.id
    (alone,) = await enqueue(store, new())
    assert await store.workflows.of_job(alone.id) is None


async def test_list_has_the_newest_batches_first_by_state_and_name(store: Store) -> None:
    running = [(await a_batch(store, new(), name="pages")).id for _ in range(3)]
    ended = (await a_batch(store, name="pages")).id
    other = (await a_batch(store, new())).id
    listed = store.workflows.list

    async def ids(**where: object) -> list[str]:
        page = await listed(**{"state": None, "name": None, "before": None, "limit": 9} | where)  # type: ignore[arg-type]
        assert page.complete
        return [row.id for row in page.rows]

    assert await ids() == [other, ended, *reversed(running)]
    assert await ids(name="pages") == [ended, *reversed(running)]
    assert await ids(state="succeeded") == [ended]
    assert await ids(name="pages", state="running") == list(reversed(running))
    page = await listed(state=None, name="pages", before=None, limit=2)
    rest = await listed(state=None, name="pages", before=page.next, limit=9)
    assert [row.id for row in (*page.rows, *rest.rows)] == [ended, *reversed(running)]
    assert rest.next is None


async def test_graph_has_members_callbacks_and_edges(store: Store) -> None:
    made, first, second, third = await graph_of_three(store)
    await settle(store, dead((await claim_all(store))[first.id]))
    graph = await store.workflows.graph(made.id, limit=9)
    assert graph is not None
    assert [row.id for row in graph.members] == [first.id, second.id, third.id]
    assert [row.state for row in graph.members] == ["dead", "cancelled", "cancelled"]
    assert [row.id for row in graph.callbacks] == list(made.callbacks)
    states = {(edge.job, edge.needs): edge.state for edge in graph.edges}
    assert states == {
        (second.id, first.id): "broken",
        (third.id, second.id): "broken",
        (made.then, made.id): "open",
        (made.otherwise, made.id): "met",
        (made.at_end, made.id): "met",
    }
    assert graph.complete
    few = await store.workflows.graph(made.id, limit=0)
    assert few is not None
    assert (few.complete, few.members, len(few.callbacks)) == (False, [], 3)
    assert await store.workflows.graph(new().id, limit=9) is None


async def test_results_have_the_state_and_value_of_each_job(store: Store) -> None:
    good, bad = new(), new()
    await a_batch(store, good, bad)
    running = await claim_all(store)
    await settle(store, succeeded(running[good.id], '"done"'), dead(running[bad.id]))
    found = await store.workflows.results([good.id, bad.id, new().id])
    assert set(found) == {good.id, bad.id}
    assert (found[good.id].state, found[good.id].result) == ("succeeded", '"done"')
    assert (found[bad.id].state, found[bad.id].result) == ("dead", None)


async def test_member_results_come_in_pages_of_those_that_succeeded(store: Store) -> None:
    jobs = [new() for _ in range(5)]
    made = await a_batch(store, *jobs, new("play"))
    running = await claim_all(store)
    ends = [succeeded(running[job.id], str(n)) for n, job in enumerate(jobs[:4])]
    await settle(store, *ends, dead(running[jobs[4].id]))
    results = store.workflows.member_results
    page = await results(made.id, tasks=None, after=0, limit=3)
    assert [row.result for row in page.rows] == ["0", "1", "2"]
    assert page.next is not None
    rest = await results(made.id, tasks=["work"], after=page.next, limit=3)
    assert ([row.result for row in rest.rows], rest.next) == (["3"], None)
    assert (await results(made.id, tasks=["play"], after=0, limit=3)).rows == []
    assert (await results(new().id, tasks=None, after=0, limit=3)).rows == []


async def test_fault_32_large_result_is_never_copied_to_those_that_take_it(store: Store) -> None:
    root = new()
    takers = [new()._replace(handed='{"x":"' + root.id + '"}') for _ in range(50)]
    edges = [edge for job in takers for edge in needs(job, root)]
    await a_batch(store, root, *takers, edges=edges)
    large = '"' + "x" * 1_000_000 + '"'
    await settle(store, succeeded((await claim_all(store))[root.id], large))
    running = await claim_all(store)
    assert len(running) == 50
    assert sum(len(job.args) + len(job.handed or "") for job in running.values()) < 10_000


async def test_members_are_listed_counted_and_cancelled_by_their_batch(store: Store) -> None:
    made = await a_batch(store, first := new(), second := new())
    await a_batch(store, new())
    where = Filter(batch=made.id)
    page = await store.jobs.list(where, before=None, limit=9)
    assert [row.id for row in page.rows] == [second.id, first.id]
    assert {row.batch for row in page.rows} == {made.id}
    assert (await store.jobs.count(where, cap=9)).number == 2
    assert (await store.jobs.plan_cancel_all(where)).cancelled == 2
    done = await store.jobs.cancel_all(where, before=None, now=NOW, limit=9)
    assert set(done.cancelled) == {first.id, second.id}
