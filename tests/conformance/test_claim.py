"""Taking work: which jobs, in which order, and what the claim itself writes down."""

import random

import pytest

from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import AttemptRow, Claimed
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    claim,
    claim_of,
    enqueue,
    new,
    released,
    retry,
    row_of,
    settle,
    snoozed,
)


async def test_claim_returns_the_row_as_it_left_it(store: Store) -> None:
    job = new(args='{"a":1}', priority=3, max_attempts=7, timeout=SECOND)
    await enqueue(store, job)
    (claimed,) = await claim(store, now=NOW + 5)
    row = await row_of(store, job.id)
    assert claimed == Claimed(
        seq=row.seq,
        lease=1,
        worker=WORKER,
        id=job.id,
        task="work",
        queue="default",
        args='{"a":1}',
        attempt=1,
        started_at=NOW + 5,
        first_started_at=NOW + 5,
        created_at=NOW,
        run_at=NOW,
        priority=3,
        max_attempts=7,
        timeout=SECOND,
        suspect=False,
    )
    assert (row.state, row.attempt, row.started_at) == ("running", 1, NOW + 5)
    assert await store.jobs.attempts(row.seq) == [
        AttemptRow(1, 1, WORKER, NOW + 5, None, None, None, None, None)
    ]


async def test_claim_takes_priority_then_due_time_then_age(store: Store) -> None:
    late = new(run_at=NOW - SECOND)
    first_of_two = new(run_at=NOW - MINUTE)
    second_of_two = new(run_at=NOW - MINUTE)
    urgent = new(priority=1)
    most_urgent = new(priority=2)
    idle = new(priority=-1, run_at=NOW - HOUR)
    await enqueue(store, idle, late, first_of_two, urgent, second_of_two, most_urgent)
    order = [most_urgent, urgent, first_of_two, second_of_two, late, idle]
    assert [job.id for job in await claim(store)] == [job.id for job in order]


@pytest.mark.parametrize("tasks", [["work"], ["work", "play"], ["work", "play", "rest"]])
async def test_claim_of_few_slots_takes_the_first_in_order_whatever_the_task(
    store: Store, tasks: list[str]
) -> None:
    jobs = [
        new(tasks[n % len(tasks)], priority=n % 3, run_at=NOW - (n % 5) * SECOND) for n in range(30)
    ]
    await enqueue(store, *jobs)
    order = sorted(jobs, key=lambda job: (-job.priority, job.run_at, jobs.index(job)))
    taken: list[str] = []
    for _ in range(6):
        taken += [job.id for job in await claim(store, slots=5, tasks=tasks)]
    assert taken == [job.id for job in order]
    assert await claim(store, tasks=tasks) == []


@pytest.mark.parametrize("crowded", [1, 2, 30])
@pytest.mark.parametrize("limits", [{}, {LimitName("task", "work0"): Limit(1_000)}])
async def test_claim_among_many_tasks_takes_all_jobs_of_those_that_are_ahead(
    store: Store, crowded: int, limits: dict[LimitName, Limit]
) -> None:
    await store.limits.declare(limits, revision=1)
    ahead = [new(f"work{n % crowded}", run_at=NOW - HOUR) for n in range(90)]
    behind = [new(f"work{n}", run_at=NOW - MINUTE) for n in range(60)]
    await enqueue(store, *ahead, *behind)
    tasks = [f"work{n}" for n in range(80)]
    taken: list[str] = []
    for _ in range(4):
        taken += [job.id for job in await claim(store, "idle", "default", slots=40, tasks=tasks)]
    assert taken == [job.id for job in (*ahead, *behind)]


async def test_claim_takes_no_more_than_the_free_slots_of_each_queue(store: Store) -> None:
    await enqueue(store, *[new(queue=queue) for queue in ("mail", "default") for _ in range(5)])
    wanted = claim_of()._replace(slots={"mail": 2, "default": 3})
    claimed = (await store.write(Round(NOW, claim=wanted))).claimed
    assert sorted(job.queue for job in claimed) == ["default"] * 3 + ["mail"] * 2


