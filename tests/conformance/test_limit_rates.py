"""Rate limits: how often jobs of a queue, a task or a lane start."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from jobrunner.core.limits import LimitScope, RateLimit
from jobrunner.store.limits import GRAIN_US, SLACK_US
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    SECOND,
    WORKER,
    cancelled,
    claim_of,
    enqueue,
    settle,
    succeeded,
)
from tests.support.lanes import MANY_TASKS, limit, sync, take


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
