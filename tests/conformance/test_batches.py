"""Batches: they end with their last member, and their callbacks start in the commit that ends them."""

from collections.abc import Callable

import pytest

from jobrunner.core.errors import BatchEnded, InvalidBatch, KeyTaken, QueueFull
from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import BatchEnqueue, Claimed, Outcome
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    cancelled,
    claim_of,
    dead,
    enqueue,
    new,
    released,
    retry,
    row_of,
    settle,
    snoozed,
    succeeded,
)
from tests.support.workflows import (
    TASKS,
    a_batch,
    add,
    batch_row,
    claim_all,
    needs,
    request,
    states_of,
    store_batch,
)

# -- enqueue ---------------------------------------------------------------------------------------


async def test_batch_is_stored_with_its_members_and_callbacks(store: Store) -> None:
    one, later = new(), new(run_at=NOW + HOUR)
    made = await a_batch(store, one, later, name="pages")
    assert [(job.id, job.created, job.state) for job in made.answer.members] == [
        (one.id, True, "queued"),
        (later.id, True, "scheduled"),
    ]
    assert [job.state for job in made.answer.callbacks] == ["blocked"] * 3
    row = await batch_row(store, made.id)
    assert (row.name, row.state, row.created_at, row.parent) == ("pages", "running", NOW, None)
    assert (row.ended_at, row.cancelled_at) == (None, None)
    assert (row.total, row.waiting, row.running) == (2, 2, 0)
    assert [(await row_of(store, id)).batch for id in (one.id, later.id)] == [made.id] * 2
    assert [(await row_of(store, id)).batch for id in made.callbacks] == [None] * 3


async def test_fault_8_batch_without_members_succeeds_at_once_and_starts_its_callbacks(
    store: Store,
) -> None:
    written = await store.write(Round(NOW, batches=[request()], claim=claim_of(tasks=TASKS)))
    assert sorted(job.task for job in written.claimed) == ["at_end", "then"]
    assert len(written.ended) == 1
    row = await batch_row(store, written.ended[0])
    assert (row.state, row.ended_at, row.total) == ("succeeded", NOW, 0)


async def test_members_keep_the_options_of_jobs(store: Store) -> None:
    job = new(priority=5, key="k", tag="t", max_attempts=3, expires_at=NOW + DAY, lane="work[1]")
    handed = job._replace(handed='{"x":"' + job.id + '"}', id=new().id, key=None)
    made = await a_batch(store, job, handed, edges=needs(handed, job))
    row = await row_of(store, job.id)
    assert (row.priority, row.key, row.tag, row.max_attempts) == (5, "k", "t", 3)
    assert (row.expires_at, row.lane, row.batch) == (NOW + DAY, "work[1]", made.id)
    assert (await row_of(store, handed.id)).handed == handed.handed
    claimed = await claim_all(store)
    assert claimed[job.id].batch is not None
    await settle(store, succeeded(claimed[job.id], "7"))
    (second,) = (await claim_all(store)).values()
    assert (second.id, second.handed) == (handed.id, handed.handed)


async def test_batch_with_an_error_stores_nothing_and_leaves_the_others_of_the_round(
    store: Store,
) -> None:
    good, bad = request(new()), request(new(args="\ud800"))
    also, alone = request(new()), new()
    written = await store.write(Round(NOW, enqueues=[alone], batches=[good, bad, also]))
    assert [isinstance(answer, Exception) for answer in written.batches] == [False, True, False]
    assert await states_of(store, [alone, *good.members, *also.members]) == ["queued"] * 3
    for job in (*bad.members, *bad.callbacks):
        assert await store.jobs.get(job.id) is None


async def test_member_whose_key_is_taken_is_not_stored(store: Store) -> None:
    (held,) = await enqueue(store, new(key="k"))
    made = await a_batch(store, new(key="k"), new())
    assert [(job.id == held.id, job.created) for job in made.answer.members] == [
        (True, False),
        (False, True),
    ]
    assert (await batch_row(store, made.id)).total == 1


