"""Limits: how many jobs of a queue, a task or a lane run at a time and how often they start."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from jobrunner.core.clock import from_us
from jobrunner.core.limits import Limit, LimitName, LimitScope, RateLimit
from jobrunner.core.model import Claimed, Enqueue, Filter, Outcome, State, chained
from jobrunner.store.limits import GRAIN_US, SLACK_US
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    OUTCOMES,
    SECOND,
    WORKER,
    cancelled,
    claim,
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
    worker_row,
)

MANY_TASKS = ("work", "play", "sync")


async def limit(
    store: Store,
    scope: LimitScope,
    name: str,
    concurrency: int | None = None,
    *,
    rate: RateLimit | None = None,
    now: int = NOW,
) -> None:
    """Set a limit."""
    await store.limits.set(LimitName(scope, name), Limit(concurrency, rate), now=now)


def sync(key: object = 1, *, ordered: bool = False, **options: object) -> Enqueue:
    """Return a new job of a lane."""
    return new("sync", lane=f"sync[{key}]", ordered=ordered, **options)  # type: ignore[arg-type]


async def take(
    store: Store, slots: int = 1_000, *, now: int = NOW, worker: int = WORKER
) -> Sequence[Claimed]:
    """Claim jobs of all tasks in all queues."""
    return await claim(
        store, "default", "mail", tasks=MANY_TASKS, slots=slots, now=now, worker=worker
    )


def ids(jobs: Iterable[Claimed | Enqueue]) -> list[str]:
    return [job.id for job in jobs]


# -- concurrency -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scope", "name"), [("queue", "default"), ("task", "work")])
async def test_concurrency_of_a_queue_or_task_holds_over_all_workers(
    store: Store, scope: LimitScope, name: str
) -> None:
    await limit(store, scope, name, 3)
    jobs = [new() for _ in range(6)]
    await enqueue(store, *jobs)
    first = await take(store, 2)
    second = await take(store, worker=OTHER_WORKER)
    assert ids([*first, *second]) == ids(jobs[:3])
    assert await take(store) == []
    await settle(store, succeeded(second[0]))
    assert ids(await take(store)) == [jobs[3].id]


async def test_concurrency_of_a_task_lets_other_tasks_pass(store: Store) -> None:
    await limit(store, "task", "work", 2)
    limited = [new(run_at=NOW - HOUR) for _ in range(200)]
    others = [new("play", run_at=NOW - n % 7) for n in range(30)]
    await enqueue(store, *limited, *others)
    claimed = await take(store, 12)
    assert ids(claimed[:2]) == ids(limited[:2])
    assert Counter(job.task for job in claimed) == {"work": 2, "play": 10}
    assert {job.task for job in await take(store, 5)} == {"play"}
    await settle(store, succeeded(claimed[0]))
    again = await take(store, 5)
    assert [job.id for job in again if job.task == "work"] == [limited[2].id]
    assert len(again) == 5


async def test_concurrency_of_a_task_holds_over_its_queues(store: Store) -> None:
    await limit(store, "task", "work", 3)
    await enqueue(store, *[new(queue=queue) for queue in ("default", "mail") for _ in range(5)])
    assert len(await take(store)) == 3


async def test_concurrency_of_a_lane_lets_other_lanes_and_jobs_pass(store: Store) -> None:
    await limit(store, "lanes", "sync", 2)
    busy = [sync(1, run_at=NOW - HOUR) for _ in range(100)]
    other, plain = sync(2), new("play")
    await enqueue(store, *busy, other, plain)
    claimed = await take(store)
    assert set(ids(claimed)) == {busy[0].id, busy[1].id, other.id, plain.id}
    assert await take(store, worker=OTHER_WORKER) == []


async def test_concurrency_of_a_lane_holds_over_its_queues(store: Store) -> None:
    await limit(store, "lanes", "sync", 2)
    await enqueue(store, *[sync(queue=queue) for queue in ("default", "mail") for _ in range(3)])
    (first, second) = await take(store)
    await settle(store, succeeded(first))
    (third,) = await take(store)
    assert await take(store) == []
    await settle(store, succeeded(second), succeeded(third))
    assert len(await take(store)) == 2


async def test_a_claim_fills_a_lane_from_several_queues(store: Store) -> None:
    await limit(store, "lanes", "sync", 3)
    await enqueue(store, *[sync(queue=queue) for queue in ("default", "mail") for _ in range(2)])
    assert Counter(job.queue for job in await take(store)) == {"default": 2, "mail": 1}
    assert await take(store) == []


async def test_limits_of_queue_task_and_lane_hold_together(store: Store) -> None:
    await limit(store, "queue", "default", 7)
    await limit(store, "task", "sync", 5)
    await limit(store, "lanes", "sync", 2)
    await enqueue(store, *[sync(key) for key in range(4) for _ in range(4)])
    await enqueue(store, *[new("play") for _ in range(10)])
    claimed = await take(store)
    assert len(claimed) == 7
    assert Counter(job.lane for job in claimed if job.lane).most_common(1)[0][1] <= 2
    assert sum(job.task == "sync" for job in claimed) <= 5


@pytest.mark.parametrize("end", sorted(OUTCOMES))
async def test_every_end_of_an_attempt_frees_its_place(store: Store, end: str) -> None:
    await limit(store, "lanes", "sync", 1)
    await limit(store, "task", "work", 1)
    await enqueue(store, sync(), new(), sync(), new())
    running = await take(store)
    assert len(running) == 2
    outcomes = [OUTCOMES[end](job) for job in running]
    if end in {"retry", "snoozed"}:
        outcomes = [one._replace(run_at=NOW + HOUR) for one in outcomes]  # type: ignore[call-arg]
    wanted = claim_of(tasks=MANY_TASKS)
    written = await store.write(Round(NOW, outcomes=outcomes, claim=wanted))
    assert Counter(job.task for job in written.claimed) == {"sync": 1, "work": 1}
    assert await take(store) == []


async def test_recovery_and_leave_free_the_places_of_a_worker(rig: Rig) -> None:
    store = rig.store
    await limit(store, "lanes", "sync", 2)
    await store.workers.join(worker_row(), lambda: None)
    await store.workers.join(worker_row(OTHER_WORKER), lambda: None)
    await enqueue(store, *[sync() for _ in range(4)])
    first = await take(store, 1)
    second = await take(store, 1, worker=OTHER_WORKER)
    assert await take(store) == []
    rig.kill_worker(OTHER_WORKER)
    await store.workers.recover(now=NOW, thorough=False)
    (again,) = await take(store)
    assert again.id in ids(second)
    await store.workers.leave(WORKER, now=NOW)
    third = OTHER_WORKER + 1
    assert sorted(ids(await take(store, worker=third))) == sorted(ids([*first, *second]))


async def test_a_stale_outcome_frees_nothing(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    await enqueue(store, sync(), sync())
    (first,) = await take(store)
    await settle(store, released(first))
    (again,) = await take(store)
    assert (await settle(store, succeeded(first))).stale
    assert await take(store) == []
    await settle(store, succeeded(again))
    assert len(await take(store)) == 1


async def test_a_lost_answer_to_a_claim_counts(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    await enqueue(store, sync(), sync())
    lost = await take(store)
    wanted = claim_of(tasks=MANY_TASKS)._replace(held=frozenset())
    assert (await store.write(Round(NOW, claim=wanted))).claimed == lost
    assert await take(store, worker=OTHER_WORKER) == []


async def test_a_job_that_waits_for_a_limit_keeps_its_attempt_and_lease(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    await enqueue(store, sync())
    await take(store)
    waiting = sync()
    await enqueue(store, waiting)
    before = await row_of(store, waiting.id)
    for _ in range(3):
        assert await take(store) == []
    assert await row_of(store, waiting.id) == before
    assert await store.jobs.attempts(before.seq) == []


async def test_a_job_that_arrives_in_a_lane_without_room_wakes_no_other_worker(
    store: Store,
) -> None:
    await limit(store, "lanes", "sync", 1)
    await limit(store, "lane", "sync[2]", rate=RateLimit(1, HOUR))

    async def wakes(*jobs: Enqueue) -> bool:
        return (await store.write(Round(NOW, enqueues=jobs))).left_queued

    assert await wakes(sync(1), sync(2))
    assert not await wakes(sync(3, run_at=NOW + MINUTE))
    running = await take(store)
    assert await wakes(sync(1), sync(2))  # no claim has looked at these lanes yet
    assert await wakes(sync(1))
    assert await take(store) == []
    assert not await wakes(sync(1), sync(2))
    assert await wakes(sync(1), new("play"))
    assert await wakes(sync(4))
    assert len(await take(store)) == 2
    assert not await wakes(sync(1))
    assert (await settle(store, succeeded(running[0]))).left_queued
    assert await wakes(sync(1))


async def test_a_job_behind_others_of_an_ordered_lane_wakes_no_other_worker(store: Store) -> None:
    await enqueue(store, sync(ordered=True), sync(ordered=True))
    (head,) = await take(store)
    assert await take(store) == []
    assert not (await store.write(Round(NOW, enqueues=[sync(ordered=True)]))).left_queued
    assert (await settle(store, released(head))).left_queued


async def test_lowering_a_limit_kills_nothing_and_starts_nothing(store: Store) -> None:
    await limit(store, "lanes", "sync", 3)
    await enqueue(store, *[sync() for _ in range(6)])
    running = list(await take(store))
    await limit(store, "lanes", "sync", 1)
    assert await take(store) == []
    for number, job in enumerate(running):
        assert (await settle(store, succeeded(job))).stale == []
        assert len(await take(store)) == (number == 2)


@pytest.mark.parametrize("scope", ["lanes", "lane", "task", "queue"])
async def test_raising_a_limit_holds_at_the_next_claim(store: Store, scope: LimitScope) -> None:
    name = {"lanes": "sync", "lane": "sync[1]", "task": "sync", "queue": "default"}[scope]
    await limit(store, scope, name, 1)
    await enqueue(store, *[sync() for _ in range(6)])
    assert len(await take(store)) == 1
    assert await take(store) == []
    await limit(store, scope, name, 3)
    assert len(await take(store)) == 2
    await store.limits.reset(LimitName(scope, name))
    assert len(await take(store)) == 3


async def test_the_limit_of_one_lane_counts_instead_of_that_of_all(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    await limit(store, "lane", "sync[7]", 3)
    await enqueue(store, *[sync(key) for key in (1, 7) for _ in range(5)])
    assert Counter(job.lane for job in await take(store)) == {"sync[1]": 1, "sync[7]": 3}


async def test_jobs_of_lanes_are_found_whatever_makes_them_due(store: Store) -> None:
    """A promotion, the end of the job before in a chain, a replay and a reschedule."""
    await limit(store, "lanes", "sync", 1)
    await enqueue(store, sync(1, run_at=NOW + MINUTE))
    assert len(await take(store, now=NOW + MINUTE)) == 1

    first, second = chained([new("play"), sync(2)])
    await enqueue(store, first, second)
    (head,) = await take(store)
    wanted = claim_of(tasks=MANY_TASKS)
    assert ids(
        (await store.write(Round(NOW, outcomes=[succeeded(head)], claim=wanted))).claimed
    ) == [second.id]

    doomed = sync(3)
    await enqueue(store, doomed)
    (claimed,) = await take(store)
    await settle(store, dead(claimed))
    await store.dead_letters.replay(doomed.id, now=NOW)
    assert ids(await take(store)) == [doomed.id]

    later = sync(4, run_at=NOW + HOUR)
    await enqueue(store, later)
    await store.jobs.reschedule(later.id, run_at=NOW, now=NOW)
    assert ids(await take(store)) == [later.id]


@pytest.mark.parametrize("gone", ["cancel", "expire", "bury"])
async def test_a_waiting_job_that_is_gone_leaves_its_lane_to_the_next(
    store: Store, gone: str
) -> None:
    expires = NOW + SECOND if gone == "expire" else None
    first, second = sync(expires_at=expires), sync(created_at=NOW + 5, run_at=NOW + 5)
    await enqueue(store, first, second, now=NOW + 5)
    now = NOW + 2 * SECOND
    if gone == "cancel":
        await store.jobs.cancel(first.id, now=now)
    elif gone == "bury":
        await store.dead_letters.bury_waiting(
            "default", "sync", due_before=NOW + 1, reason="unknown_task", error="", now=now, limit=9
        )
    assert ids(await take(store, now=now)) == [second.id]


async def kill_two_workers(rig: Rig) -> None:
    """Let two workers die, one after the other, that run the waiting jobs."""
    for number in range(2):
        worker = WORKER + number
        await rig.store.workers.join(worker_row(worker), lambda: None)
        await take(rig.store, worker=worker)
        rig.kill_worker(worker)
        await rig.store.workers.recover(now=NOW, thorough=False)


async def test_a_suspect_runs_within_the_limits_of_its_lane(rig: Rig) -> None:
    store = rig.store
    await limit(store, "lanes", "sync", 1)
    await enqueue(store, sync())
    await kill_two_workers(rig)
    await enqueue(store, sync())
    (running,) = await claim(store, tasks=MANY_TASKS, suspects=False)
    assert await take(store) == []
    await settle(store, succeeded(running))
    (suspect,) = await take(store)
    assert suspect.suspect


async def test_a_suspect_runs_within_the_limit_of_its_task(rig: Rig) -> None:
    """Also if a job of another queue has taken the last place in the same claim."""
    store = rig.store
    await limit(store, "task", "work", 1)
    await enqueue(store, new(queue="mail"))
    await kill_two_workers(rig)
    await enqueue(store, new())
    assert [bool(job.suspect) for job in await take(store)] == [False]
    assert await take(store) == []


async def test_a_suspect_and_another_job_fill_a_lane(rig: Rig) -> None:
    store = rig.store
    await limit(store, "lanes", "sync", 2)
    await enqueue(store, sync())
    await kill_two_workers(rig)
    await enqueue(store, sync(), sync())
    assert [bool(job.suspect) for job in await take(store)] == [True, False]
    assert await take(store) == []


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


# -- rates --------------------------------------------------------------------------------------------------


async def starts(store: Store, first: int, last: int, step: int) -> list[int]:
    """Claim at each step and settle; return the times of the starts."""
    found: list[int] = []
    for now in range(first, last, step):
        jobs = await take(store, now=now)
        found += [now] * len(jobs)
        if jobs:
            await settle(store, *map(succeeded, jobs))
    return found


RATED: Sequence[tuple[LimitScope, str]] = (
    ("queue", "default"),
    ("task", "sync"),
    ("lanes", "sync"),
    ("lane", "sync[1]"),
)


@pytest.mark.parametrize(("scope", "name"), RATED)
async def test_a_rate_lets_jobs_start_evenly_after_a_burst(
    store: Store, scope: LimitScope, name: str
) -> None:
    await limit(store, scope, name, rate=RateLimit(4, 4 * SECOND, 2))
    await enqueue(store, *[sync() for _ in range(9)])
    found = await starts(store, NOW, NOW + 4 * SECOND + SECOND // 2, SECOND // 10)
    # Two at once, then one a second; each up to a tenth late, which the rate makes up for.
    assert found[:2] == [NOW, NOW]
    assert len(found) == 6
    assert all(SECOND * 9 // 10 <= b - a <= SECOND * 11 // 10 for a, b in pairwise(found[1:]))


@pytest.mark.parametrize(("scope", "name"), RATED)
async def test_a_round_says_when_the_next_token_is_there(
    store: Store, scope: LimitScope, name: str
) -> None:
    await limit(store, scope, name, rate=RateLimit(1, MINUTE))
    await enqueue(store, sync(), sync())
    wanted = claim_of(tasks=MANY_TASKS)
    dues = [
        (await store.write(Round(NOW, promote_due=promote, claim=wanted))).next_due
        for promote in (False, True)
    ]
    assert dues[0] == dues[1]
    due = dues[0] or 0
    assert NOW + MINUTE - SECOND // 10 <= due <= NOW + MINUTE
    assert (
        await store.write(Round(due - SECOND // 10, promote_due=True, claim=wanted))
    ).claimed == []
    written = await store.write(Round(due, promote_due=True, claim=wanted))
    assert len(written.claimed) == 1


@pytest.mark.parametrize(("scope", "name"), RATED)
@pytest.mark.parametrize(
    "rate", [RateLimit(1, MINUTE), RateLimit(7, SECOND, 3), RateLimit(900, SECOND)]
)
async def test_each_round_at_an_empty_bucket_starts_a_job(
    store: Store, scope: LimitScope, name: str, rate: RateLimit
) -> None:
    """An idle worker sleeps until ``next_due``: at most one round per token."""
    await limit(store, scope, name, rate=rate)
    await enqueue(store, *[sync() for _ in range(40)])
    wanted = claim_of(tasks=MANY_TASKS)
    now, left = NOW, 40
    while left:
        written = await store.write(Round(now, promote_due=True, claim=wanted))
        assert written.claimed, f"nothing started at {now - NOW}"
        left -= len(written.claimed)
        await settle(store, *map(succeeded, written.claimed), now=now)
        assert not left or written.next_due is not None
        now = written.next_due or now


@pytest.mark.parametrize(("scope", "name"), RATED)
@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_a_clock_that_is_set_opens_no_burst_and_shuts_nothing_for_longer_than_a_refill(
    store: Store, scope: LimitScope, name: str, step: int
) -> None:
    await limit(store, scope, name, rate=RateLimit(1, SECOND, 3))
    await enqueue(store, *[sync() for _ in range(40)])
    before = await starts(store, NOW, NOW + 2 * SECOND, SECOND // 10)
    assert len(before) == 4
    then = NOW + 2 * SECOND + step
    await store.limits.repair(now=then)
    after = await starts(store, then, then + 10 * SECOND, SECOND // 10)
    assert sum(at == then for at in after) <= 3
    assert len(after) <= 13
    assert after[0] <= then + 3 * SECOND + SECOND // 10
    assert len([at for at in after if at >= then + 4 * SECOND]) >= 5


@pytest.mark.parametrize(("starts", "keys"), [(1_000, 1), (100, 1), (7, 1), (1, 50)])
async def test_a_rate_is_held_by_two_workers_that_wake_up_late(
    store: Store, starts: int, keys: int
) -> None:
    """Nothing drifts: neither the rounding of tokens and wake-ups, nor what one worker leaves to the other."""
    rng = random.Random(starts)
    seconds = 5
    await limit(store, "lanes", "sync", rate=RateLimit(starts, SECOND))
    await enqueue(store, *[sync(n % keys) for n in range(starts * keys * (seconds + 2))])
    wakes = {WORKER: NOW, OTHER_WORKER: NOW}
    began = Counter[str | None]()
    while (now := min(wakes.values())) < NOW + seconds * SECOND:
        worker = min(wakes, key=lambda one: wakes[one])
        now += rng.randrange(SLACK_US - GRAIN_US)
        wanted = claim_of(worker=worker, tasks=MANY_TASKS)
        written = await store.write(Round(now, promote_due=True, claim=wanted))
        began.update(job.lane for job in written.claimed)
        await settle(store, *map(succeeded, written.claimed), now=now)
        assert written.next_due is not None
        wakes[worker] = max(written.next_due, now)
    assert len(began) == keys
    most = starts * seconds + starts * SLACK_US // SECOND + 1
    assert max(began.values()) <= most + starts * SLACK_US // SECOND  # the last round is late
    assert min(began.values()) >= starts * seconds * 99 // 100


async def test_a_job_that_fails_and_is_buried_has_used_its_token(store: Store) -> None:
    await limit(store, "lanes", "sync", rate=RateLimit(1, MINUTE))
    await enqueue(store, sync(), sync())
    (job,) = await take(store)
    await settle(store, cancelled(job))
    assert await take(store) == []
    assert len(await take(store, now=NOW + MINUTE)) == 1


async def test_full_buckets_are_pruned_and_no_token_comes_of_it(store: Store) -> None:
    await limit(store, "lanes", "sync", rate=RateLimit(1, MINUTE))
    await limit(store, "task", "sync", rate=RateLimit(5_000, MINUTE, 5_000))
    jobs = [sync(n) for n in range(1_100)]
    await enqueue(store, *jobs, *[sync(n) for n in range(3)])
    assert len(await take(store, 2_000)) == 1_000  # the most lanes that a claim visits
    assert len(await take(store, 2_000)) == 100
    assert await store.limits.prune(before=NOW) == 0
    later = NOW + 2 * MINUTE
    assert len(await take(store, now=later)) == 3  # which are not full again
    assert await store.limits.prune(before=later) == 1_097
    assert await store.limits.prune(before=later) == 0
    await enqueue(store, *[sync(n, run_at=later) for n in range(6)])
    assert [job.lane for job in await take(store, now=later)] == [f"sync[{n}]" for n in (3, 4, 5)]


# -- definitions ------------------------------------------------------------------------------------------------


NAMES = [LimitName("queue", "default"), LimitName("task", "work"), LimitName("lanes", "sync")]


async def test_declare_stores_what_the_newest_revision_says(store: Store) -> None:
    two = {name: Limit(2) for name in NAMES}
    three = {name: Limit(3) for name in NAMES}
    assert list(await store.limits.declare(two, revision=5)) == NAMES
    assert list(await store.limits.declare(two, revision=5)) == []
    assert list(await store.limits.declare(three, revision=4)) == []
    rows = await store.limits.list(after=None, limit=9)
    assert [(row.declared, row.revision) for row in rows] == [(Limit(2), 5)] * 3
    assert list(await store.limits.declare(three, revision=5)) == NAMES
    assert list(await store.limits.declare(three, revision=6)) == []
    assert list(await store.limits.declare(two, revision=5)) == []


async def test_declare_removes_what_the_code_does_not_limit_any_longer(store: Store) -> None:
    await store.limits.declare({NAMES[0]: Limit(2), NAMES[1]: Limit(3)}, revision=1)
    assert list(await store.limits.declare({NAMES[0]: Limit()}, revision=1)) == [NAMES[0]]
    assert [row.name for row in await store.limits.list(after=None, limit=9)] == [NAMES[1]]


async def test_numbers_that_were_set_count_until_reset(store: Store) -> None:
    name = NAMES[2]
    rate = RateLimit(5, SECOND, 2)
    await store.limits.declare({name: Limit(2, rate)}, revision=1)
    row = await store.limits.set(name, Limit(7), now=NOW)
    assert (row.limit, row.declared, row.set, row.set_at) == (
        Limit(7, rate),
        Limit(2, rate),
        Limit(7),
        NOW,
    )
    faster = RateLimit(9, SECOND, 1)
    row = await store.limits.set(name, Limit(rate=faster), now=NOW + 1)
    assert row.limit == Limit(7, faster)
    assert await store.limits.get(name) == row
    await store.limits.declare({name: Limit(3, rate)}, revision=2)
    found = await store.limits.get(name)
    assert found is not None
    assert found.limit == Limit(7, faster)
    assert await store.limits.reset(name)
    assert not await store.limits.reset(name)
    found = await store.limits.get(name)
    assert found is not None
    assert (found.limit, found.set_at) == (Limit(3, rate), None)


async def test_reset_of_a_limit_that_no_code_declares_removes_it(store: Store) -> None:
    await limit(store, "lane", "sync[1]", 3)
    assert await store.limits.reset(LimitName("lane", "sync[1]"))
    assert await store.limits.get(LimitName("lane", "sync[1]")) is None


async def test_list_gives_pages_with_single_lanes_last(store: Store) -> None:
    names = [*NAMES, *(LimitName("lane", f"sync[{n}]") for n in range(4))]
    for name in reversed(names):
        await store.limits.set(name, Limit(1), now=NOW)
    found: list[LimitName] = []
    while page := await store.limits.list(after=found[-1] if found else None, limit=2):
        found += [row.name for row in page]
    assert found == [names[2], names[0], names[1], *names[3:]]


# -- the list of lanes --------------------------------------------------------------------------------------------


async def test_lanes_counts_them_by_what_they_wait_for(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    await limit(store, "lane", "sync[3]", rate=RateLimit(1, HOUR))
    await enqueue(store, *[sync(key) for key in (1, 1, 2, 2, 2)])
    assert await store.limits.lanes(cap=10) == (2, 0, 0)
    running = await take(store)
    await enqueue(store, sync(3), sync(3), sync(4))
    (third, _) = await take(store)
    await settle(store, succeeded(third))
    await take(store)
    assert await store.limits.lanes(cap=10) == (0, 2, 1)
    assert await store.limits.lanes(cap=1) == (0, 1, 1)
    await settle(store, *map(succeeded, running))
    assert await store.limits.lanes(cap=10) == (2, 0, 1)


# -- all of it -------------------------------------------------------------------------------------------------------


class Life:
    """Random lives of jobs in a few lanes, checked against the limits after each round."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.rng = random.Random(seed)
        self.ordered = seed % 3 == 0
        self.rate = RateLimit(5, SECOND) if seed % 3 == 1 else None
        self.most = 1 if self.ordered else self.rng.choice([1, 2, 5])
        self.running: dict[str, Claimed] = {}
        self.unfinished: dict[str | None, list[str]] = defaultdict(list)
        self.now = NOW

    async def set_limits(self) -> None:
        await limit(self.store, "lanes", "sync", self.most, rate=self.rate)
        await limit(self.store, "task", "sync", 9)
        await limit(self.store, "queue", "default", 12)

    def job(self) -> Enqueue:
        if self.rng.random() < 0.2:
            return new("play", created_at=self.now)
        key = int(self.rng.expovariate(0.3))
        return sync(key, ordered=self.ordered, created_at=self.now)

    async def add(self) -> None:
        jobs = [self.job() for _ in range(self.rng.randint(0, 12))]
        await enqueue(self.store, *jobs, now=self.now)
        for job in jobs:
            self.unfinished[job.lane].append(job.id)

    def end(self, id: str) -> Outcome:
        job = self.running.pop(id)
        end = self.rng.choices(["succeeded", "retry", "released", "dead"], [6, 2, 1, 1])[0]
        if end == "retry":
            return retry(job, self.now + self.rng.randint(0, 3 * SECOND))
        if end != "released":
            self.unfinished[job.lane].remove(id)
        return OUTCOMES[end](job)

    async def round(self, outcomes: Sequence[Outcome], slots: int) -> None:
        worker = self.rng.choice([WORKER, OTHER_WORKER])
        wanted = claim_of(worker=worker, slots=slots, tasks=MANY_TASKS)
        request = Round(self.now, outcomes=outcomes, promote_due=True, claim=wanted)
        for job in (await self.store.write(request)).claimed:
            assert job.id not in self.running
            self.running[job.id] = job
        self.check()

    def check(self) -> None:
        lanes = Counter(job.lane for job in self.running.values() if job.lane)
        assert max(lanes.values(), default=0) <= self.most
        assert sum(job.task == "sync" for job in self.running.values()) <= 9
        assert len(self.running) <= 12
        if self.ordered:
            heads = [self.unfinished[job.lane][0] for job in self.running.values() if job.lane]
            assert self.running.keys() >= set(heads)
            assert len(heads) == sum(job.lane is not None for job in self.running.values())

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            self.now += self.rng.choice([100, 1_000, 50_000, 400_000])
            await self.add()
            ended = self.rng.sample(sorted(self.running), self.rng.randint(0, len(self.running)))
            await self.round([self.end(id) for id in ended], self.rng.choice([1, 3, 50]))

    async def drain(self) -> int:
        """End all jobs, and return the number of those that were never claimed."""
        for _ in range(sum(map(len, self.unfinished.values())) * 3):
            if not any(self.unfinished.values()):
                break
            self.now += SECOND // 4
            outcomes = [succeeded(job) for job in self.running.values()]
            for job in self.running.values():
                self.unfinished[job.lane].remove(job.id)
            self.running.clear()
            await self.round(outcomes, 50)
        await self.round([], 50)
        assert not self.running  # no job that has ended is claimed again
        return sum(map(len, self.unfinished.values()))


