"""Limits of concurrency: how many jobs of a queue, task or lane run at a time."""

from collections import Counter

import pytest

from jobrunner.core.limits import LimitName, LimitScope, RateLimit
from jobrunner.core.model import Enqueue, chained
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
    claim,
    claim_of,
    dead,
    enqueue,
    new,
    released,
    row_of,
    settle,
    succeeded,
    worker_row,
)
from tests.support.lanes import MANY_TASKS, ids, limit, sync, take


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