async def test_claim_leaves_queues_that_it_does_not_name(store: Store) -> None:
    (made,) = await enqueue(store, new(queue="mail"))
    assert await claim(store, "default") == []
    assert [job.id for job in await claim(store, "default", "mail")] == [made.id]


async def test_D16_claim_leaves_tasks_that_the_worker_does_not_know(store: Store) -> None:
    await enqueue(store, *[new(f"unknown{n}", priority=9) for n in range(3)], new("work"))
    assert [job.task for job in await claim(store, tasks=["work", "rest"])] == ["work"]
    assert len(await claim(store, tasks=["unknown0", "unknown1", "unknown2"])) == 3


async def test_claim_leaves_scheduled_jobs(store: Store) -> None:
    await enqueue(store, new(run_at=NOW + MINUTE))
    assert await claim(store, now=NOW + MINUTE - 1) == []
    assert len(await claim(store, now=NOW + MINUTE)) == 1


async def test_claim_leaves_jobs_that_have_expired_and_were_not_looked_at(store: Store) -> None:
    await enqueue(store, new(expires_at=NOW + SECOND), new("play", expires_at=NOW + SECOND))
    late = Round(NOW + SECOND, claim=claim_of(tasks=["work", "play"]))
    assert (await store.write(late)).claimed == []
    in_time = Round(NOW + SECOND - 1, claim=claim_of(tasks=["work", "play"]))
    assert len((await store.write(in_time)).claimed) == 2