@pytest.mark.parametrize("seed", range(12))
async def test_no_life_of_jobs_breaks_a_limit_or_forgets_a_job(store: Store, seed: int) -> None:
    life = Life(store, seed)
    await life.set_limits()
    await life.live(100)
    assert await life.drain() == 0


# -- what a job waits for --------------------------------------------------------------------------


async def waits(store: Store, *jobs: Enqueue, now: int = NOW) -> list[str | None]:
    """Return the text of each job's wait."""
    rows = [await row_of(store, job.id) for job in jobs]
    found = await store.limits.waits(rows, now=now)
    return [found[row.seq].text if row.seq in found else None for row in rows]


async def test_a_job_waits_for_the_first_full_limit(store: Store) -> None:
    jobs = [sync(7) for _ in range(4)]
    other = sync(8)
    await enqueue(store, *jobs, other)
    assert await waits(store, *jobs) == [None] * 4
    await limit(store, "lanes", "sync", 1)
    await limit(store, "lane", "sync[7]", 2)
    await take(store, 2)
    await take(store)
    assert await waits(store, *jobs) == [None, None, *["limit sync[7] 2/2"] * 2]
    assert await waits(store, other) == [None]  # it runs
    await limit(store, "task", "sync", 3)
    assert await waits(store, jobs[3]) == ["limit task sync 3/3"]
    await limit(store, "queue", "default", 2)
    assert await waits(store, jobs[3]) == ["limit queue default 3/2"]
    later = sync(7, run_at=NOW + HOUR)
    await enqueue(store, later)
    assert await waits(store, later) == [None]  # it waits for its time