async def test_key_of_a_job_that_others_wait_for_refuses_the_whole_batch(store: Store) -> None:
    await enqueue(store, new(key="k"))
    first, second = new(key="k"), new()
    wanted = request(first, second, edges=needs(second, first))
    with pytest.raises(KeyTaken, match="'k'"):
        await store_batch(store, wanted)
    assert await store.jobs.get(second.id) is None
    assert await store.jobs.get(wanted.callbacks[0].id) is None


async def test_key_of_a_callback_refuses_the_whole_batch(store: Store) -> None:
    await enqueue(store, new("then", key="k"))
    wanted = request(new())
    then = wanted.callbacks[0]._replace(key="k")
    with pytest.raises(KeyTaken, match="then"):
        await store_batch(store, wanted._replace(callbacks=[then, *wanted.callbacks[1:]]))
    assert await store.jobs.get(wanted.members[0].id) is None


async def test_batch_that_would_overfill_a_queue_stores_nothing(store: Store) -> None:
    await store.limits.set(LimitName("queue", "default"), Limit(max_waiting=2), now=NOW)
    first, second = new(), new()
    await a_batch(store, first, second, edges=needs(second, first))
    third, fourth = new(), new()
    with pytest.raises(QueueFull):
        await a_batch(store, third, fourth)
    assert await store.jobs.get(third.id) is None
    await a_batch(store, third)


async def test_members_of_the_same_round_are_claimed(store: Store) -> None:
    job = new()
    written = await store.write(Round(NOW, batches=[request(job)], claim=claim_of()))
    assert [one.id for one in written.claimed] == [job.id]


# -- the end ---------------------------------------------------------------------------------------


async def test_fault_5_last_members_in_two_rounds_call_back_in_the_second(store: Store) -> None:
    one, two = new(), new()
    made = await a_batch(store, one, two)
    running = await claim_all(store)
    written = await settle(store, succeeded(running[one.id]))
    assert (written.ended, await states_of(store, made.callbacks)) == ((), ["blocked"] * 3)
    written = await store.write(
        Round(NOW + 1, outcomes=[succeeded(running[two.id])], claim=claim_of(tasks=TASKS))
    )
    assert {job.id for job in written.claimed} == {made.then, made.at_end}
    assert list(written.ended) == [made.id]
    row = await batch_row(store, made.id)
    assert (row.state, row.ended_at, row.succeeded) == ("succeeded", NOW + 1, 2)
    assert (await row_of(store, made.otherwise)).state == "cancelled"


async def test_fault_4_two_last_members_in_one_round_end_the_batch_once(store: Store) -> None:
    members = [new() for _ in range(2)]
    made = await a_batch(store, *members)
    running = await claim_all(store)
    written = await settle(store, *map(succeeded, running.values()))
    assert list(written.ended) == [made.id]
    assert set(await claim_all(store)) == {made.then, made.at_end}


