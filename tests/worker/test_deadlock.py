"""Attempts that wait for jobs which no slot is left for: the one that closes the circle is refused, and no other."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any

import pytest
from fastapi import Depends
from tenacity import wait_none

from jobrunner import (
    Deadlock,
    Injected,
    Job,
    JobCancelled,
    JobContext,
    JobDead,
    JobExpired,
    JobRunner,
    ResultTimeout,
    TaskRouter,
)
from jobrunner.worker.attempt import Attempt
from jobrunner.worker.deadlock import Deadlocks
from tests.support.children import echo, tasks
from tests.support.engine import (
    Gate,
    Heard,
    claimed,
    first_problem,
    history,
    soon,
    stop_between_writes,
    store_of,
    stored,
    worker_of,
)
from tests.support.processes import child

pytestmark = pytest.mark.each_store


Body = Callable[[], Coroutine[Any, Any, object]]


async def error_of(jobs: JobRunner, job: Job[Any]) -> str:
    """Return what a job with one attempt died of."""
    with pytest.raises(JobDead):
        await job.result(timeout=15)
    return (await jobs.dead_letters.get(job.id)).error or ""


# -- circles -----------------------------------------------------------------------------------------------


async def test_parents_that_fill_all_slots_and_wait_for_children_get_through(
    jobs: JobRunner,
) -> None:
    """The program that showed it: twenty slots, twenty parents, and a mail that has to wait behind them."""

    @jobs.task
    async def child_of(i: int) -> int:
        return i

    @jobs.task(wait=wait_none())
    async def parent(i: int) -> int:
        return await (await child_of.enqueue(i)).result()

    @jobs.task
    async def mail() -> str:
        return "sent"

    async with jobs.running():
        parents = await jobs.enqueue_many([parent.call(i) for i in range(20)])
        sent = await mail.enqueue()
        assert await sent.result(timeout=15) == "sent"
        assert [await one.result(timeout=15) for one in parents] == list(range(20))
        attempts = [one for job in parents for one in await history(jobs, job.id)]
        health = await jobs.health()
    ends = Counter(one.error_type for one in attempts)
    assert ends[None] == 20
    assert ends["Deadlock"] == 1
    assert sum(ends.values()) == 21
    assert (health.status, health.problems) == ("ok", ())


async def test_error_says_what_to_write(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})

    @jobs.task
    async def inner() -> None: ...

    @jobs.task(max_attempts=1)
    async def outer() -> None:
        await (await inner.enqueue()).result()

    async with jobs.running():
        said = await error_of(jobs, await outer.enqueue())
    assert "cannot start: the one slot of queue 'default' is held by attempts that wait for" in said
    assert "`await jobs.enqueue_chain([...])`" in said
    assert "`@jobs.task(queue=...)`" in said


async def test_wait_of_a_def_task_counts(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 2})
    heard = Heard(jobs)

    @jobs.task
    def inner(i: int) -> int:
        return i

    @jobs.task(max_attempts=1)
    def outer(i: int) -> int:
        return jobs.sync.run(jobs.sync.enqueue(inner, i).result())

    async with jobs.running():
        for i in range(2):
            await outer.enqueue(i)
        letter = await soon(heard.dead.get())
        assert letter.error_type == "Deadlock"
        assert "all 2 slots of queue 'default' are held" in (letter.error or "")
        succeeded = [(await soon(heard.succeeded.get())).task for _ in range(3)]
        assert sorted(succeeded) == ["inner", "inner", "outer"]


async def test_wait_for_several_at_once_counts(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})
    heard = Heard(jobs)

    @jobs.task
    async def inner(i: int) -> int:
        return i

    @jobs.task(max_attempts=1)
    async def outer() -> list[int]:
        children = await jobs.enqueue_many([inner.call(i) for i in range(3)])
        return await asyncio.gather(*(one.result() for one in children))

    async with jobs.running():
        assert "cannot start" in await error_of(jobs, await outer.enqueue())
        # `gather` leaves the other waits alone, and these end with the jobs.
        for _ in range(3):
            await soon(heard.succeeded.get())


async def test_wait_for_itself_is_refused(jobs: JobRunner) -> None:
    @jobs.task(max_attempts=1)
    async def narcissus(job: JobContext) -> None:
        await (await jobs.get(job.id)).result()

    async with jobs.running():
        assert "waits for its own result" in await error_of(jobs, await narcissus.enqueue())


async def test_wait_for_what_comes_behind_in_the_chain_is_refused(jobs: JobRunner) -> None:
    last: list[Job[None]] = []
    gate = Gate()

    @jobs.task(max_attempts=1)
    async def first() -> None:
        await gate.enter()
        await last[0].result()

    @jobs.task
    async def later() -> None: ...

    async with jobs.running():
        chain = await jobs.enqueue_chain([first.call(), later.call(), later.call(), later.call()])
        last.append(chain[-1])
        gate.open()
        said = await error_of(jobs, chain[0])
        assert "which starts only when this one has ended" in said
        await last[0].result(timeout=15)


async def test_wait_for_a_chain_behind_another_that_waits_back_is_refused(jobs: JobRunner) -> None:
    heard = Heard(jobs)
    others: dict[str, Job[None]] = {}
    gate = Gate()

    @jobs.task(max_attempts=1)
    async def one() -> None:
        await gate.enter()
        await others["behind two"].result()

    @jobs.task(max_attempts=1)
    async def two() -> None:
        await gate.enter()
        await others["behind one"].result()

    @jobs.task
    async def later() -> None: ...

    async with jobs.running():
        for name, task in {"one": one, "two": two}.items():
            _, others[f"behind {name}"] = await jobs.enqueue_chain([task.call(), later.call()])
        await gate.arrival()
        await gate.arrival()
        gate.open()
        assert (await soon(heard.dead.get())).error_type == "Deadlock"
        succeeded = [(await soon(heard.succeeded.get())).task for _ in range(3)]
        assert sorted(succeeded) in (["later", "later", "one"], ["later", "later", "two"])


async def test_queues_that_wait_for_each_other_lose_one_attempt(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"left": 1, "right": 1})
    heard = Heard(jobs)
    gate = Gate()

    @jobs.task(queue="left")
    async def in_left() -> None: ...

    @jobs.task(queue="right")
    async def in_right() -> None: ...

    @jobs.task(queue="left", max_attempts=1)
    async def from_left() -> None:
        await gate.enter()
        await (await in_right.enqueue()).result()

    @jobs.task(queue="right", max_attempts=1)
    async def from_right() -> None:
        await gate.enter()
        await (await in_left.enqueue()).result()

    async with jobs.running():
        await from_left.enqueue()
        await from_right.enqueue()
        await gate.arrival()
        await gate.arrival()
        gate.open()
        assert (await soon(heard.dead.get())).error_type == "Deadlock"
        for _ in range(3):
            await soon(heard.succeeded.get())
        assert heard.dead.empty()


# -- what could go on ------------------------------------------------------------------------------------------


async def test_wait_with_a_timeout_is_left_to_it_and_health_tells(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1, "other": 1})
    waits = asyncio.Event()

    @jobs.task
    async def inner() -> None: ...

    @jobs.task
    async def outer() -> str:
        job = await inner.enqueue()
        waits.set()
        try:
            await job.result(timeout=1.2)
        except ResultTimeout:
            return "gave up"
        return "never"

    async with jobs.running():
        job = await outer.enqueue()
        await soon(waits.wait())
        health = await soon(first_problem(jobs))
        assert await job.result(timeout=15) == "gave up"
        assert (health.status, health.problems) == (
            "degraded",
            ("the one slot of queue default waits for jobs of queue default",),
        )


async def test_wait_for_a_job_that_expires_is_left_to_that(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1})

    @jobs.task
    async def inner() -> None: ...

    @jobs.task
    async def outer() -> str:
        try:
            await (await inner.options(expires=0.3).enqueue()).result()
        except JobExpired:
            return "expired"
        return "never"

    async with jobs.running():
        assert await (await outer.enqueue()).result(timeout=15) == "expired"


@pytest.mark.parametrize("queues", [{"default": 2}, {"default": 1, "other": 1}])
async def test_wait_while_a_slot_is_free_or_works_is_no_deadlock(
    store_url: str, queues: dict[str, int]
) -> None:
    jobs = JobRunner(store_url, queues=queues)
    gate = Gate()
    queue = list(queues)[-1]

    @jobs.task(queue=queue)
    async def busy() -> None:
        await gate.enter()

    @jobs.task(queue=queue)
    async def inner() -> str:
        return "done"

    @jobs.task
    async def outer() -> str:
        return await (await inner.enqueue()).result()

    async with jobs.running():
        await busy.enqueue()
        await gate.arrival()
        job = await outer.enqueue()
        with pytest.raises(ResultTimeout):
            await job.result(timeout=1.2)  # more than two looks of the attempt that waits
        assert (await jobs.health()).problems == ()
        gate.open()
        assert await job.result(timeout=15) == "done"
        assert len(await history(jobs, job.id)) == 1


async def test_wait_for_a_job_that_is_not_due_is_no_deadlock_while_a_slot_is_free(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url, queues={"default": 2})
    later: asyncio.Queue[Job[None]] = asyncio.Queue()

    @jobs.task
    async def inner() -> None: ...

    @jobs.task
    async def outer() -> str:
        job = await inner.options(delay=3600).enqueue()
        later.put_nowait(job)
        with contextlib.suppress(JobCancelled):
            await job.result()
        return "told"

    async with jobs.running():
        job = await outer.enqueue()
        one = await soon(later.get())
        with pytest.raises(ResultTimeout):
            await job.result(timeout=0.7)
        await jobs.cancel(one.id)
        assert await job.result(timeout=15) == "told"


async def test_wait_that_is_over_is_no_longer_counted(store_url: str) -> None:
    jobs = JobRunner(store_url, queues={"default": 1, "other": 1})
    gate = Gate()

    @jobs.task(queue="other")
    async def inner() -> None: ...

    @jobs.task
    async def outer() -> None:
        waiting = asyncio.create_task((await inner.options(delay=3600).enqueue()).result())
        await asyncio.wait([waiting], timeout=0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await (await inner.enqueue()).result()
        await gate.enter()

    async with jobs.running():
        await outer.enqueue()
        await gate.arrival()
        deadlocks = worker_of(jobs).deadlocks
        assert deadlocks is not None
        (attempt,) = deadlocks._holders()
        assert not attempt.waits
        gate.open()


async def test_wait_that_an_attempt_left_behind_while_it_cleans_up_is_not_counted(
    store_url: str,
) -> None:
    jobs = JobRunner(store_url, queues={"default": 2})
    gate = Gate()
    left: list[asyncio.Task[None]] = []

    async def slow() -> AsyncIterator[None]:
        yield
        await gate.enter()

    @jobs.task
    async def inner() -> None: ...

    @jobs.task
    async def leaves(needs: Annotated[None, Depends(slow)] = Injected) -> None:
        left.append(asyncio.create_task((await inner.options(delay=3600).enqueue()).result()))
        await asyncio.wait(left, timeout=0.1)

    @jobs.task(max_attempts=1)
    async def outer() -> str:
        await (await inner.enqueue()).result()
        return "done"

    async with jobs.running():
        await leaves.enqueue()
        await gate.arrival()
        job = await outer.enqueue()
        with pytest.raises(ResultTimeout):
            await job.result(timeout=1.2)
        gate.open()
        assert await job.result(timeout=15) == "done"
        left[0].cancel()
        await asyncio.wait(left)


# -- other processes ----------------------------------------------------------------------------------------------


@pytest.fixture
def family(store_url: str) -> JobRunner:
    """Return a runner with one slot, whose ``outer`` waits for a job that other processes can run."""
    jobs = JobRunner(store_url, queues={"default": 1})
    jobs.include(tasks)
    mine = TaskRouter()

    @mine.task(max_attempts=1)
    async def outer() -> str:
        return await (await echo.enqueue("far away")).result()

    jobs.include(mine)
    return jobs


async def test_wait_for_what_another_process_can_start_goes_on(
    store_url: str, family: JobRunner
) -> None:
    async with family.running(), child("work", store_url) as other:
        await other.heard("open")
        await worker_of(family).maintenance.peers.refresh()
        job = await family.enqueue(family.tasks["outer"])
        assert await job.result(timeout=15) == "far away"


async def test_wait_for_a_process_that_stands_is_told_by_health_and_refused_once_it_is_dead(
    store_url: str, family: JobRunner
) -> None:
    async with family.running(), child("work", store_url) as other:
        await other.heard("open")
        await worker_of(family).maintenance.peers.refresh()
        await stop_between_writes(family, other.pid)
        job = await family.enqueue(family.tasks["outer"])
        with pytest.raises(ResultTimeout):
            await job.result(timeout=1.2)
        assert (await family.health()).problems == (
            "the one slot of queue default waits for jobs of queue default; another worker may start them",
        )
        await other.kill()
        assert "cannot start" in await error_of(family, job)


# -- the lowest layer: what was read a while ago -------------------------------------------------------------------


async def test_wait_for_a_job_that_has_ended_meanwhile_is_no_deadlock(store_url: str) -> None:
    """Another attempt's wait was read when its job was queued; the job has since run, and the attempt will notice."""
    jobs = JobRunner(store_url, queues={"default": 2})

    @jobs.task
    async def inner() -> None: ...

    async with jobs.running():
        done = await inner.enqueue()
        await done.result(timeout=15)
        waiting = await inner.options(delay=3600).enqueue()
        row, ended = await stored(jobs, waiting.id), await stored(jobs, done.id)
        mine = Attempt(claimed(seq=1, id="a"), inner.spec)
        other = Attempt(claimed(seq=2, id="b"), inner.spec)
        deadlocks = Deadlocks(
            store_of(jobs),
            lambda: worker_of(jobs).id,
            slots={"default": 2},
            holders=lambda: [mine, other],
            peers=lambda: (),
            refresh_peers=worker_of(jobs).maintenance.peers.refresh,
        )
        with deadlocks.waiting(mine, waiting.id, timed=False) as own:
            with deadlocks.waiting(other, done.id, timed=False) as stale:
                stale.front = ended._replace(state="queued")
                await deadlocks.check(mine, own, row)
            # The same, but for a job that still waits.
            with deadlocks.waiting(other, waiting.id, timed=False) as fresh:
                fresh.front = row
                with pytest.raises(Deadlock):
                    await deadlocks.check(mine, own, row)
            await deadlocks.check(mine, own, row)