@pytest.mark.parametrize("before", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("size", [2, 5_000])
async def test_claim_finds_its_tasks_in_order_behind_any_number_of_others(
    store: Store, before: int, size: int
) -> None:
    early = [new(f"unknown{n % 3}", args="x" * size, run_at=NOW - HOUR) for n in range(before)]
    known = [new(f"work{n % 7}", run_at=NOW - n % 4) for n in range(40)]
    await enqueue(store, *early, *known)
    order = sorted(known, key=lambda job: (job.run_at, known.index(job)))
    tasks = [f"work{n}" for n in range(9)]
    taken: list[str] = []
    for slots in (1, 2, 3, 5, 8, 30):
        taken += [job.id for job in await claim(store, slots=slots, tasks=tasks)]
    assert taken == [job.id for job in order]


@pytest.mark.parametrize("before", [63, 64, 65, 600])
async def test_claim_steps_over_any_number_that_has_expired_and_was_not_looked_at(
    store: Store, before: int
) -> None:
    expired = [
        new(f"work{n % 5}", run_at=NOW - HOUR, expires_at=NOW + SECOND) for n in range(before)
    ]
    good = [new(f"work{n % 5}") for n in range(10)]
    await enqueue(store, *expired, *good)
    tasks = [f"work{n}" for n in range(5)]
    late = Round(NOW + SECOND, claim=claim_of(tasks=tasks, slots=7))
    taken = [job.id for _ in range(3) for job in (await store.write(late)).claimed]
    assert taken == [job.id for job in good]


@pytest.mark.parametrize("seed", range(8))
async def test_claims_take_what_a_sort_of_all_rows_would(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    tasks = [f"task{n}" for n in range(rng.choice([1, 4, 40]))]
    known = tasks if seed % 2 else rng.sample(tasks, (len(tasks) + 1) // 2)
    queues = ("default", "mail")
    left = [
        new(
            rng.choice(tasks),
            queue=rng.choice(queues),
            priority=rng.choice([0, 0, 0, -3, 5]),
            run_at=NOW - rng.randrange(50),
            expires_at=rng.choice([None, None, NOW + MINUTE, NOW + HOUR]),
        )
        for _ in range(500)
    ]
    await enqueue(store, *left)
    age = {job.id: number for number, job in enumerate(left)}
    now = NOW + MINUTE
    while True:
        can_run = [
            job
            for job in left
            if job.task in known and (job.expires_at is None or job.expires_at > now)
        ]
        can_run.sort(key=lambda job: (-job.priority, job.run_at, age[job.id]))
        slots = {queue: rng.randrange(1, 40) for queue in queues}
        first = [[job for job in can_run if job.queue == queue][: slots[queue]] for queue in queues]
        expected = [job for job in can_run if job in first[0] + first[1]]
        wanted = claim_of(tasks=known)._replace(slots=slots)
        claimed = (await store.write(Round(now, claim=wanted))).claimed
        assert [job.id for job in claimed] == [job.id for job in expected]
        if not claimed:
            break
        left = [job for job in left if job not in expected]


async def test_claim_of_a_running_job_is_granted_to_nobody_else(store: Store) -> None:
    await enqueue(store, new())
    assert len(await claim(store, worker=WORKER)) == 1
    assert await claim(store, worker=OTHER_WORKER) == []
    assert await claim(store, worker=WORKER) == []


async def test_claim_counts_the_attempt_and_raises_the_lease_each_time(store: Store) -> None:
    await enqueue(store, new())
    seen = []
    for n in range(4):
        (job,) = await claim(store, worker=WORKER + n, now=NOW + n)
        seen.append((job.attempt, job.lease, job.worker, job.started_at, job.first_started_at))
        await settle(store, retry(job, NOW))
    assert seen == [(n + 1, n + 1, WORKER + n, NOW + n, NOW) for n in range(4)]


async def test_claim_after_an_attempt_was_given_back_repeats_its_number_under_a_new_lease(
    store: Store,
) -> None:
    await enqueue(store, new())
    (first,) = await claim(store)
    await settle(store, released(first))
    (second,) = await claim(store)
    await settle(store, snoozed(second, NOW))
    (third,) = await claim(store)
    assert [job.attempt for job in (first, second, third)] == [1, 1, 1]
    assert [job.lease for job in (first, second, third)] == [1, 2, 3]


async def test_claim_without_slots_takes_nothing(store: Store) -> None:
    await enqueue(store, new())
    assert (await store.write(Round(NOW, claim=claim_of()._replace(slots={})))).claimed == []


# -- after an answer was lost --------------------------------------------------------------------------


async def test_claim_with_what_is_held_returns_the_others_of_its_worker_as_they_are(
    store: Store,
) -> None:
    await enqueue(store, *(new() for _ in range(3)))
    await enqueue(store, new())
    lost = await claim(store, slots=2, now=NOW)
    held = await claim(store, slots=1, now=NOW + SECOND)
    (of_another,) = await claim(store, worker=OTHER_WORKER, slots=1, now=NOW + SECOND)
    waiting = new()
    await enqueue(store, waiting)

    holding = frozenset((job.seq, job.lease) for job in held)
    again = claim_of(slots=2)._replace(held=holding)
    written = await store.write(Round(now=NOW + MINUTE, claim=again))
    # As they were claimed, and no slot is left for the one that waits.
    assert written.claimed == lost
    assert of_another not in written.claimed

    more = claim_of(slots=3)._replace(held=holding)
    written = await store.write(Round(now=NOW + MINUTE, claim=more))
    assert [job.id for job in written.claimed[:2]] == [job.id for job in lost]
    assert [job.id for job in written.claimed[2:]] == [waiting.id]
    assert {job.lease for job in written.claimed} == {1}


async def test_claim_with_what_is_held_tells_one_attempt_of_a_job_from_the_next(
    store: Store,
) -> None:
    await enqueue(store, new())
    (first,) = await claim(store)
    await settle(store, retry(first, run_at=NOW))
    (second,) = await claim(store)
    again = claim_of()._replace(held=frozenset([(first.seq, first.lease)]))
    written = await store.write(Round(now=NOW, claim=again))
    assert written.claimed == [second]
