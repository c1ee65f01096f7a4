"""Finished jobs and dead letters are kept for a time, and a number of them at most."""

import contextlib
from datetime import timedelta

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import JobNotFound, JobRunner
from jobrunner.queue.audit import audited
from jobrunner.worker import retention
from tests.support.engine import Heard, next_round, soon, store_of, worker_of

pytestmark = pytest.mark.each_store


async def test_prunes_finished_jobs_after_their_retention_and_no_others(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(
        store_url, retention=timedelta(days=2), dead_letter_retention=timedelta(days=4)
    )
    heard = Heard(jobs)

    @jobs.task
    async def work() -> None: ...

    @jobs.task(retention=timedelta(days=6))
    async def keep() -> None: ...

    @jobs.task(max_attempts=1)
    async def fail() -> None:
        raise LookupError

    async with jobs.running():
        worker = worker_of(jobs)
        done = await jobs.enqueue(work)
        kept = await jobs.enqueue(keep)
        await done.result(timeout=15)
        await kept.result(timeout=15)
        dead = await jobs.enqueue(fail)
        await soon(heard.dead.get())
        waiting = await jobs.enqueue(work.options(delay=timedelta(days=30)))
        cancelled = await jobs.enqueue(work.options(delay=60))
        await jobs.cancel(cancelled.id)

        async def there() -> set[str]:
            found = set()
            for job in (done, kept, dead, waiting, cancelled):
                with contextlib.suppress(JobNotFound):
                    found.add((await jobs.get(job.id)).id)
            return found

        everything = {job.id for job in (done, kept, dead, waiting, cancelled)}
        frozen.tick(timedelta(days=2))
        await worker.maintenance.retention.prune()
        assert await there() == everything
        frozen.tick(1)
        assert await worker.maintenance.retention.prune() == 2
        assert await there() == everything - {done.id, cancelled.id}
        frozen.tick(timedelta(days=2))
        assert await worker.maintenance.retention.prune() == 1
        assert await there() == everything - {done.id, cancelled.id, dead.id}
        frozen.tick(timedelta(days=2))
        assert await worker.maintenance.retention.prune() == 1
        assert await there() == {waiting.id}


async def test_prunes_down_to_keep_finished_oldest_first(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(store_url, queues={"default": 1}, keep_finished=3)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        stored = []
        for _ in range(8):
            job = await jobs.enqueue(work)
            await job.result(timeout=15)
            stored.append(job.id)
            frozen.tick(1)
        assert await worker_of(jobs).maintenance.retention.prune() == 5
        assert {job.id for job in (await jobs.list()).items} == set(stored[5:])


async def test_prunes_in_slices_until_nothing_is_left(
    store_url: str, frozen: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_SLICE", 10)
    jobs = JobRunner(store_url, queues={"default": 100}, retention=60)

    @jobs.task
    async def work(number: int) -> None: ...

    async with jobs.running():
        for job in await jobs.enqueue_many(work.call(number) for number in range(95)):
            await job.result(timeout=15)
        frozen.tick(61)
        assert await worker_of(jobs).maintenance.retention.prune() == 95
        assert (await jobs.list()).items == []


async def test_prunes_attempts_with_their_job(
    store_url: str, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(store_url, retention=0)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running():
        job = await jobs.enqueue(work)
        await job.result(timeout=15)
        frozen.tick(1)
        await worker_of(jobs).maintenance.retention.prune()
        with pytest.raises(JobNotFound):
            await jobs.get(job.id)
        assert list(await store_of(jobs).jobs.attempts(1)) == []


async def test_prunes_by_itself(store_url: str) -> None:
    keeping = JobRunner(store_url)

    @keeping.task
    async def work() -> None: ...

    async with keeping.running():
        job = await keeping.enqueue(work)
        await job.result(timeout=15)
    jobs = JobRunner(store_url, retention=0)
    async with jobs.running():
        # The first chores of a worker prune; the round behind them is the signal that they are through.
        await worker_of(jobs).do_chores()
        await next_round(jobs)
        with pytest.raises(JobNotFound):
            await jobs.get(job.id)


async def test_prunes_the_audit_log_after_a_year_in_slices(
    store_url: str, frozen: FrozenDateTimeFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_SLICE", 2)
    jobs = JobRunner(store_url)

    async def record(target: str) -> None:
        async with audited(jobs.audit, "ada", "cancel", target=target):
            pass

    async with jobs.running():
        for number in range(5):
            await record(str(number))
        frozen.tick(timedelta(days=364))
        await record("young")
        await worker_of(jobs).maintenance.retention.prune()
        assert len((await jobs.audit.list()).items) == 6
        frozen.tick(timedelta(days=1, seconds=1))
        await worker_of(jobs).maintenance.retention.prune()
        assert [one.target for one in (await jobs.audit.list()).items] == ["young"]
