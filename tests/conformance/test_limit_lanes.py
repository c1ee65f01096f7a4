"""Lanes: jobs of different lanes take turns, and ordered jobs run one by one."""

from collections import Counter

import pytest

from jobrunner.core.model import Filter, Outcome, State, chained
from jobrunner.store.protocol import Store
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OUTCOMES,
    WORKER,
    claim,
    enqueue,
    new,
    released,
    retry,
    row_of,
    settle,
    snoozed,
    succeeded,
    worker_row,
)
from tests.support.lanes import MANY_TASKS, ids, limit, sync, take

# -- lanes without a limit, and turns ------------------------------------------------------------------------


async def test_lanes_take_turns_job_by_job(store: Store) -> None:
    big = [sync("big", run_at=NOW - HOUR) for _ in range(50)]
    small = [sync("small") for _ in range(3)]
    await enqueue(store, *big, *small)
    claimed = await take(store, 6)
    assert Counter(job.lane for job in claimed) == {"sync[big]": 3, "sync[small]": 3}


async def test_no_lane_is_served_twice_before_another_once(store: Store) -> None:
    await enqueue(store, *[sync(key) for key in "abc" for _ in range(3)])
    served = Counter(job.lane for job in await take(store, 4))
    assert sorted(served.values()) == [1, 1, 2]


async def test_a_new_lane_waits_for_one_claim_at_most(store: Store) -> None:
    await enqueue(store, *[sync("big", run_at=NOW - HOUR) for _ in range(300)])
    for number in range(3):
        assert len(await take(store, 20, now=NOW + number)) == 20
    late = sync("small", created_at=NOW + 5, run_at=NOW + 5)
    await enqueue(store, late, now=NOW + 5)
    assert late.id in ids(await take(store, 20, now=NOW + 6))


async def test_turns_go_round_when_each_claim_has_one_slot(store: Store) -> None:
    await enqueue(store, *[sync(key) for key in "abc" for _ in range(4)])
    order = [(await take(store, 1, now=NOW + number))[0].lane for number in range(12)]
    for start in range(0, 12, 3):
        assert sorted(map(str, order[start : start + 3])) == ["sync[a]", "sync[b]", "sync[c]"]


async def test_lanes_of_two_tasks_take_turns_with_each_other(store: Store) -> None:
    others = [new("play", lane=f"play[{key}]") for key in "xy" for _ in range(4)]
    await enqueue(store, *[sync(key) for key in "ab" for _ in range(4)], *others)
    order = [(await take(store, 1, now=NOW + number))[0].lane for number in range(16)]
    for start in range(0, 16, 4):
        served = sorted(map(str, order[start : start + 4]))
        assert served == ["play[x]", "play[y]", "sync[a]", "sync[b]"]


async def test_each_lane_comes_again_while_more_new_ones_arrive_than_are_served(
    store: Store,
) -> None:
    await enqueue(store, *[sync(key) for key in "abc" for _ in range(9)])
    served: Counter[str | None] = Counter()
    for step in range(60):
        at = NOW + step
        await enqueue(store, *[sync(f"new-{step}-{n}", created_at=at) for n in range(3)], now=at)
        served.update(job.lane for job in await take(store, 2, now=at))
    assert min(served[f"sync[{key}]"] for key in "abc") >= 4
    assert sum(count for lane, count in served.items() if str(lane).startswith("sync[new")) > 60


async def test_lanes_take_turns_when_the_clock_was_set_back(store: Store) -> None:
    await enqueue(store, *[sync(key) for key in "abc" for _ in range(6)])
    await take(store, 1)
    back = NOW - HOUR
    fresh = [sync(key, created_at=back) for key in "xyz" for _ in range(6)]
    await enqueue(store, *fresh, now=back)
    served = Counter([(await take(store, 1, now=back + n))[0].lane for n in range(18)])
    assert len(served) == 6
    assert max(served.values()) <= 5


async def test_lanes_of_one_priority_go_on_where_they_were_after_more_urgent_ones(
    store: Store,
) -> None:
    await enqueue(store, *[sync(key) for key in "abc" for _ in range(3)])
    first = (await take(store, 1))[0].lane
    await enqueue(store, *[sync(key, priority=1) for key in "xy" for _ in range(2)])
    order = [(await take(store, 1, now=NOW + n))[0].lane for n in range(12)]
    assert sorted(map(str, order[:4])) == ["sync[x]", "sync[x]", "sync[y]", "sync[y]"]
    assert order[0] != order[1]
    assert sorted(map(str, [first, *order[4:6]])) == ["sync[a]", "sync[b]", "sync[c]"]


async def test_priority_counts_more_than_a_turn(store: Store) -> None:
    await enqueue(store, *[sync("a") for _ in range(3)])
    await take(store, 1)
    urgent = [sync("a", priority=5), sync("b", priority=7)]
    await enqueue(store, *urgent, sync("c"))
    claimed = [(await take(store, 1, now=NOW + n))[0].id for n in range(2)]
    assert claimed == [urgent[1].id, urgent[0].id]


async def test_a_lane_keeps_claim_order(store: Store) -> None:
    jobs = [sync(priority=n % 3, run_at=NOW - n * 7 % 11) for n in range(20)]
    await enqueue(store, *jobs)
    order = sorted(jobs, key=lambda job: (-job.priority, job.run_at, jobs.index(job)))
    taken = [job.id for slots in (1, 3, 5, 20) for job in await take(store, slots)]
    assert taken == ids(order)


