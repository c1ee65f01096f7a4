"""Attempts that wait for batches which no slot is left for are refused, as those that wait for jobs."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from jobrunner import Batch, Job, JobContext, JobDead, JobRunner, ResultTimeout, TaskRouter
from tests.support.children import echo, tasks
from tests.support.engine import Gate, Heard, first_problem, history, soon, worker_of
from tests.support.processes import child


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    return JobRunner(tmp_db, queues={"default": 4})


async def error_of(jobs: JobRunner, job: Job[Any]) -> str:
    """Return the error by which a job with one attempt died."""
    with pytest.raises(JobDead):
        await job.result(timeout=15)
    letter = await jobs.dead_letters.get(job.id)
    assert letter.error_type == "Deadlock"
    return letter.error or ""


async def test_graph_of_which_only_a_blocked_job_is_left_counts(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1, "other": 1})
    gate = Gate()

    @jobs.task(queue="other")
    async def first() -> int:
        await gate.enter()
        return 1

    @jobs.task
    async def last(n: int) -> int:
        return n

    @jobs.task(max_attempts=1)
    async def outer() -> None:
        one = first.call()
        await (await jobs.enqueue_batch([one, last.call(one.result)])).wait()

    async with jobs.running():
        job = await outer.enqueue()
        await gate.arrival()
        with pytest.raises(ResultTimeout):
            await job.result(timeout=1.2)  # more than two looks, while another one runs
        gate.open()
        assert "cannot start: the one slot of queue 'default'" in await error_of(jobs, job)


@pytest.mark.parametrize("waits_by", ["wait", "results"])
async def test_parents_that_fill_all_slots_and_wait_for_batches_get_through(
    jobs: JobRunner, waits_by: str
) -> None:
    @jobs.task
    async def member(n: int) -> int:
        return n

    @jobs.task(wait=wait_none())
    async def parent(n: int) -> int:
        batch = await jobs.enqueue_batch([member.call(n), member.call(n)])
        if waits_by == "wait":
            return (await batch.wait()).succeeded
        return len(await batch.results())

    async with jobs.running():
        parents = await jobs.enqueue_many([parent.call(n) for n in range(4)])
        assert [await one.result(timeout=15) for one in parents] == [2] * 4
        attempts = [one for job in parents for one in await history(jobs, job.id)]
        health = await jobs.health()
    # The one that is refused frees a slot, and its retry finds one.
    assert Counter(one.error_type for one in attempts) == {None: 4, "Deadlock": 1}
    assert (health.status, health.problems) == ("ok", ())


async def test_error_says_what_to_write(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1})

    @jobs.task
    async def member() -> None: ...

    @jobs.task(max_attempts=1)
    async def outer() -> None:
        await (await jobs.enqueue_batch([member.call()])).wait()

    async with jobs.running():
        said = await error_of(jobs, await outer.enqueue())
    assert "cannot start: the one slot of queue 'default' is held by attempts that wait for" in said
    assert "`await job.run(name, [...])`" in said
    assert "`enqueue_batch(..., then=...)`" in said
    assert "`@jobs.task(queue=...)`" in said


async def test_wait_of_a_def_task_counts(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1})

    @jobs.task
    def member() -> None: ...

    @jobs.task(max_attempts=1)
    def outer() -> None:
        jobs.sync.run(jobs.sync.enqueue_batch([member.call()]).wait())

    async with jobs.running():
        assert "cannot start" in await error_of(jobs, await outer.enqueue())


async def test_member_that_waits_for_its_own_batch_is_refused_while_others_still_run(
    jobs: JobRunner,
) -> None:
    gate = Gate()

    @jobs.task
    async def other() -> None:
        await gate.enter()

    @jobs.task(max_attempts=1)
    async def member(job: JobContext) -> None:
        batch = await job.batch.get()
        await batch.wait()

    async with jobs.running():
        batch = await jobs.enqueue_batch([other.call(), member.call()])
        await gate.arrival()
        assert "of which it is a member" in await error_of(jobs, batch.jobs[1])
        gate.open()
        assert (await soon(batch.wait())).state == "failed"


async def test_batch_whose_member_waits_back_is_refused_although_slots_are_free(
    jobs: JobRunner,
) -> None:
    heard = Heard(jobs)

    @jobs.task
    async def quick() -> None: ...

    @jobs.task(max_attempts=1)
    async def member(parent: str) -> None:
        await (await jobs.get(parent)).result()

    @jobs.task(max_attempts=1)
    async def outer(job: JobContext) -> str:
        batch = await jobs.enqueue_batch([quick.call(), member.call(job.id)])
        return (await batch.wait()).state

    async with jobs.running():
        job = await outer.enqueue()
        letter = await soon(heard.dead.get())
        assert letter.error_type == "Deadlock"
        assert "waits for others in turn" in (letter.error or "")
        # One of the two is refused, and the other goes on.
        if letter.id != job.id:
            assert await job.result(timeout=15) == "failed"


async def test_wait_with_a_timeout_is_left_to_it_and_health_tells(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1, "other": 1})
    waits = asyncio.Event()

    @jobs.task
    async def member() -> None: ...

    @jobs.task
    async def outer() -> str:
        batch = await jobs.enqueue_batch([member.call()])
        waits.set()
        with pytest.raises(ResultTimeout):
            await batch.wait(timeout=1.2)
        return "gave up"

    async with jobs.running():
        job = await outer.enqueue()
        await soon(waits.wait())
        health = await soon(first_problem(jobs))
        assert await job.result(timeout=15) == "gave up"
        assert health.problems == ("the one slot of queue default waits for jobs of queue default",)


async def test_wait_while_a_slot_is_free_is_no_deadlock_and_a_cancel_ends_it(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 2})
    later: asyncio.Queue[Batch[None]] = asyncio.Queue()

    @jobs.task
    async def member() -> None: ...

    @jobs.task
    async def outer() -> str:
        calls = [member.call(), member.options(delay=3600).call()]
        batch = await jobs.enqueue_batch(calls)
        later.put_nowait(batch)
        return (await batch.wait()).state

    async with jobs.running():
        job = await outer.enqueue()
        batch = await soon(later.get())
        with pytest.raises(ResultTimeout):
            await job.result(timeout=1.2)  # more than two looks of the attempt that waits
        assert await batch.cancel()
        assert await job.result(timeout=15) == "cancelled"
        assert len(await history(jobs, job.id)) == 1


async def test_wait_for_a_cancelled_batch_needs_no_slot(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1})

    @jobs.task
    async def member(n: int) -> None: ...

    @jobs.task(max_attempts=1)
    async def outer() -> str:
        batch = await jobs.enqueue_batch([member.call(n) for n in range(1_000)])
        assert await batch.cancel()
        return (await batch.wait()).state

    async with jobs.running():
        assert await (await outer.enqueue()).result(timeout=15) == "cancelled"


async def test_wait_for_what_another_process_can_start_goes_on(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db, queues={"default": 1})
    jobs.include(tasks)
    mine = TaskRouter()

    @mine.task(max_attempts=1)
    async def outer() -> list[str]:
        batch = await jobs.enqueue_batch([echo.call("far"), echo.call("away")])
        return await batch.results()

    jobs.include(mine)
    async with jobs.running(), child("work", tmp_db) as other:
        await other.heard("open")
        await worker_of(jobs).maintenance.peers.refresh()
        job = await jobs.enqueue(outer)
        assert await job.result(timeout=15) == ["far", "away"]
