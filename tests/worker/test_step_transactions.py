"""``job.transaction(step=)``: rows and the memory of them in one commit, while the job goes on."""

from typing import Any, Final

import pytest
from tenacity import wait_none

from jobrunner import JobContext, JobDead, LeaseLost
from tests.support.engine import soon, store_of
from tests.worker.site import Site, ended

NO_OTHER: Final = "gives no connection|in no transaction"


async def test_rows_of_a_step_are_written_once_over_all_attempts(site: Site) -> None:
    inside: list[bool] = []

    @site.tasks.task(max_attempts=3, wait=wait_none())
    async def order(job: JobContext) -> str:
        async with job.transaction(step="reserve") as tx:
            inside.append(tx is not None)
            if tx is not None:
                await site.add(tx, "reserved")
        if job.attempt < 3:
            raise ConnectionError
        return "done"

    async with site.open() as jobs:
        job = await jobs.enqueue(order)
        assert await soon(job.result()) == "done"
        assert inside == [True, False, False]
        assert site.words() == ["reserved"]
        assert [step.name for step in (await job.refresh()).steps] == ["reserve"]


async def test_error_in_the_block_rolls_rows_and_memo_back(site: Site) -> None:
    @site.tasks.task(max_attempts=2, wait=wait_none())
    async def order(job: JobContext) -> str:
        async with job.transaction(step="reserve") as tx:
            await site.add(tx, f"attempt {job.attempt}")
            if job.attempt == 1:
                raise ConnectionError
        return "done"

    async with site.open() as jobs:
        assert await soon((await jobs.enqueue(order)).result()) == "done"
        assert site.words() == ["attempt 2"]


async def test_rollback_in_the_block_is_refused_and_stores_nothing(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def order(job: JobContext) -> None:
        async with job.transaction(step="reserve") as tx:
            await site.add(tx, "lost")
            await (tx.execute("ROLLBACK") if site.kind.endswith("asyncpg") else tx.rollback())

    async with site.open() as jobs:
        job = await jobs.enqueue(order)
        # A session of which the dependency has begun the transaction gives no other one.
        words = NO_OTHER if "begun" in site.kind else "rolled its transaction back"
        with pytest.raises(JobDead, match=words):
            await soon(job.result())
        assert site.words() == []
        assert (await job.refresh()).steps == ()


async def test_fault_22_step_in_a_transaction_without_the_lease_writes_no_row(site: Site) -> None:
    refused: list[bool] = []

    @site.tasks.task(max_attempts=1)
    async def order(job: JobContext) -> None:
        if refused:
            return
        await store_of(site.jobs).workers.leave(job._claimed.worker, now=0)
        try:
            async with job.transaction(step="reserve") as tx:
                await site.add(tx, "lost")
        except LeaseLost:
            refused.append(True)
            raise

    async with site.open() as jobs:
        assert (await ended(await jobs.enqueue(order))).state == "succeeded"
        assert refused == [True]
        assert site.words() == []


async def test_transaction_that_settles_the_job_may_follow_one_of_a_step(site: Site) -> None:
    @site.tasks.task(max_attempts=1)
    async def order(job: JobContext) -> int:
        async with job.transaction(step="reserve") as tx:
            await site.add(tx, "reserved")
        assert await job.step("number", lambda: 1) == 1
        async with job.transaction() as tx:
            await site.add(tx, "settled")
        return 7

    async with site.open() as jobs:
        job = await jobs.enqueue(order)
        if "begun" in site.kind:
            # Its dependency writes `async with session.begin(): yield session`, which is one transaction.
            with pytest.raises(JobDead, match=NO_OTHER):
                await soon(job.result())
            assert site.words() == ["reserved"]
        else:
            assert await soon(job.result()) == 7
            assert site.words() == ["reserved", "settled"]


async def test_def_task_writes_rows_of_a_step_in_its_thread(blocking: Site) -> None:
    inside: list[Any] = []

    @blocking.tasks.task(max_attempts=2, wait=wait_none())
    def order(job: JobContext) -> str:
        with job.transaction(step="reserve") as tx:
            inside.append(tx is not None)
            if tx is not None:
                blocking.add_now(tx, "reserved")
        if job.attempt == 1:
            raise ConnectionError
        return "done"

    async with blocking.open() as jobs:
        assert await soon((await jobs.enqueue(order)).result()) == "done"
        assert inside == [True, False]
        assert blocking.words() == ["reserved"]
