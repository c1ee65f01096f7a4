"""Every end of a member counts for its batch, and batches are cancelled in slices."""

from collections.abc import Awaitable, Callable

import pytest

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
    settle,
    succeeded,
    worker_row,
)
from tests.support.workflows import TASKS, a_batch, batch_row, claim_all, needs, request, states_of

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