@pytest.mark.parametrize("outcome", [retry, snoozed, released])
async def test_batch_waits_while_a_member_runs_again(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    job = new()
    made = await a_batch(store, job)
    await settle(store, outcome((await claim_all(store))[job.id]))
    assert (await batch_row(store, made.id)).state == "running"
    await settle(store, succeeded((await claim_all(store, now=NOW + MINUTE))[job.id]))
    assert (await batch_row(store, made.id)).state == "succeeded"


@pytest.mark.parametrize("outcome", [dead, cancelled])
async def test_fault_9_death_or_cancel_of_a_member_makes_the_batch_fail(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    good, bad = new(), new()
    made = await a_batch(store, good, bad)
    running = await claim_all(store)
    await settle(store, outcome(running[bad.id]))
    assert (await batch_row(store, made.id)).state == "running"
    await settle(store, succeeded(running[good.id]))
    row = await batch_row(store, made.id)
    assert (row.state, row.total, row.succeeded) == ("failed", 2, 1)
    assert (row.dead, row.cancelled) == ((1, 0) if outcome is dead else (0, 1))
    assert set(await claim_all(store)) == {made.otherwise, made.at_end}
    # A dead letter can be replayed; a job that was cancelled stays so.
    assert await states_of(store, [made.then]) == ["blocked" if outcome is dead else "cancelled"]


async def test_stale_outcome_ends_no_batch(store: Store) -> None:
    job = new()
    made = await a_batch(store, job)
    first = (await claim_all(store))[job.id]
    await settle(store, released(first))
    await claim_all(store)
    assert (await settle(store, succeeded(first))).stale
    assert (await batch_row(store, made.id)).state == "running"


# -- edges -----------------------------------------------------------------------------------------


async def test_job_with_edges_starts_once_all_it_needs_have_succeeded(store: Store) -> None:
    left, right, sink = new(), new(), new()
    made = await a_batch(store, left, right, sink, edges=needs(sink, left, right))
    running = await claim_all(store)
    assert set(running) == {left.id, right.id}
    await settle(store, succeeded(running[left.id]))
    assert not await claim_all(store)
    written = await store.write(
        Round(NOW, outcomes=[succeeded(running[right.id])], claim=claim_of())
    )
    assert [job.id for job in written.claimed] == [sink.id]
    await settle(store, succeeded(written.claimed[0]))
    assert (await batch_row(store, made.id)).state == "succeeded"


async def test_death_cancels_all_that_need_its_success_and_lets_the_rest_go_on(
    store: Store,
) -> None:
    root, other, child, grandchild, also = new(), new(), new(), new(), new()
    edges = [*needs(child, root), *needs(grandchild, child), *needs(also, other)]
    made = await a_batch(store, root, other, child, grandchild, also, edges=edges)
    running = await claim_all(store)
    await settle(store, dead(running[root.id]))
    assert await states_of(store, [child, grandchild, also]) == [
        "cancelled",
        "cancelled",
        "blocked",
    ]
    await settle(store, succeeded(running[other.id]))
    await settle(store, succeeded((await claim_all(store))[also.id]))
    row = await batch_row(store, made.id)
    assert (row.state, row.succeeded, row.dead, row.cancelled) == ("failed", 2, 1, 2)


@pytest.mark.parametrize("outcome", [succeeded, dead, cancelled])
async def test_job_that_needs_an_end_starts_after_any(
    store: Store, outcome: Callable[[Claimed], Outcome]
) -> None:
    first, second = new(), new()
    await a_batch(store, first, second, edges=needs(second, first, end="end"))
    await settle(store, outcome((await claim_all(store))[first.id]))
    assert second.id in await claim_all(store)


async def test_job_with_a_time_of_its_own_is_scheduled_until_then(store: Store) -> None:
    first, second = new(), new(run_at=NOW + HOUR, expires_at=NOW + DAY)
    await a_batch(store, first, second, edges=needs(second, first))
    written = await settle(store, succeeded((await claim_all(store))[first.id]), now=NOW + MINUTE)
    assert (written.next_due, written.left_queued) == (NOW + HOUR, False)
    assert await states_of(store, [second]) == ["scheduled"]


async def test_released_job_of_a_lane_is_claimed(store: Store) -> None:
    first, second = new(), new(lane="work[1]")
    await a_batch(store, first, second, edges=needs(second, first))
    await settle(store, succeeded((await claim_all(store))[first.id]))
    assert set(await claim_all(store)) == {second.id}


# -- late members ----------------------------------------------------------------------------------


async def test_fault_7_members_added_before_the_last_end_keep_the_batch_running(
    store: Store,
) -> None:
    first, late = new(), new()
    made = await a_batch(store, first)
    await add(store, made.id, late)
    running = await claim_all(store)
    await settle(store, succeeded(running[first.id]))
    assert (await batch_row(store, made.id)).state == "running"
    await settle(store, succeeded(running[late.id]))
    row = await batch_row(store, made.id)
    assert (row.state, row.total) == ("succeeded", 2)


async def test_fault_7_batch_that_has_ended_or_was_cancelled_takes_no_members(store: Store) -> None:
    ended = await a_batch(store)
    cancelled = await a_batch(store, new())
    await store.workflows.cancel(cancelled.id, now=NOW)
    for id in (ended.id, cancelled.id, new().id):
        job = new()
        with pytest.raises(BatchEnded, match=id):
            await add(store, id, job)
        assert await store.jobs.get(job.id) is None


async def test_fault_7_late_add_in_the_round_of_the_last_end_comes_too_late(store: Store) -> None:
    """A round writes the ends first; the call gets an error, and no job of it is stored."""
    first, late = new(), new()
    made = await a_batch(store, first)
    running = await claim_all(store)
    written = await store.write(
        Round(
            NOW,
            outcomes=[succeeded(running[first.id])],
            batches=[BatchEnqueue(made.id, [late], (), [])],
        )
    )
    assert list(written.ended) == [made.id]
    (answer,) = written.batches
    assert isinstance(answer, BatchEnded)
    assert await store.jobs.get(late.id) is None
    assert (await batch_row(store, made.id)).total == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_fault_7_member_that_adds_in_the_round_of_the_last_end_keeps_the_batch_running(
    store: Store, order: tuple[int, int]
) -> None:
    first, last, late = new(), new(), new()
    made = await a_batch(store, first, last)
    running = await claim_all(store)
    adds = succeeded(running[first.id])._replace(
        enqueues=[late._replace(batch=running[first.id].batch)]
    )
    ends = [adds, succeeded(running[last.id])]
    written = await settle(store, *(ends[place] for place in order))
    assert (written.ended, (await batch_row(store, made.id)).state) == ((), "running")
    written = await settle(store, succeeded((await claim_all(store))[late.id]))
    assert list(written.ended) == [made.id]
    assert set(await claim_all(store)) == {made.then, made.at_end}


async def test_late_member_may_wait_for_an_older_one(store: Store) -> None:
    first, bad, other = new(), new(), new()
    made = await a_batch(store, first, bad, other)
    running = await claim_all(store)
    await settle(store, succeeded(running[first.id]), dead(running[bad.id]))
    after_first, after_bad, after_other = new(), new(), new()
    edges = [*needs(after_first, first), *needs(after_bad, bad), *needs(after_other, other)]
    await add(store, made.id, after_first, after_bad, after_other, edges=edges)
    assert await states_of(store, [after_first, after_bad, after_other]) == [
        "queued",
        "cancelled",
        "blocked",
    ]


async def test_fault_34_edge_to_a_job_of_no_or_another_batch_is_refused(store: Store) -> None:
    alone, elsewhere, member, late = new(), new(), new(), new()
    await enqueue(store, alone)
    await a_batch(store, elsewhere)
    made = await a_batch(store, member)
    for needed in (alone, elsewhere, new()):
        with pytest.raises(InvalidBatch, match=needed.id):
            await add(store, made.id, late, edges=needs(late, needed))
        with pytest.raises(InvalidBatch, match=needed.id):
            await store_batch(store, request(late, edges=needs(late, needed)))
    assert await store.jobs.get(late.id) is None


async def test_running_member_adds_members_in_the_commit_that_settles_it(store: Store) -> None:
    first = new()
    made = await a_batch(store, first)
    running = (await claim_all(store))[first.id]
    late = new()._replace(batch=running.batch)
    await settle(store, succeeded(running)._replace(enqueues=[late]))
    row = await batch_row(store, made.id)
    assert (row.state, row.total, row.waiting) == ("running", 2, 1)
    await settle(store, succeeded((await claim_all(store))[late.id]))
    assert (await batch_row(store, made.id)).state == "succeeded"


async def test_stale_success_adds_no_members(store: Store) -> None:
    first = new()
    made = await a_batch(store, first)
    running = (await claim_all(store))[first.id]
    await settle(store, released(running))
    late = new()._replace(batch=running.batch)
    await settle(store, succeeded(running)._replace(enqueues=[late]))
    assert (await batch_row(store, made.id)).total == 1