async def test_a_job_waits_for_the_next_token(store: Store) -> None:
    await limit(store, "lanes", "sync", rate=RateLimit(1, MINUTE))
    first, second = sync(7), sync(7)
    await enqueue(store, first, second)
    await take(store)
    (text,) = await waits(store, second)
    assert text is not None
    name, _, at = text.partition(", next ")
    assert name == "rate sync[7]"
    assert datetime.strptime(at, "%Y-%m-%d %H:%M:%S%z") - from_us(NOW) in (
        timedelta(seconds=59),
        timedelta(seconds=60),
    )
    assert await waits(store, second, now=NOW + MINUTE) == [None]


async def test_a_job_of_an_ordered_lane_waits_for_the_oldest(store: Store) -> None:
    await limit(store, "lanes", "sync", 1)
    jobs = [sync(7, ordered=True) for _ in range(3)]
    await enqueue(store, *jobs)
    behind = f"order: behind {jobs[0].id}"
    assert await waits(store, *jobs) == [None, behind, behind]
    (head,) = await take(store)
    await settle(store, retry(head, NOW + HOUR))
    assert await waits(store, *jobs) == [None, behind, behind]
    assert await store.jobs.cancel(jobs[0].id, now=NOW)
    assert await waits(store, *jobs) == [None, None, f"order: behind {jobs[1].id}"]
