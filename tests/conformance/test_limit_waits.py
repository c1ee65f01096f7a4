"""Waits for limits: which limit a job or a lane waits for."""

from datetime import datetime, timedelta

from jobrunner.core.clock import from_us
from jobrunner.core.limits import RateLimit
from jobrunner.core.model import Enqueue
from jobrunner.store.protocol import Store
from tests.support.factories import HOUR, MINUTE, NOW, enqueue, retry, row_of, settle, succeeded
from tests.support.lanes import limit, sync, take

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
