"""Limits under the tester's clock: travel refills buckets, and idle means that no job may start."""

from pathlib import Path

from jobrunner import Concurrency, JobRunner, Rate
from jobrunner.testing import JobTester


async def test_travel_refills_the_bucket_of_a_rate(tmp_path: Path) -> None:
    jobs = JobRunner(tmp_path / "jobs.db")
    ran: list[int] = []

    @jobs.task(rate_limit=Rate(1, per=60, by="key"))
    async def note(key: int) -> None:
        ran.append(key)

    async with JobTester(jobs) as t:
        for _ in range(3):
            await note.enqueue(1)
        await note.enqueue(2)
        await t.run_until_idle()
        assert sorted(ran) == [1, 2]
        await t.travel(seconds=60)
        assert sorted(ran) == [1, 1, 2]
        await t.travel(minutes=5)
        assert sorted(ran) == [1, 1, 1, 2]


async def test_ordered_jobs_run_in_order_through_a_retry(tmp_path: Path) -> None:
    jobs = JobRunner(tmp_path / "jobs.db")
    ran: list[int] = []

    @jobs.task(concurrency=Concurrency(1, by="key", ordered=True))
    async def step(key: int, number: int) -> None:
        ran.append(number)
        if ran == [0]:
            raise OSError("once")

    async with JobTester(jobs) as t:
        await jobs.enqueue_many([step.call(1, number) for number in range(3)])
        await t.run_until_idle()
        assert ran == [0]
        await t.travel(hours=1)
        assert ran == [0, 0, 1, 2]