async def test_jobs_in_lanes_and_others_are_claimed_in_claim_order(store: Store) -> None:
    jobs = [
        sync(n, run_at=NOW - 50 + n) if n % 2 else new("play", run_at=NOW - 50 + n)
        for n in range(40)
    ]
    await enqueue(store, *jobs)
    taken = [job.id for slots in (5, 10, 15) for job in await take(store, slots)]
    assert taken == ids(jobs[:30])


# -- order --------------------------------------------------------------------------------------------------


async def test_ordered_jobs_run_one_after_another_by_age(store: Store) -> None:
    # The clock is set back between them.
    jobs = [sync(ordered=True, created_at=NOW - n * MINUTE) for n in range(4)]
    for job in jobs:
        await enqueue(store, job)
    taken: list[str] = []
    for _ in jobs:
        (running,) = await take(store)
        assert await take(store) == []
        taken.append(running.id)
        await settle(store, succeeded(running))
    assert taken == ids(jobs)


@pytest.mark.parametrize("end", ["retry", "snoozed", "released"])
async def test_an_ordered_job_that_runs_again_holds_its_successors(store: Store, end: str) -> None:
    first, second = sync(ordered=True), sync(ordered=True)
    await enqueue(store, first, second)
    (job,) = await take(store)
    later = NOW + MINUTE
    outcomes: dict[str, Outcome] = {
        "retry": retry(job, later),
        "snoozed": snoozed(job, later),
        "released": released(job),
    }
    await settle(store, outcomes[end])
    if end != "released":
        assert await take(store, now=later - 1) == []
    (again,) = await take(store, now=later)
    assert again.id == first.id
    assert await take(store, now=later) == []
    await settle(store, succeeded(again))
    assert ids(await take(store, now=later)) == [second.id]


@pytest.mark.parametrize("end", ["cancelled", "dead", "succeeded"])
async def test_the_end_of_an_ordered_job_frees_the_next(store: Store, end: str) -> None:
    first, second = sync(ordered=True), sync(ordered=True)
    await enqueue(store, first, second)
    (job,) = await take(store)
    await settle(store, OUTCOMES[end](job))
    assert ids(await take(store)) == [second.id]


@pytest.mark.parametrize("state", ["queued", "scheduled"])
@pytest.mark.parametrize("how", ["cancel", "cancel_all"])
async def test_a_cancelled_head_frees_the_next_at_once(
    store: Store, state: State, how: str
) -> None:
    first, second = sync(ordered=True), sync(ordered=True)
    await enqueue(store, first, second)
    if state == "scheduled":
        (job,) = await take(store)
        await settle(store, retry(job, NOW + HOUR))
        assert await take(store) == []
    if how == "cancel":
        await store.jobs.cancel(first.id, now=NOW)
    else:
        before = (await row_of(store, first.id)).seq + 1
        await store.jobs.cancel_all(Filter(state=state), before=before, now=NOW, limit=1)
    assert ids(await take(store)) == [second.id]


async def test_an_ordered_suspect_holds_its_successors(rig: Rig) -> None:
    store = rig.store
    first, second = sync(ordered=True), sync(ordered=True)
    await enqueue(store, first, second)
    for number in range(2):
        worker = WORKER + number
        await store.workers.join(worker_row(worker), lambda: None)
        assert ids(await take(store, worker=worker)) == [first.id]
        rig.kill_worker(worker)
        await store.workers.recover(now=NOW, thorough=False)
    assert await claim(store, tasks=MANY_TASKS, suspects=False) == []
    (suspect,) = await take(store)
    assert (suspect.id, bool(suspect.suspect)) == (first.id, True)
    assert await take(store) == []
    await settle(store, succeeded(suspect))
    assert ids(await take(store)) == [second.id]


async def test_order_holds_over_queues(store: Store) -> None:
    jobs = [sync(ordered=True, queue=queue) for queue in ("mail", "default", "mail", "default")]
    await enqueue(store, *jobs)
    taken: list[str] = []
    for _ in jobs:
        (job,) = await take(store)
        taken.append(job.id)
        await settle(store, succeeded(job))
    assert taken == ids(jobs)


async def test_jobs_run_on_when_their_task_is_ordered_no_longer(store: Store) -> None:
    before = [sync(ordered=True), sync(ordered=True)]
    since = [sync(), sync()]
    await enqueue(store, *before, *since)
    taken: list[str] = []
    for _ in before:
        (job,) = await take(store)
        taken.append(job.id)
        await settle(store, succeeded(job))
    assert [*taken, *ids(await take(store))] == ids([*before, *since])


async def test_jobs_are_ordered_from_the_first_one_on_that_says_so(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    before, since = [sync(), sync()], [sync(ordered=True), sync(ordered=True)]
    await enqueue(store, *before)
    await enqueue(store, *since)
    taken: list[str] = []
    for _ in before:
        (job,) = await take(store)
        taken.append(job.id)
        await settle(store, succeeded(job))
    (head,) = await take(store)
    assert [*taken, head.id] == ids([*before, since[0]])
    await settle(store, retry(head, NOW + MINUTE))
    assert await take(store) == []
    (again,) = await take(store, now=NOW + MINUTE)
    assert again.id == since[0].id
    await settle(store, succeeded(again))
    assert ids(await take(store)) == [since[1].id]


async def test_blocked_jobs_of_a_chain_do_not_count_in_the_order(store: Store) -> None:
    """Two jobs of one lane in a chain behind another one would wait for each other for ever."""
    first, second = chained([new("play", run_at=NOW + HOUR), sync(ordered=True)])
    third = sync(ordered=True)
    await enqueue(store, first, second, third)
    assert ids(await take(store)) == [third.id]
